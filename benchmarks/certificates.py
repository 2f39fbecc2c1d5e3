"""A throw-away authority and a server certificate for 127.0.0.1, so that TLS to the upstream is really verified."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Certificates:
    authority: Path
    certificate: Path
    key: Path


def missing() -> str | None:
    return None if shutil.which("openssl") else "openssl is not installed: apt-get install openssl"


def make(folder: Path) -> Certificates:
    """ECDSA P-256, one day; written into `folder`, which is temporary."""
    authority, authority_key = folder / "authority.pem", folder / "authority.key"
    certificate, key = folder / "upstream.pem", folder / "upstream.key"
    request, extensions = folder / "upstream.csr", folder / "upstream.ext"
    extensions.write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\nbasicConstraints=CA:FALSE\n")
    new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    _openssl(
        ["req", "-x509", *new_key, "-days", "1", "-subj", "/CN=benchmark authority"],
        ["-addext", "keyUsage=critical,keyCertSign,cRLSign", "-keyout", str(authority_key), "-out", str(authority)],
    )
    _openssl(["req", *new_key, "-subj", "/CN=localhost", "-keyout", str(key), "-out", str(request)])
    _openssl(
        ["x509", "-req", "-in", str(request), "-CA", str(authority), "-CAkey", str(authority_key)],
        ["-CAcreateserial", "-days", "1", "-extfile", str(extensions), "-out", str(certificate)],
    )
    return Certificates(authority, certificate, key)


def _openssl(*parts: list[str]) -> None:
    argv = ["openssl", *(word for part in parts for word in part)]
    subprocess.run(argv, check=True, capture_output=True, timeout=30)
