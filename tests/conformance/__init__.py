"""One suite for all providers: what a client may rely on, whoever answers.

`rows.py` is the table of providers: how each is set up, how it speaks, and what it cannot do. Each test is one
behaviour and runs for every row, as a real job through a real worker; what a row cannot honour has to be refused with
the field's name, before anything is queued. A new provider is a new row; a new way of speaking is one more ear
(`ears.py`).
"""
