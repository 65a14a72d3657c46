"""The operators' view of this process: one look into Redis a second, however many screens show it."""

import asyncio
from typing import Any, Final

from api.deadline import deadline
from shared.clock import mono_s
from shared.courier import Courier
from shared.hour import Hour
from shared.overview import Overview

KEPT_S: Final = 1.0
"""How long a look is shown to others who ask."""


class Operations:
    def __init__(self, overview: Overview, courier: Courier, hour: Hour) -> None:
        self._overview = overview
        self._courier = courier
        self._hour = hour
        self._one_at_a_time = asyncio.Lock()
        self._view: dict[str, Any] = {}
        self._looked_s = -KEPT_S

    async def view(self) -> dict[str, Any]:
        """Return what goes on, at most a second old."""
        async with self._one_at_a_time:
            if mono_s() - self._looked_s >= KEPT_S:
                async with deadline():
                    now, servers, hour = await asyncio.gather(
                        self._overview.look(), self._courier.show(), self._hour.read()
                    )
                self._view = {"object": "ops", **now, "event_servers": servers, "hour": hour}
                self._looked_s = mono_s()
            return self._view
