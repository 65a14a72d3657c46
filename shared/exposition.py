"""What a scrape is answered: a process' metrics as text; those of all its siblings in multiprocess mode.

`uvicorn --workers N` answers a scrape with whichever process accepts it. With `PROMETHEUS_MULTIPROC_DIR`, prometheus-
client's own variable, each process keeps its figures in files there, and the one that answers adds all of them up.
"""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from prometheus_client import CollectorRegistry, Metric, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

_DIR = "PROMETHEUS_MULTIPROC_DIR"


def prepare_files() -> None:
    """Make the folder for the figures of siblings, without what an earlier process of the same number has left open."""
    if folder := os.environ.get(_DIR):
        os.makedirs(folder, exist_ok=True)
        mark_process_dead(os.getpid(), folder)  # type: ignore[no-untyped-call]


def _forget_dead(folder: Path) -> None:
    """Drop what processes have left open that were killed: nobody else tells of them under uvicorn."""
    for pid in {file.stem.rpartition("_")[2] for file in folder.glob("gauge_live*.db")}:
        try:
            os.kill(int(pid), 0)
        except (ProcessLookupError, ValueError):
            mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]
        except OSError:
            # Somebody else's: it is there.
            continue


class _Shown(Collector):
    def __init__(self, collectors: Iterable[Collector], more: Iterable[Metric]) -> None:
        self._collectors = collectors
        self._more = more

    def collect(self) -> Iterable[Metric]:
        for collector in self._collectors:
            yield from collector.collect()
        yield from self._more


class Exposition:
    """One process' answer to scrapes."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._siblings = os.environ.get(_DIR) or None
        self._collectors: Sequence[Collector]
        if self._siblings is None:
            self._collectors = (registry, ProcessCollector(registry=None))
        else:
            self._collectors = (MultiProcessCollector(None, self._siblings),)  # type: ignore[no-untyped-call]

    def render(self, accept: str, more: Iterable[Metric]) -> tuple[bytes, str]:
        """Return the text and its media type. `more`: what is true of all processes, read for this scrape.

        Takes milliseconds of a busy process: to be called in a thread.
        """
        if self._siblings is not None:
            _forget_dead(Path(self._siblings))
        encode, media_type = choose_encoder(accept)
        return encode(_Shown(self._collectors, more)), media_type
