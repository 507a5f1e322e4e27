"""HTTPS by --tls-cert and --tls-key: whom it talks to, and whom not."""

from __future__ import annotations

import hashlib
import socket
import ssl
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest
import trustme
from moorage.registry.web.serve import tls_context

from tests.servers import MoorageProcess

AUTHORITY = trustme.CA()
CERTIFICATE = AUTHORITY.issue_cert("127.0.0.1", "localhost")


@contextmanager
def _serving(directory: Path) -> Iterator[MoorageProcess]:
    chain, key = directory / "chain.pem", directory / "key.pem"
    for pem in CERTIFICATE.cert_chain_pems:
        pem.write_to_path(chain, append=True)
    CERTIFICATE.private_key_pem.write_to_path(key)
    key.chmod(0o600)
    assert tls_context(str(chain), str(key)).minimum_version is ssl.TLSVersion.TLSv1_2
    arguments = ("--tls-cert", str(chain), "--tls-key", str(key), "--drain-delay", "0")
    with MoorageProcess(directory / "root", *arguments, workers=2) as server:
        yield server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MoorageProcess]:
    """One for the tests that leave it running."""
    with _serving(tmp_path_factory.mktemp("tls")) as server:
        yield server


def _context(version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    if version is not None:
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # that old versions are old
            context.minimum_version = context.maximum_version = version
        context.set_ciphers("ALL:@SECLEVEL=0")
    return context


def test_https_is_served(server: MoorageProcess) -> None:
    """The address that is printed says https, and a client that knows the authority is content."""
    assert server.url.startswith("https://")
    with httpx.Client(verify=_context(), timeout=60) as client:
        answer = client.get(f"{server.url}/v2/")
        assert answer.status_code == 200
        content = b"x" * 3_000_000
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        assert client.post(f"{server.url}/v2/a/blobs/uploads/?digest={digest}", content=content).status_code == 201
        assert client.get(f"{server.url}/v2/a/blobs/{digest}").content == content


@pytest.mark.parametrize(
    "version", [pytest.param(ssl.TLSVersion.TLSv1_2, id="1.2"), pytest.param(ssl.TLSVersion.TLSv1_3, id="1.3")]
)
def test_current_versions_are_spoken(server: MoorageProcess, version: ssl.TLSVersion) -> None:
    """TLS 1.2 and 1.3."""
    with httpx.Client(verify=_context(version), timeout=60) as client:
        assert client.get(f"{server.url}/healthz").status_code == 200


@pytest.mark.parametrize("version", [pytest.param("TLSv1", id="1.0"), pytest.param("TLSv1_1", id="1.1")])
def test_old_versions_are_not(server: MoorageProcess, version: str) -> None:
    """TLS before 1.2 is refused in the handshake."""
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        old = ssl.TLSVersion[version]
    host, port = server.url.removeprefix("https://").split(":")
    with (
        socket.create_connection((host, int(port)), 60) as sock,
        pytest.raises(ssl.SSLError, match=r"EOF|version"),
    ):
        _context(old).wrap_socket(sock, server_hostname=host).close()


def test_plain_http_on_the_tls_port_is_refused(server: MoorageProcess) -> None:
    """A client that forgot the s gets no answer that it could take for one."""
    host, port = server.url.removeprefix("https://").split(":")
    with socket.create_connection((host, int(port)), 60) as sock, suppress(ConnectionResetError):
        sock.sendall(b"GET /v2/ HTTP/1.1\r\nHost: a\r\n\r\n")
        assert b"200" not in sock.recv(1000)


def test_the_server_drains_with_tls_too(tmp_path: Path) -> None:
    """Kept TLS connections do not hold up the end."""
    with _serving(tmp_path) as server, httpx.Client(verify=_context(), timeout=60) as client:
        client.get(f"{server.url}/v2/")
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 25  # a connection that held it up would do so for 30 s
