"""HTTPS, as clients of other makes see it: they verify our certificate, and push and pull over it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from tests.interop.programs import Program, find
from tests.servers import MoorageProcess


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Who has signed the server's certificate."""
    return trustme.CA()


@pytest.fixture(scope="module")
def server(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MoorageProcess]:
    """A registry with a certificate for 127.0.0.1."""
    directory = tmp_path_factory.mktemp("https")
    certificate, chain, key = authority.issue_cert("127.0.0.1"), directory / "chain.pem", directory / "key.pem"
    for pem in certificate.cert_chain_pems:
        pem.write_to_path(chain, append=True)
    certificate.private_key_pem.write_to_path(key)
    key.chmod(0o600)
    arguments = ("--tls-cert", str(chain), "--tls-key", str(key))
    with MoorageProcess(directory / "root", *arguments, workers=2) as server:
        yield server


def test_curl(server: MoorageProcess, authority: trustme.CA, tmp_path: Path) -> None:
    """curl is content with the authority, and refuses without it."""
    curl = Program((find("curl"), "-sS"), tmp_path)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    assert curl("--cacert", tmp_path / "ca.pem", f"{server.url}/v2/") == "{}"
    assert curl.attempt(f"{server.url}/v2/").returncode == 60  # the peer's certificate cannot be verified


def test_skopeo(server: MoorageProcess, authority: trustme.CA, layout: Path, tmp_path: Path) -> None:
    """skopeo copies an image there and back, verifying."""
    skopeo, certificates = Program((find("skopeo"),), tmp_path / "home"), tmp_path / "certificates"
    certificates.mkdir()
    authority.cert_pem.write_to_path(certificates / "ca.crt")
    place = server.url.replace("https://", "docker://") + "/secure/app:latest"
    skopeo("copy", "--dest-cert-dir", certificates, f"oci:{layout}:app", place)
    there = json.loads(skopeo("inspect", "--raw", "--cert-dir", certificates, place))
    here = json.loads(skopeo("inspect", "--raw", f"oci:{layout}:app"))
    assert there == here
