"""Whoever sends something odd has a key for it: what is behind the doors is what is tested."""

import pytest

from tests import keys
from tests.client import Client
from tests.stack import Stack


@pytest.fixture
async def alice(guarded: Stack) -> Client:
    return guarded.client(await keys.new_key(guarded, "alice"))
