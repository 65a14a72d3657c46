"""Log lines that say what they are about: JSON for machines, text for a terminal, one line each whatever happens.

One setup for API, worker and commands. Never in a line: prompts, answers, keys, tickets, nor the words of an exception,
which may quote any of these.
"""

import logging
import os
import sys
import traceback
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import lru_cache
from types import TracebackType
from typing import Any, Final, Literal

import orjson

from shared.clock import mono_s

Format = Literal["json", "text"]
Level = Literal["debug", "info", "warning", "error"]

FIELDS: Final = ("request_id", "job_id", "attempt", "trace_id", "code", "outcome", "duration_ms", "cursor")
"""What a line may say beside its message: from `note`, or from a call's `extra`."""

WORDY: Final = ("httpx2", "httpcore", "openai", "anthropic", "arq", "urllib3")
"""They log each request, some with its whole URL or its body."""

SELDOM_S: Final = 60.0

MOST_PLACES: Final = 12
"""Of a traceback: where it began, and the innermost."""

BREAKS: Final = {ord(char): ascii(char)[1:-1] for char in "\u2028\u2029"} | {0x85: "\\u0085"}
"""What JSON allows within a line, and some readers take for its end."""

_NO_FIELDS: Final[Mapping[str, str | int]] = {}
_about: ContextVar[Mapping[str, str | int]] = ContextVar("about", default=_NO_FIELDS)


def note(**fields: str | int) -> None:
    """Have every further line of this task, and of the tasks that it starts, say these fields."""
    _about.set({**_about.get(), **fields})


def configure(level: Level, form: Format | None) -> None:
    """Have all loggers of this process write to stderr in one form; None: text on a terminal, else JSON."""
    if form is None:
        form = "text" if sys.stderr.isatty() else "json"
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(Seldom())
    handler.setFormatter(Json() if form == "json" else Plain())
    # What no line of ours says, and each would be searched for.
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        # Where it is told to write no access log, uvicorn leaves that logger without a handler or a way on.
        logger = logging.getLogger(name)
        if name != "uvicorn.access" or logger.hasHandlers():
            logger.handlers, logger.propagate = [], True
            logger.setLevel(logging.NOTSET)
    for name in WORDY:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    logging.captureWarnings(True)
    sys.excepthook = _say_why


class Seldom(logging.Filter):
    """Lets what exports traces complain once a minute: a collector that is gone is one thing to know."""

    def __init__(self) -> None:
        super().__init__()
        self._since_s = -SELDOM_S

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.name.startswith("opentelemetry"):
            return True
        now_s = mono_s()
        if now_s - self._since_s < SELDOM_S:
            return False
        self._since_s = now_s
        return True


def _say_why(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Tell of what ends the process, in one line as well."""
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
    else:
        logging.getLogger("rejoin").critical("the process ends", exc_info=(kind, error, trace))


@lru_cache(maxsize=4)
def _second(since_1970_s: int) -> str:
    return f"{datetime.fromtimestamp(since_1970_s, UTC):%Y-%m-%dT%H:%M:%S}"


def _time(record: logging.LogRecord) -> str:
    second = int(record.created)
    return f"{_second(second)}.{int((record.created - second) * 1000):03}Z"


def _message(record: logging.LogRecord) -> str:
    message = record.getMessage()
    # asyncio's second line is the repr of a task, and with it the words of its exception.
    return message.partition("\n")[0] if record.name == "asyncio" else message.strip()


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    given, about = record.__dict__, _about.get()
    fields = {name: value for name in FIELDS if (value := given.get(name, about.get(name))) is not None}
    if record.name == "uvicorn.access" and isinstance(record.args, tuple) and len(record.args) == 5:
        _, fields["method"], fields["path"], _, fields["status"] = record.args
    return fields


def explain(error: BaseException) -> str:
    """Return an exception as types and places, its causes behind it; of words only the operating system's own."""
    told, seen = [], set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        told.append(_explain_one(cause))
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return " <- ".join(told)


def _explain_one(error: BaseException) -> str:
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    if isinstance(error, OSError) and error.errno is not None:
        name += f" [{error.errno}: {os.strerror(error.errno)}]"
    # Without reading the files: a line of source says nothing that its number does not.
    frames = list(traceback.StackSummary.extract(traceback.walk_tb(error.__traceback__), lookup_lines=False))
    if len(frames) > MOST_PLACES:
        frames = [frames[0], *frames[1 - MOST_PLACES :]]
    places = [f"{'/'.join(frame.filename.split(os.sep)[-2:])}:{frame.lineno} {frame.name}" for frame in frames]
    inner = [_explain_one(each) for each in error.exceptions] if isinstance(error, BaseExceptionGroup) else []
    return " ".join([name, *(["in", ", ".join(places)] if places else []), *(f"({each})" for each in inner)])


class Json(logging.Formatter):
    """One JSON object a line: `time`, `level`, `logger`, `message`, `pid`, and what is known beside."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message(record),
            **_fields(record),
            "pid": os.getpid(),
        }
        if record.exc_info and record.exc_info[1] is not None:
            line["exception"] = explain(record.exc_info[1])
        try:
            return orjson.dumps(line, default=str).decode().translate(BREAKS)
        except TypeError:
            # A lone surrogate, say.
            line["message"] = ascii(line["message"])
            return orjson.dumps({name: line[name] for name in ("time", "level", "logger", "message")}).decode()


class Plain(logging.Formatter):
    """One readable line: time, level, message, then the fields."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {} if record.name == "uvicorn.access" else _fields(record)
        about = "".join(f"  {name}={value}" for name, value in fields.items())
        if record.exc_info and record.exc_info[1] is not None:
            about += f"  {explain(record.exc_info[1])}"
        line = f"{_time(record)} {record.levelname:<7} {record.name}: {_message(record)}{about}"
        # (CWE-117: nobody writes a second line, or moves a terminal's cursor.)
        return line if line.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)
