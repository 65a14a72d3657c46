"""The commands and their options. What they do is imported when one of them is run: `--help` is there at once."""

import sys
from typing import Annotated

import typer

app = typer.Typer(
    name="rejoin",
    help="LLM generation that outlives the connection.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Url = Annotated[
    str | None, typer.Option(metavar="URL", envvar="REJOIN_URL", help="The server; http://127.0.0.1:8000 if not given.")
]
Key = Annotated[
    str | None,
    typer.Option(
        metavar="KEY", envvar="REJOIN_API_KEY", show_envvar=True, help="Better set: arguments are seen by others."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="JSON, one object a line.")]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="The id of a job, job_…")]

_PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True}


@app.command()
def ask(
    prompt: Annotated[str, typer.Argument(help="What to ask; - reads it from the standard input.")],
    model: Annotated[
        str | None,
        typer.Option(
            metavar="PROVIDER/MODEL", envvar="REJOIN_MODEL", help="Whom to ask; the server's first if not given."
        ),
    ] = None,
    system: Annotated[str | None, typer.Option(metavar="TEXT", help="Instructions that stand before it.")] = None,
    max_tokens: Annotated[int | None, typer.Option(metavar="N", help="How long the answer may be.")] = None,
    as_json: Json = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Nothing but the answer, once it is whole: for scripts.")
    ] = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Ask, and show the answer as it comes. Ctrl-C cancels."""
    from rejoin.command.reading import ask as run

    run(prompt, model, system, max_tokens, as_json, quiet, url, key)


@app.command()
def tail(
    job: JobId,
    since: Annotated[
        str | None, typer.Option("--from", metavar="ID", help="Begin behind this event; with the first if not given.")
    ] = None,
    as_json: Json = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Show a job's answer, and what is still to come of it. Ctrl-C leaves it running."""
    from rejoin.command.reading import tail as run

    run(job, since, as_json, url, key)


@app.command()
def jobs(
    status: Annotated[
        str | None, typer.Option(metavar="STATUS", help="queued, running, completed, failed or cancelled.")
    ] = None,
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="How many, newest first.")] = 20,
    as_json: Json = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """List jobs, newest first."""
    from rejoin.command.listing import jobs as run

    run(status, limit, as_json, url, key)


@app.command()
def cancel(job: JobId, url: Url = None, key: Key = None) -> None:
    """Stop a job and the provider's call."""
    from rejoin.command.listing import cancel as run

    run(job, url, key)


@app.command()
def models(url: Url = None, key: Key = None) -> None:
    """List what may be asked."""
    from rejoin.command.listing import models as run

    run(url, key)


@app.command(context_settings=_PASSED_ON, add_help_option=False)
def run(context: typer.Context) -> None:
    """Run Valkey, a worker and the API on this machine (make run)."""
    from rejoin.command.server import run as start

    sys.exit(start(context.args))


@app.command(context_settings=_PASSED_ON, add_help_option=False)
def keys(context: typer.Context) -> None:
    """Make, list and revoke API keys (create, list, revoke)."""
    from rejoin.command.server import keys as start

    sys.exit(start(context.args))


@app.command(context_settings=_PASSED_ON, add_help_option=False)
def doctor(context: typer.Context) -> None:
    """Check settings, Redis, providers and workers."""
    from rejoin.command.server import doctor as start

    sys.exit(start(context.args))


def main() -> None:
    try:
        app(prog_name="rejoin")
    except KeyboardInterrupt:
        sys.exit(130)
