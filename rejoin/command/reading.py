"""`rejoin ask` and `rejoin tail`: one stream, shown as it comes."""

import sys

from rejoin.asked import Asked
from rejoin.client import Client, Stream
from rejoin.command.manners import FAILED, INTERRUPTED, NOBODY_READS, client_of, end, say
from rejoin.command.showing import Lines, Screen, figures, harmless
from rejoin.errors import ClientError, Misuse
from rejoin.events import Completed


def ask(
    prompt: str,
    model: str | None,
    system: str | None,
    max_tokens: int | None,
    as_json: bool,
    quiet: bool,
    url: str | None,
    key: str | None,
) -> None:
    """Make a job and show it. Who stops reading, by Ctrl-C or by closing the pipe, stops the job."""
    with client_of(url, key) as client:
        asked: Asked = {}
        if system is not None:
            asked["system"] = system
        if max_tokens is not None:
            asked["max_tokens"] = max_tokens
        stream = client.stream(_question(prompt), model=model or _first(client), **asked)
        show = Lines() if as_json else Screen(quiet=quiet)
        try:
            _show(stream, show)
        except (KeyboardInterrupt, BrokenPipeError) as why:
            _stop(stream, show, INTERRUPTED if isinstance(why, KeyboardInterrupt) else NOBODY_READS)
        _finish(stream, quiet=quiet)


def tail(job: str, since: str | None, as_json: bool, url: str | None, key: str | None) -> None:
    """Show a job from its start, or behind an event, to its end. Who stops reading leaves it alone."""
    with client_of(url, key) as client:
        stream = client.subscribe(job, since)
        show = Lines() if as_json else Screen()
        try:
            _show(stream, show)
        except KeyboardInterrupt:
            show.end_line()
            at = f" --from {stream.last_event_id}" if stream.last_event_id else ""
            say(f"{job} goes on: rejoin tail {job}{at}, or rejoin cancel {job}")
            end(INTERRUPTED)
        _finish(stream)


def _question(prompt: str) -> str:
    if prompt == "-":
        prompt = sys.stdin.buffer.read().decode("utf-8", "replace")
    if not prompt.strip():
        raise Misuse("nothing was asked")
    return prompt


def _first(client: Client) -> str:
    if not (offered := client.models()):
        raise Misuse("the server offers no model by itself: --model PROVIDER/MODEL")
    return offered[0]


def _show(stream: Stream, show: Lines | Screen) -> None:
    for event in stream:
        show.show(event, stream.answer)


def _stop(stream: Stream, show: Lines | Screen, code: int) -> None:
    """Cancel the job, and say so; a second Ctrl-C does not wait for it."""
    try:
        if code == INTERRUPTED:
            show.end_line()
        job = stream.cancel()
        if job is None:
            say("nothing was asked yet")
        elif job.outcome == "cancelling":
            say(f"cancelling {job.id}: its worker has not confirmed yet")
        elif job.outcome == "already_finished":
            say(f"{job.id} had finished already")
        else:
            say(f"cancelled {job.id}")
    except (KeyboardInterrupt, ClientError) as why:
        said = "" if isinstance(why, KeyboardInterrupt) else f" ({why})"
        say(f"not confirmed{said}: rejoin cancel {stream.job_id or '…'}")
    end(code)


def _finish(stream: Stream, *, quiet: bool = False) -> None:
    """Say what became of it; only an answer is success."""
    last = stream.answer.end
    if not quiet or not isinstance(last, Completed):
        say(harmless(figures(stream.job_id, last)))
    if last is not None and not isinstance(last, Completed):
        end(FAILED)
