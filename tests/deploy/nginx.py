"""A real nginx with the files of `deploy/nginx`, in front of API processes, on ports of its own."""

import asyncio
import contextlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.valkey import free_port

FILES: Final = Path(__file__).parents[2] / "deploy" / "nginx"
START_S: Final = 10.0


def find_nginx() -> str | None:
    """Return nginx, which Debian keeps where not everybody looks."""
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")


def rendered(values: dict[str, str]) -> str:
    """Return the template as envsubst leaves it, which knows these names and no others."""
    text = (FILES / "rejoin.conf.template").read_text()
    assert set(re.findall(r"\$\{(\w+)\}", text)) == set(values)
    for name, value in values.items():
        text = text.replace("${" + name + "}", value)
    return text


class Nginx:
    """Started with the template's own words; a test may only shorten its times (`shorter`)."""

    def __init__(
        self, folder: Path, upstreams: Sequence[str], *, tls: bool = False, shorter: dict[str, str] | None = None
    ) -> None:
        """`upstreams`: the API processes' URLs."""
        self.folder = folder
        self.port = free_port()
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self._upstreams = upstreams
        self._shorter = shorter or {}
        self._tls = tls
        self._process: asyncio.subprocess.Process | None = None

    def _write(self) -> None:
        hosts = [url.removeprefix("http://") for url in self._upstreams]
        servers = " ".join(f"server {host} fail_timeout=1s; server {host} backup max_fails=0;" for host in hosts)
        listen = f"listen {self.port};"
        if self._tls:
            certificate, key = self._certificate()
            listen = f"listen {self.port} ssl http2; ssl_certificate {certificate}; ssl_certificate_key {key};"
        text = rendered({"NGINX_UPSTREAM": servers, "NGINX_LISTEN": listen, "NGINX_ACCESS_LOG": "/dev/stdout"})
        for told, short in self._shorter.items():
            assert told in text, told
            text = text.replace(told, short)
        # Around it stands an nginx that compresses and buffers all that it may.
        hostile = "gzip on; gzip_types *; gzip_min_length 1; gzip_proxied any; proxy_buffering on;\n"
        (self.folder / "conf.d").mkdir()
        (self.folder / "conf.d" / "0.conf").write_text(hostile)
        (self.folder / "conf.d" / "rejoin.conf").write_text(text)
        frame = (FILES / "nginx.conf").read_text().replace("/tmp/", f"{self.folder}/")
        (self.folder / "nginx.conf").write_text(frame)

    def _certificate(self) -> tuple[Path, Path]:
        certificate, key = self.folder / "cert.pem", self.folder / "key.pem"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
             "-days", "2", "-subj", "/CN=localhost", "-keyout", key, "-out", certificate],
            check=True, capture_output=True,
        )  # fmt: skip
        return certificate, key

    async def start(self) -> None:
        self._write()
        nginx = find_nginx()
        assert nginx is not None
        # Its processes under another user (when root starts it) have to come by.
        self.folder.chmod(0o755)
        with (self.folder / "out.log").open("ab") as out:
            self._process = await asyncio.create_subprocess_exec(
                nginx, "-p", str(self.folder), "-c", str(self.folder / "nginx.conf"), "-g", "daemon off;",
                stdout=out, stderr=out, start_new_session=True,
            )  # fmt: skip
        async with asyncio.timeout(START_S):
            while True:
                assert self._process.returncode is None, self.output()
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                    writer.close()
                    return
                await asyncio.sleep(0.01)

    @property
    def pid(self) -> int:
        """Of the process that the others are children of."""
        assert self._process is not None
        return self._process.pid

    def output(self) -> str:
        """Return its logs, of requests and of errors."""
        return (self.folder / "out.log").read_text()

    async def stop(self) -> None:
        if self._process is not None and self._process.returncode is None:
            os.kill(self._process.pid, signal.SIGTERM)
            await self._process.wait()


def find_curl() -> str | None:
    """Return a curl that speaks HTTP/2."""
    curl = shutil.which("curl")
    if curl is None or "HTTP2" not in subprocess.run([curl, "-V"], capture_output=True, text=True, check=True).stdout:
        return None
    return curl
