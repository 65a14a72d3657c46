"""The image: the Dockerfile says what it should, and what it copies and installs is enough for API and worker."""

import asyncio
import re
import shlex
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from deploy import healthy
from tests.client import Client
from tests.deploy.image import ROOT, Image, is_sent_to_builder, stages
from tests.stack import Stack
from tests.valkey import free_port

READY_S = 20


def test_the_last_stage_has_no_tools_and_runs_as_nobody_by_number() -> None:
    build, final = stages()
    assert build.name == "build"
    assert not [step for step in final.all("RUN") if "install " in step.replace("uninstall", "")]
    assert "pip uninstall" in final.all("RUN")[0]
    assert final.last("USER") == "10001:10001"
    assert [word for word, _ in final.steps].index("USER") > max(
        index for index, (word, _) in enumerate(final.steps) if word in ("RUN", "COPY")
    ), "what it runs is not its own to change"
    assert final.last("STOPSIGNAL") == "SIGTERM"
    for instruction in ("CMD", "HEALTHCHECK"):
        assert final.words(instruction)[0] in ("uvicorn", "python"), "no shell between it and signals"


def test_packages_are_those_of_the_lock_by_their_hashes_and_no_test_tools() -> None:
    script = (ROOT / "deploy" / "build.sh").read_text()
    download, install = (line for line in script.replace("\\\n", "").splitlines() if re.search("pip (down|inst)", line))
    assert {"--require-hashes", "--only-binary", "requirements.txt"} <= set(shlex.split(download))
    assert "--no-index" in shlex.split(install)


def test_the_builder_is_sent_nothing_but_what_is_copied() -> None:
    copied = {source for stage in stages() for sources, _ in stage.copies() for source in sources}
    assert all(map(is_sent_to_builder, copied))
    for path in (".env", ".git", ".data", "tests", "deploy/kubernetes", "compose.yaml"):
        assert not is_sent_to_builder(path)
    listed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert listed == copied


RunsInImage = Callable[..., Awaitable[asyncio.subprocess.Process]]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    return Image(tmp_path_factory.mktemp("image"))


@pytest.fixture
async def run(image: Image, bare: Stack) -> AsyncIterator[RunsInImage]:
    """Runs words in the image, with the stack's settings."""
    async with AsyncExitStack() as exits:

        async def start(*words: str, **env: str) -> asyncio.subprocess.Process:
            python = [image.python, "-m"] if words[0] == "uvicorn" else [image.python]
            process = await asyncio.create_subprocess_exec(
                *python, *(words if words[0] == "uvicorn" else words[1:]),
                cwd=image.app, env=image.environment(**{**bare.environment(), **env}),
                stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            )  # fmt: skip
            exits.push_async_callback(stop, process)
            return process

        async def stop(process: asyncio.subprocess.Process) -> None:
            if process.returncode is None:
                process.kill()
            await process.wait()

        yield start


async def becomes(run: RunsInImage, healthcheck: list[str], code: int, **env: str) -> None:
    """Wait until the image's HEALTHCHECK ends with this code."""
    async with asyncio.timeout(READY_S):
        while await (await run(*healthcheck, **env)).wait() != code:
            pass  # each takes a while of its own


async def test_what_the_image_has_is_enough_for_api_and_worker(
    image: Image, run: RunsInImage, bare: Stack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """And its HEALTHCHECK is true for both: red before, green when they serve, red while Redis is away for them."""
    api_port, worker_port = free_port(), free_port()
    script = image.app / "deploy" / "healthy.py"
    text = script.read_text()
    assert f"API_PORT = {healthy.API_PORT}" in text
    check = tmp_path / "healthy.py"
    check.write_text(text.replace(f"API_PORT = {healthy.API_PORT}", f"API_PORT = {api_port}"))
    words = [str(check) if word == "deploy/healthy.py" else word for word in image.stage.words("HEALTHCHECK")]
    no_api = tmp_path / "no_api.py"
    no_api.write_text(text.replace(f"API_PORT = {healthy.API_PORT}", f"API_PORT = {free_port()}"))
    worker_words = [str(no_api) if word == str(check) else word for word in words]

    assert await (await run(*words)).wait() == 1, "nobody is there"
    command = [str(api_port) if word == str(healthy.API_PORT) else word for word in image.stage.words("CMD")]
    assert str(api_port) in command
    api = await run(*command)
    worker = await run("python", "-m", "worker", REJOIN_WORKER_PORT=str(worker_port))
    await becomes(run, words, 0)
    await becomes(run, worker_words, 0, REJOIN_WORKER_PORT=str(worker_port))

    client = Client(f"http://127.0.0.1:{api_port}")
    job_id = await client.submit(model="tour", provider="demo")
    assert (await client.until(job_id, "started")).event == "started"
    assert (await client.http.get("/")).status_code == 200, "the page is there"
    doctor = await run("python", "-m", "rejoin", "doctor")
    assert doctor.stdout is not None
    said = (await doctor.stdout.read()).decode()
    assert said
    assert "Traceback" not in said
    await client.aclose()

    for process in (worker, api):
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 10) in (0, -signal.SIGTERM)
    assert await (await run(*words)).wait() == 1


async def test_health_is_not_what_redis_lacks(image: Image, run: RunsInImage, tmp_path: Path) -> None:
    api_port = free_port()
    check = tmp_path / "healthy.py"
    text = (image.app / "deploy" / "healthy.py").read_text()
    check.write_text(text.replace(f"API_PORT = {healthy.API_PORT}", f"API_PORT = {api_port}"))
    command = [str(api_port) if word == str(healthy.API_PORT) else word for word in image.stage.words("CMD")]
    await run(*command, REDIS_URL=f"redis://127.0.0.1:{free_port()}/0")
    async with asyncio.timeout(READY_S):
        while True:
            asked = await run("python", "-IS", str(check))
            assert asked.stdout is not None
            said = await asked.stdout.read()
            if b" 503 " in said:
                break
            await asyncio.sleep(0.05)
    assert await asked.wait() == 1


def test_the_environment_of_the_image_is_known_to_the_product(image: Image) -> None:
    from shared.settings import ENV_NAMES

    ours = {name for name in image.stage.environment if name.startswith("REJOIN_")}
    assert ours <= set(ENV_NAMES.values())
    ports = image.stage.last("EXPOSE").split()
    assert ports == [str(healthy.API_PORT), image.stage.environment["REJOIN_WORKER_PORT"]]
