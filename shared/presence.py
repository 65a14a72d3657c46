"""Who reads a job, over all API processes: for jobs that are to be cancelled when nobody does."""

from collections.abc import Mapping, Sequence

from shared.keys import Keys
from shared.redis import Scripts


class Presence:
    """Each process gives its word for a while and renews it; a process that dies takes its word with it."""

    def __init__(self, scripts: Scripts, keys: Keys) -> None:
        self._scripts = scripts
        self._keys = keys

    async def attend(self, process: str, jobs: Mapping[str, float]) -> None:
        """Say that each of these jobs is to be taken as read for so many seconds."""
        keys = [self._keys.present(job_id) for job_id in jobs]
        await self._scripts.run("attend", keys, [process, *(int(seconds * 1000) for seconds in jobs.values())])

    async def absent(self, job_ids: Sequence[str]) -> list[str]:
        """Return those of the jobs that nobody reads, and whose grace is over."""
        keys = [self._keys.present(job_id) for job_id in job_ids]
        return [job_id.decode() for job_id in await self._scripts.run("absent", keys, list(job_ids))]
