"""Every key that Rejoin keeps in Redis, in one place. Ids in, names out."""

import hashlib
from dataclasses import dataclass

ARQ_JOB = "arq:job:"
"""arq's own prefix for a job's payload; arq has no way to change it, job ids are unique enough."""


@dataclass(frozen=True, slots=True)
class Keys:
    prefix: str

    def on_event_servers(self) -> "Keys":
        """Return the names of what is kept of a job on an event server, which may be this very one."""
        return Keys(f"{self.prefix}:events")

    @property
    def records(self) -> str:
        """Channel: on which nothing is said; who listens learns that the connection to the records was lost."""
        return f"{self.prefix}:records"

    @property
    def written(self) -> str:
        """String: what is written to an event server to see whether it takes writes."""
        return f"{self.prefix}:written"

    def unsent(self, server: str) -> str:
        """Sorted set: jobs whose milestones are not all in their logs on an event server, by since when nobody is known
        to bring them (ms)."""
        return f"{self.prefix}:unsent:{server}"

    def job(self, job_id: str) -> str:
        """Hash: the job's record. Lives until the retention after its last event."""
        return f"{self.prefix}:job:{job_id}"

    def log(self, job_id: str) -> str:
        """Stream: the job's events, ids `<attempt>-<seq>`. Also the name of the channel that says it grew."""
        return f"{self.prefix}:log:{job_id}"

    def present(self, job_id: str) -> str:
        """Sorted set: API processes by the time until which the job is to be taken as read there (ms)."""
        return f"{self.prefix}:present:{job_id}"

    def owner_jobs(self, owner: str) -> str:
        """Sorted set: an owner's job ids by order of creation."""
        return f"{self.prefix}:owner:{owner}:jobs"

    def live_jobs(self, owner: str) -> str:
        """Sorted set: an owner's queued and running jobs, by when their records would expire (ms)."""
        return f"{self.prefix}:owner:{owner}:live"

    def posts(self, owner: str) -> str:
        """List: when an owner's jobs of the last minute were created (ms), oldest first."""
        return f"{self.prefix}:owner:{owner}:posts"

    def idempotency(self, owner: str, key: str) -> str:
        """String: the hash of an owner's request under an Idempotency-Key, its job's id and moment of creation (ms)."""
        return f"{self.prefix}:idempotency:{owner}:{hashlib.sha256(key.encode()).hexdigest()}"

    def chat(self, owner: str, chat: str) -> str:
        """String: the job that answers one of an owner's chats, or was the last to."""
        return f"{self.prefix}:chat:{owner}:{hashlib.sha256(chat.encode('utf-8', 'surrogatepass')).hexdigest()}"

    def streams(self, process: str) -> str:
        """Hash: how many streams each owner has open in an API process. Lives as long as that renews it."""
        return f"{self.prefix}:streams:{process}"

    def ledger(self, owner: str, day: int) -> str:
        """Hash: what an owner's jobs took on one day (days since 1970, UTC), `<figure>:<key id>:<provider>/<model>`;
        `cost` is that of all rows together."""
        return f"{self.prefix}:usage:{owner}:{day}"

    def api_key(self, key_id: str) -> str:
        """Hash: what is kept of an API key that a command has made: its hash, its terms, when it was revoked."""
        return f"{self.prefix}:key:{key_id}"

    @property
    def api_keys(self) -> str:
        """Sorted set: the ids of those keys by when they were made (ms)."""
        return f"{self.prefix}:keys"

    @property
    def key_changes(self) -> str:
        """String: a mark, another one after each revocation. Also the name of the channel that says whose it was."""
        return f"{self.prefix}:keys:changed"

    @property
    def created(self) -> str:
        """Counter: the order of creation."""
        return f"{self.prefix}:created"

    @property
    def queue(self) -> str:
        """Sorted set: arq's queue; waiting jobs only, by their turns (`lua/_turns.lua`)."""
        return f"{self.prefix}:queue"

    @property
    def round(self) -> str:
        """Counter: the round of turns that was served last."""
        return f"{self.prefix}:round"

    def turns(self, owner: str, place: str = "") -> str:
        """Sorted set: an owner's jobs in the queue, or in a line, by their turns."""
        return f"{self.prefix}:turns:{place}:{owner}"

    def lane(self, owner: str, priority: str, place: str = "") -> str:
        """Sorted set: what one owner has waiting with one priority, in the queue or in a line, by order of creation."""
        return f"{self.prefix}:lane:{place}:{owner}:{priority}"

    @property
    def wake(self) -> str:
        """List: one token a new job, popped by a worker that has a free slot."""
        return f"{self.prefix}:wake"

    @property
    def lines(self) -> str:
        """Sorted set: the scopes (`provider`, `provider/model`) that jobs wait for, by when to look at each (ms)."""
        return f"{self.prefix}:lines"

    def line(self, scope: str) -> str:
        """Sorted set: jobs that wait for room in a scope, in the order of the queue."""
        return f"{self.prefix}:line:{scope}"

    @property
    def blocked(self) -> str:
        """Sorted set: the jobs of all lines together."""
        return f"{self.prefix}:blocked"

    def calls(self, scope: str) -> str:
        """Sorted set: the jobs with a call in a scope that limits them, by when their records expire (ms)."""
        return f"{self.prefix}:calls:{scope}"

    def bucket(self, rate: str, scope: str) -> str:
        """Hash: what of `requests_per_minute` or `tokens_per_minute` is used up in a scope."""
        return f"{self.prefix}:{rate}:{scope}"

    def returning(self, scope: str) -> str:
        """Sorted set: the jobs that wait in a worker's hands to be let in again, by when their word lapses (ms)."""
        return f"{self.prefix}:returning:{scope}"

    @property
    def pauses(self) -> str:
        """Sorted set: the models whose provider answered 429, by when they may be asked again (ms)."""
        return f"{self.prefix}:pauses"

    def pause(self, scope: str) -> str:
        """Hash: how many pauses in a row (`nth`), and how many calls were let in after the last one."""
        return f"{self.prefix}:pause:{scope}"

    @property
    def ended(self) -> str:
        """Sorted set: ended jobs whose logs are not compacted yet, by the time of their end (ms)."""
        return f"{self.prefix}:ended"

    @property
    def orphans(self) -> str:
        """Sorted set: bookmarks of runs to cancel at their providers, by the time from which on anybody may (ms).

        Also the name of the channel that says that there are new ones.
        """
        return f"{self.prefix}:orphans"

    def minute(self, minute: int) -> str:
        """Hash: what all processes counted in one minute (since 1970), for operators. Lives a little over an hour."""
        return f"{self.prefix}:minute:{minute}"

    @property
    def leases(self) -> str:
        """Sorted set: worker ids by the time at which their lease ends (Redis' clock, ms); 0 is revoked."""
        return f"{self.prefix}:leases"

    def running(self, worker: str) -> str:
        """Set: the jobs that a worker holds."""
        return f"{self.prefix}:running:{worker}"

    def cancels(self, worker: str) -> str:
        """Set: those of a worker's jobs that somebody wants cancelled."""
        return f"{self.prefix}:cancels:{worker}"

    def report(self, worker: str) -> str:
        """String: what a worker says of itself, in JSON. Lives as long as that is news."""
        return f"{self.prefix}:report:{worker}"

    def control(self, worker: str) -> str:
        """Channel: says at once what `cancels` says in the end."""
        return f"{self.prefix}:control:{worker}"

    def health(self, worker: str) -> str:
        """String: arq's health line of one worker."""
        return f"{self.prefix}:health:{worker}"
