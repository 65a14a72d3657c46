"""`python -m bench.sizing --streams 1000 …`: what so many streams take, reckoned from `bench/unit_costs.toml`.

Arithmetic, no measurement: each line is a sum that docs/SCALING.md writes out.
"""

import argparse
import math
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Final

from worker.writer import CALM, CALM_TICK_S, tick_s

UNIT_COSTS: Final = Path(__file__).parent / "unit_costs.toml"
PACKET_BYTES: Final = 95
"""What a packet has beside its payload: Ethernet 18, IPv4 20, TCP 32 with time stamps, TLS 22, and a little."""

WORKERS_CONNECTIONS: Final = 5
API_CONNECTIONS: Final = 2
"""Connections of a process to its Redis."""


@dataclass(frozen=True)
class Unit:
    value: float
    by: str
    what: str


@dataclass(frozen=True)
class Load:
    """What is asked for. Each field is an option of the command."""

    streams: float = 1_000
    """answers that are being waited for or written, at one moment"""
    tokens_per_s: float = 50
    """of an answer that is being written"""
    answer_tokens: float = 1_000
    """tokens of an answer"""
    first_token_s: float = 1.0
    """seconds to an answer's first token"""
    readers: float = 1.0
    """readers of each stream, on average"""
    comings: float = 1.2
    """connections that a reader makes to see one answer: 1, and how often it comes back"""
    text_bytes: float = 4
    """bytes of a token"""
    question_bytes: float = 4_000
    """bytes of a request, with the turns before it"""
    retention_s: float = 3_600
    """seconds for which an ended answer is kept (REJOIN_RETENTION_S)"""
    slots: float = 200
    """jobs that a worker runs at once (REJOIN_MAX_JOBS)"""
    busy: float = 0.6
    """share of a core, or of a worker's slots, that is planned with"""
    event_servers: float = 16
    """event servers of one installation, at most"""


@dataclass(frozen=True)
class Plan:
    """What a load takes. CPU in cores, memory in bytes, network in bytes a second."""

    answer_s: float
    jobs_s: float
    tokens_s: float
    api_cores: float
    proxy_cores: float
    proxy_bytes: float
    apis: int
    api_bytes: float
    worker_cores: float
    workers: int
    worker_bytes: float
    redis_token_cores: float
    redis_control_cores: float
    cells: int
    event_servers: int
    redis_connections: float
    live_bytes: float
    kept_bytes: float
    to_readers: float
    redis_in: float
    redis_out: float

    @property
    def redis_servers(self) -> int:
        """Return all of them: an event server each, and a control server a cell; one does both where that is enough."""
        return self.event_servers + self.cells if self.event_servers else self.cells


def units(path: Path = UNIT_COSTS) -> dict[str, Unit]:
    return {name: Unit(**row) for name, row in tomllib.loads(path.read_text()).items()}


