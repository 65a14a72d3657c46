"""Other APIs' words for the same log: existing clients plug in unchanged. Each face is a translation, no more.

A face reads its own request into a `JobRequest`, submits it like any other, and tells the job's log in its own
events. Queueing, resume, cancel, fallbacks, limits and cost are those of every job.
"""
