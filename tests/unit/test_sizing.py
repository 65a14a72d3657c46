"""`docs/SCALING.md` shows what the calculator says, and what that says can be reckoned by hand."""

import re
import shlex
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bench import sizing
from bench.measures import ALL
from bench.sizing import Load, logs_a_call, plan, units

PAGE = (Path(__file__).parents[2] / "docs" / "SCALING.md").read_text(encoding="utf-8")
COMMANDS = set(re.findall(r"`python -m bench\.sizing( --[^`]+)`", PAGE))
COSTS = units()


@pytest.mark.parametrize("options", [*sorted(COMMANDS), " --units"])
def test_what_a_command_of_the_page_prints_is_on_the_page(
    options: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["sizing", *shlex.split(options)])
    sizing.main()
    assert capsys.readouterr().out.strip() in PAGE


def test_the_page_has_the_sums_of_a_thousand_a_hundred_thousand_and_ten_million() -> None:
    assert any("--streams 500 1000 100000 10000000" in options for options in COMMANDS)


def test_every_unit_cost_names_the_measure_that_shows_it() -> None:
    assert {unit.by for unit in COSTS.values()} <= set(ALL)
    assert all(unit.value > 0 and unit.what for unit in COSTS.values())


def test_a_thousand_streams_reckoned_by_hand() -> None:
    found = plan(Load(streams=1_000), COSTS)
    jobs_s = 1_000 / 21
    assert found.tokens_s == pytest.approx(jobs_s * 1_000)
    tokens, comings = jobs_s * 1_000, jobs_s * 1.2
    cost = {name: unit.value for name, unit in COSTS.items()}
    api = tokens * cost["api_token"] + jobs_s * cost["api_post"] + comings * cost["api_coming"]
    assert found.api_cores == pytest.approx((api + found.apis * cost["api_rest"]) / 1e6)
    assert found.workers == 9, "1,000 / (200 × 0.6)"
    # Nine workers of 111 jobs, each with writers to two servers: a tick is 8 ms for up to 80 logs.
    logs = 1_000 / 9 / 2 * 0.008 * 50
    append = cost["redis_append"] + cost["redis_hear"] + cost["redis_call"] / logs
    events = tokens * append + jobs_s * cost["events_job"] + comings * cost["events_coming"]
    assert found.redis_token_cores == pytest.approx(events / 1e6)
    worker = tokens * (cost["worker_token"] + cost["worker_call"] / logs) + jobs_s * cost["worker_job"]
    assert found.worker_cores == pytest.approx(worker / 1e6)
    control = tokens * cost["control_token"] + jobs_s * cost["control_job"]
    control += comings * (cost["control_coming"] + cost["redis_opening"] * found.apis)
    control += 9 * cost["control_worker"] + found.apis * cost["redis_api"]
    assert found.redis_control_cores == pytest.approx(control / 1e6)
    assert found.kept_bytes == pytest.approx(jobs_s * 3_600 * (cost["redis_ended"] + 8_000 + 4_000))


def test_a_call_is_for_as_many_logs_as_come_in_a_writers_tick() -> None:
    assert logs_a_call(9, 50) == pytest.approx(7.2), "a calm writer's tick is 16 ms"
    assert logs_a_call(60, 50) == pytest.approx(24), "8 ms"
    assert logs_a_call(120, 50) == pytest.approx(72), "12 ms"
    assert logs_a_call(1, 5) == 1


def test_one_server_does_all_until_its_share_of_a_core_is_used() -> None:
    most = max(streams for streams in range(100, 2_000, 10) if not plan(Load(streams=streams), COSTS).event_servers)
    one, more = plan(Load(streams=most), COSTS), plan(Load(streams=most + 10), COSTS)
    assert (one.cells, one.event_servers, one.redis_servers) == (1, 0, 1)
    assert 0.57 < one.redis_token_cores + one.redis_control_cores <= 0.6
    assert (more.cells, more.event_servers, more.redis_servers) == (1, 1, 2)


def test_no_core_of_a_plan_does_more_than_is_planned_with() -> None:
    for streams in (1, 10, 700, 5_000, 123_456, 10_000_000):
        for load in (Load(), Load(readers=20), Load(answer_tokens=10), Load(tokens_per_s=5), Load(event_servers=64)):
            asked = replace(load, streams=streams)
            found = plan(asked, COSTS)
            busy = load.busy + 1e-9
            assert found.api_cores / found.apis <= busy
            assert found.worker_cores / found.workers <= busy
            assert found.redis_token_cores / max(1, found.event_servers) <= busy
            assert found.redis_control_cores / found.cells <= busy, asked
            assert found.event_servers <= found.cells * load.event_servers
            assert streams / found.workers <= load.slots * load.busy or found.workers == 2
