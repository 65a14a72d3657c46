"""A task that is told to end just as what it waits for happens: it ends. (`wait_for` of Python 3.11 would go on.)"""

import asyncio
from typing import Any

import pytest

from api.attendance import Attendance
from api.streams import Streams
from shared.keys import Keys
from shared.plane import HOME, Place


class Nothing:
    def __getattr__(self, name: str) -> Any:
        async def nothing(*_: Any) -> None:
            return None

        return nothing


def waits() -> list[tuple[Any, asyncio.Event]]:
    place = Place(HOME, Nothing(), Keys("x"))  # type: ignore[arg-type]
    attendance, streams = Attendance(Nothing()), Streams(Nothing())  # type: ignore[arg-type]
    return [(place.watch, place._looked), (attendance._run, attendance._changed), (streams._run, streams._changed)]


@pytest.mark.parametrize("which", range(3))
@pytest.mark.parametrize("ticks", range(5))
async def test_who_is_cancelled_as_it_is_woken_up_ends(which: int, ticks: int) -> None:
    run, happens = waits()[which]
    task = asyncio.create_task(run())
    for _ in range(20):
        await asyncio.sleep(0)
    happens.set()
    for _ in range(ticks):
        await asyncio.sleep(0)
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=1)
    task.cancel()
    assert done