def plan(load: Load, costs: dict[str, Unit]) -> Plan:
    """Reckon what a load takes."""
    cost = {name: unit.value for name, unit in costs.items()}
    cores = {name: value / 1e6 for name, value in cost.items()}
    answer_s = load.first_token_s + load.answer_tokens / load.tokens_per_s
    jobs_s = load.streams / answer_s
    tokens_s = jobs_s * load.answer_tokens
    comings_s = jobs_s * load.readers * load.comings
    read_s = tokens_s * load.readers

    api = read_s * cores["api_token"] + jobs_s * cores["api_post"] + comings_s * cores["api_coming"]
    apis = max(2, math.ceil(api / (load.busy - cores["api_rest"])))
    api += apis * cores["api_rest"]
    proxy = read_s * cores["proxy_token"] + (jobs_s + comings_s) * cores["proxy_coming"]
    worker = tokens_s * cores["worker_token"] + jobs_s * cores["worker_job"]
    workers = max(2, math.ceil(worker / load.busy), math.ceil(load.streams / (load.slots * load.busy)))

    append = cores["redis_append"] + load.readers * cores["redis_hear"]
    control = jobs_s * cores["redis_job"] + comings_s * cores["redis_coming"]
    control += workers * cores["redis_worker"] + apis * cores["redis_api"]
    # A reader that comes is asked about at every API process of its installation.
    asking = comings_s * apis * cores["redis_opening"]
    events, servers, cells = tokens_s * append, 0, 1
    if events + control + asking > load.busy:
        # A worker has a writer for each event server: a tick is a call there, for the part of the logs that it has.
        writers = min(load.event_servers, math.ceil(events / load.busy))
        logs = logs_a_call(load.streams / workers / writers, load.tokens_per_s)
        worker += tokens_s * cores["worker_call"] / logs
        workers = max(workers, math.ceil(worker / load.busy))
        # What is done for a job, and for a reader that comes, is in two places then.
        events = tokens_s * (append + cores["redis_call"] / logs)
        events += jobs_s * cores["events_job"] + comings_s * cores["events_coming"]
        control = tokens_s * cores["control_token"] + jobs_s * cores["control_job"]
        control += comings_s * cores["control_coming"] + workers * cores["control_worker"] + apis * cores["redis_api"]
        servers = math.ceil(events / load.busy)
        # So many that (control + asking / cells) / cells is what a core may do.
        least = (control + math.sqrt(control**2 + 4 * load.busy * asking)) / (2 * load.busy)
        cells = max(math.ceil(servers / load.event_servers), math.ceil(least))
        servers = max(servers, cells)
    control += asking / cells
    ends = workers * WORKERS_CONNECTIONS + apis * API_CONNECTIONS

    answer_bytes = load.answer_tokens * load.text_bytes
    live = (
        cost["redis_running"]
        + 2 * load.question_bytes
        + load.answer_tokens / 2 * cost["redis_event"]
        + answer_bytes / 2
    )
    kept = cost["redis_ended"] + 2 * load.question_bytes + answer_bytes
    return Plan(
        answer_s=answer_s,
        jobs_s=jobs_s,
        tokens_s=tokens_s,
        api_cores=api,
        proxy_cores=proxy,
        proxy_bytes=load.streams * load.readers * cost["proxy_reader"],
        apis=apis,
        api_bytes=cost["api_process"] + load.streams * load.readers / apis * cost["api_reader"],
        worker_cores=worker,
        workers=workers,
        worker_bytes=cost["worker_process"] + load.streams / workers * cost["worker_slot"],
        redis_token_cores=events,
        redis_control_cores=control,
        cells=cells,
        event_servers=servers,
        redis_connections=ends / cells,
        live_bytes=load.streams * live,
        kept_bytes=jobs_s * load.retention_s * kept,
        to_readers=read_s * (cost["wire_reader"] + load.text_bytes + PACKET_BYTES),
        redis_in=tokens_s * (cost["wire_append"] + load.text_bytes),
        redis_out=read_s * (cost["wire_hear"] + load.text_bytes),
    )


def logs_a_call(streams: float, tokens_per_s: float) -> float:
    """Return for how many logs a call of a writer with so many streams is: by its tick, which goes by that number."""
    calm = streams * min(1, CALM_TICK_S * tokens_per_s)
    return max(1.0, calm if calm <= CALM else streams * min(1, tick_s(int(streams)) * tokens_per_s))


def number(value: float) -> str:
    """Write two digits, or three where the first is a one; whole below a thousand."""
    if value >= 1_000:
        digits = 2 if f"{value:e}".startswith("1") else 1
        value = round(value, digits - math.floor(math.log10(value)))
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def size(value: float) -> str:
    for unit, of in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if value >= of:
            return f"{number(value / of)} {unit}"
    return f"{number(value / 1e3)} kB"


def rate(value: float) -> str:
    """Write bytes a second as networks are sold."""
    bits = value * 8
    for unit, of in (("Tbit/s", 1e12), ("Gbit/s", 1e9)):
        if bits >= of:
            return f"{number(bits / of)} {unit}"
    return f"{number(bits / 1e6)} Mbit/s"


