"""HTTPS by --tls-cert and --tls-key: whom it talks to, and whom not."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import ssl
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest
import trustme
from cryptography import x509
from moorage.registry.web.certificate import Certificate, CertificateError, tls_context

from tests.servers import MoorageProcess

AUTHORITY = trustme.CA()
CERTIFICATE = AUTHORITY.issue_cert("127.0.0.1", "localhost")


def _replace(path: Path, content: bytes) -> None:
    """Changes a file at once, so that nobody sees a part of it."""
    fresh = path.with_suffix(".new")
    fresh.touch(0o600)
    fresh.write_bytes(content)
    fresh.replace(path)


def _chain(certificate: trustme.LeafCert) -> bytes:
    return b"".join(pem.bytes() for pem in certificate.cert_chain_pems)


def _write(certificate: trustme.LeafCert, directory: Path) -> tuple[Path, Path]:
    """The files of a certificate and its key."""
    chain, key = directory / "chain.pem", directory / "key.pem"
    _replace(chain, _chain(certificate))
    _replace(key, certificate.private_key_pem.bytes())
    return chain, key


@contextmanager
def _serving(directory: Path) -> Iterator[MoorageProcess]:
    chain, key = _write(CERTIFICATE, directory)
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


# -- renewal


def _serial(url: str) -> int:
    """The serial number of the certificate that a new connection is shown."""
    host, port = url.removeprefix("https://").split(":")
    with (
        socket.create_connection((host, int(port)), 60) as plain,
        _context().wrap_socket(plain, server_hostname=host) as sock,
    ):
        shown = sock.getpeercert(binary_form=True)
    assert shown is not None
    return x509.load_der_x509_certificate(shown).serial_number


def _serial_of(certificate: trustme.LeafCert) -> int:
    return x509.load_pem_x509_certificate(certificate.cert_chain_pems[0].bytes()).serial_number


def test_a_renewed_certificate_is_shown_by_every_worker(tmp_path: Path) -> None:
    """Nobody restarts the server: what connects after the files changed sees what is in them. A pair that does not
    belong together changes nothing, and each worker says so once."""
    first, second = CERTIFICATE, AUTHORITY.issue_cert("127.0.0.1")
    with _serving(tmp_path) as server:
        _replace(tmp_path / "key.pem", second.private_key_pem.bytes())
        _until(lambda: server.errors.count("stays in use: cannot use the certificate") == 2)
        assert {_serial(server.url) for _ in range(8)} == {_serial_of(first)}
        _replace(tmp_path / "chain.pem", _chain(second))
        _until(lambda: server.errors.count("has changed, and is in use") == 2)
        assert {_serial(server.url) for _ in range(8)} == {_serial_of(second)}
        assert server.errors.count("stays in use") == 2


def test_a_worker_that_is_started_again_shows_the_renewed_one(tmp_path: Path) -> None:
    """The parent, which it is a copy of, never reads the files again."""
    with _serving(tmp_path) as server:
        second = AUTHORITY.issue_cert("127.0.0.1")
        _write(second, tmp_path)
        _until(lambda: server.errors.count("has changed, and is in use") == 2)
        for worker in Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split():
            os.kill(int(worker), signal.SIGKILL)
        _until(lambda: server.errors.count("has changed, and is in use") == 4)
        assert {_serial(server.url) for _ in range(8)} == {_serial_of(second)}


def test_files_that_are_away_for_a_moment_are_taken_when_they_are_back(tmp_path: Path) -> None:
    """What was good stays until then; a link on the way to the files that points elsewhere is a change too."""
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        _write(AUTHORITY.issue_cert("127.0.0.1"), tmp_path / name)
    live = tmp_path / "live"
    live.symlink_to("old")
    certificate = Certificate(str(live / "chain.pem"), str(live / "key.pem"))
    before = certificate.context
    assert not certificate.look()
    live.unlink()
    assert (certificate.look(), certificate.context) == (False, before)
    live.symlink_to("new")
    assert certificate.look()
    assert certificate.context is not before


def test_what_cannot_be_used_is_said_at_the_start(tmp_path: Path) -> None:
    """By the names of both files."""
    chain, key = _write(CERTIFICATE, tmp_path)
    key.write_bytes(AUTHORITY.issue_cert("elsewhere").private_key_pem.bytes())
    with pytest.raises(CertificateError, match=f"cannot use the certificate {chain} with the key {key}: "):
        Certificate(str(chain), str(key))


def _until(is_so: Callable[[], bool]) -> None:
    """Waits until something is so."""
    limit = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < limit
        time.sleep(0.02)
