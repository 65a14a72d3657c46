"""Certificates for one run of tests, made by openssl: nothing of them is kept."""

import shutil
import subprocess
from pathlib import Path

import pytest

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


class Authority:
    """A CA that nobody else knows."""

    def __init__(self, folder: Path) -> None:
        if shutil.which("openssl") is None:
            pytest.skip("certificates are made by the openssl command, and there is none")
        folder.mkdir()
        self._folder = folder
        self.certificate = folder / "ca.pem"
        self._key = folder / "ca.key"
        subject = ("-subj", f"/CN={folder.name}", "-days", "2")
        _openssl("req", "-x509", *_KEY, *subject, "-keyout", str(self._key), "-out", str(self.certificate))

    def issue(self, *names: str) -> tuple[Path, Path]:
        """Return a certificate for names as openssl writes them (`DNS:…`, `IP:…`), and its key."""
        stem = self._folder / names[0].replace(":", "-")
        certificate, key, request, extras = (stem.with_suffix(end) for end in (".pem", ".key", ".csr", ".ext"))
        extras.write_text(f"subjectAltName={','.join(names)}\n")
        _openssl("req", "-new", *_KEY, "-subj", "/CN=test", "-keyout", str(key), "-out", str(request))
        authority = ("-CA", str(self.certificate), "-CAkey", str(self._key), "-CAcreateserial", "-days", "2")
        _openssl(
            *("x509", "-req", "-in", str(request), *authority, "-extfile", str(extras), "-out", str(certificate)),
        )
        return certificate, key


def _openssl(*args: str) -> None:
    subprocess.run(["openssl", *args], check=True, capture_output=True, timeout=20)