def _rows(load: Load, plan: Plan) -> dict[str, str]:
    """Return what the table has of one load, by the names of its rows."""
    readers = load.streams * load.readers
    of_cores = (plan.api_cores + plan.worker_cores + plan.proxy_cores) / load.busy + plan.redis_servers
    each = math.ceil(plan.event_servers / plan.cells)
    return {
        "jobs a second": number(plan.jobs_s),
        "tokens a second": number(plan.tokens_s),
        "proxies, with TLS: cores used / memory": f"{number(plan.proxy_cores)} / {size(plan.proxy_bytes)}",
        "API: cores used / processes": f"{number(plan.api_cores)} / {number(plan.apis)}",
        "API: readers, memory of a process": f"{number(readers / plan.apis)}, {size(plan.api_bytes)}",
        "workers: cores used / processes": f"{number(plan.worker_cores)} / {number(plan.workers)}",
        "workers: jobs, memory of a process": f"{number(load.streams / plan.workers)}, {size(plan.worker_bytes)}",
        "Redis: cores used for tokens": number(plan.redis_token_cores),
        "Redis: cores used for jobs, readers and processes": number(plan.redis_control_cores),
        "installations": number(plan.cells),
        "Redis servers of each": f"1 + {each} for events" if each else "1",
        "connections of processes to each one's control server": number(plan.redis_connections),
        "Redis: memory of live jobs, all servers": size(plan.live_bytes),
        "Redis: memory of ended jobs, all servers": size(plan.kept_bytes),
        "readers' sockets at API processes (at proxies: twice)": number(readers),
        "network to readers": rate(plan.to_readers),
        "network into Redis": rate(plan.redis_in),
        "network out of Redis": rate(plan.redis_out),
        "cores to be had": number(of_cores),
    }


def table(load: Load, streams: Sequence[float], costs: dict[str, Unit]) -> str:
    """Return a column for each number of streams, as Markdown."""
    columns = []
    for count in streams:
        one = replace(load, streams=count)
        columns.append(_rows(one, plan(one, costs)))
    lines = [f"| streams | {' | '.join(f'{count:,.0f}' for count in streams)} |", "|---" * (len(streams) + 1) + "|"]
    lines += [f"| {name} | {' | '.join(column[name] for column in columns)} |" for name in columns[0]]
    return "\n".join(lines)


def of_one_core(load: Load, costs: dict[str, Unit]) -> str:
    """Return what one core of each kind does, as Markdown: the share of it that is planned with, by a unit's cost."""
    append = costs["redis_append"].value + load.readers * costs["redis_hear"].value
    kinds = {
        "API process": (costs["api_token"].value * load.readers, costs["api_coming"].value, "readers that come"),
        "worker": (costs["worker_token"].value, costs["worker_job"].value, "jobs"),
        "Redis": (append, costs["redis_job"].value, "jobs"),
        "proxy, with TLS": (costs["proxy_token"].value * load.readers, costs["proxy_coming"].value, "connections"),
    }
    lines = [
        f"| {load.busy:.0%} of a core | tokens a second | streams of {load.tokens_per_s:g} a second | or, a second |",
        "|---|---|---|---|",
    ]
    for kind, (token, once, what) in kinds.items():
        tokens_s = load.busy * 1e6 / token
        streams = number(tokens_s / load.tokens_per_s)
        lines.append(f"| {kind} | {number(tokens_s)} | {streams} | {number(load.busy * 1e6 / once)} {what} |")
    return "\n".join(lines)


def units_table(costs: dict[str, Unit]) -> str:
    """Return the unit costs as Markdown."""
    lines = ["| what | µs, or bytes | `make bench ARGS=…` |", "|---|---|---|"]
    lines += [f"| {unit.what} | {unit.value:,.10g} | `{unit.by}` |" for unit in costs.values()]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.sizing", description=__doc__)
    parser.add_argument("--units", action="store_true", help="show the unit costs instead")
    parser.add_argument("--core", action="store_true", help="show what one core does instead")
    parser.add_argument("--costs", type=Path, default=UNIT_COSTS, help="another file of unit costs")
    documented = Path(__file__).read_text().partition("class Load")[2].splitlines()
    for field in fields(Load):
        said = next(documented[at + 1] for at, line in enumerate(documented) if line.startswith(f"    {field.name}:"))
        parser.add_argument(
            "--" + field.name.replace("_", "-"),
            type=float,
            nargs="+" if field.name == "streams" else None,
            default=field.default,
            metavar="N",
            help=f"{said.strip().strip(chr(34))} ({field.default:g})",
        )
    asked = vars(parser.parse_args())
    costs = units(asked["costs"])
    if asked["units"]:
        print(units_table(costs))
        return
    streams = asked.pop("streams")
    load = Load(**{field.name: asked[field.name] for field in fields(Load) if field.name in asked})
    if asked["core"]:
        print(of_one_core(load, costs))
    else:
        print(table(load, streams if isinstance(streams, list) else [streams], costs))


if __name__ == "__main__":
    main()
