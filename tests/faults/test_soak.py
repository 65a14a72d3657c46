"""A short soak, so that it works when it is asked for; `make soak` runs it for minutes."""

from tests.soak import SPREAD_FAULTS, schedule, soak


def test_a_seed_decides_what_happens() -> None:
    assert schedule("7/0", 30) == schedule("7/0", 30) != schedule("8/0", 30)
    assert {plan.what for plan in schedule("7/0", 300)} > {"job", "kill worker", "kill redis", "freeze api", "cut"}
    assert {plan.what for plan in schedule("7/0", 300, SPREAD_FAULTS)} >= {"kill events", "kill redis", "black hole"}


async def test_a_short_soak_is_clean() -> None:
    """Case 56. Everything at once, and nobody saw anything wrong; `python -m tests.soak` takes any seed."""
    found, figures = await soak(seed=12, seconds=8)
    assert found == []
    assert figures.counts["job"] > 20


async def test_a_short_soak_with_event_servers_is_clean() -> None:
    """The same with logs on two servers of their own; this schedule kills one of them, REDIS_URL and a worker."""
    found, figures = await soak(seed=25, seconds=8, event_servers=2)
    assert found == []
    assert figures.counts["job"] > 20
    assert figures.counts["kill events"] > 0
