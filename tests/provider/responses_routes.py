"""`GET /v1/responses/{id}` and `POST /v1/responses/{id}/cancel`: what can be asked of a response that exists."""

from collections.abc import Mapping
from urllib.parse import parse_qs

from tests.provider.breaks import HttpError
from tests.provider.dialect import Dialect, compact, error_answer
from tests.provider.http1 import Connection, Request
from tests.provider.runs import LIVE, Read, Run


async def answer(request: Request, connection: Connection, runs: Mapping[str, Run], dialect: Dialect) -> None:
    """Answer a request below `/v1/responses/`."""
    path, _, query = request.target.partition("?")
    id, _, verb = path.removeprefix("/v1/responses/").partition("/")
    run = runs.get(id)
    if (request.method, verb) not in (("GET", ""), ("POST", "cancel")):
        error = HttpError(404, message=f"Unknown request URL: {request.method} {path}", code="unknown_url")
    elif run is None or not run.stored or (not run.background and run.status in LIVE):
        error = HttpError(404, "invalid_request_error", f"Response with id '{id}' not found.")
    elif verb == "cancel":
        connection.reply(*_cancel(run, dialect))
        return
    else:
        asked = {name: values[-1] for name, values in parse_qs(query).items()}
        stream = asked.get("stream") == "true"
        refused = _refused(run, asked) if stream else None
        if refused is None:
            after = int(asked["starting_after"]) if "starting_after" in asked else None
            await run.serve(Read("GET", request.headers, stream, after), connection)
            return
        error = refused
    connection.reply(*error_answer(dialect, 0 if run is None else run.call.number, error))


def _refused(run: Run, asked: Mapping[str, str]) -> HttpError | None:
    """Return why the events of this run cannot be had."""
    after = asked.get("starting_after", "0")
    if not after.isdecimal():
        message = f"Invalid type for 'starting_after': expected an integer, but got '{after}' instead."
        return HttpError(400, message=message, param="starting_after", code="invalid_type")
    for name, given in (("background", run.background), ("stream", run.call.stream)):
        if not given:
            message = f"This response cannot be streamed because it was not created with {name}=true."
            return HttpError(400, message=message, param="stream", code="invalid_request_error")
    return None


def _cancel(run: Run, dialect: Dialect) -> tuple[int, dict[str, str], bytes]:
    run.cancels += 1
    if run.background and run.status in LIVE:
        run.cancel()
    if run.status == "cancelled":
        headers = {"content-type": "application/json", **dialect.headers(run.call.number)}
        return 200, headers, compact(run.response()).encode()
    kind = run.status if run.background else "synchronous"
    error = HttpError(400, "invalid_request_error", f"Cannot cancel a {kind} response.")
    return error_answer(dialect, run.call.number, error)
