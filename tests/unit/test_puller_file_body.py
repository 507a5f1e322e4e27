"""The bytes of a file reach the other end as they are, by the kernel or encrypted."""

from __future__ import annotations

import random
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from moorage.puller.errors import ImageError
from moorage.puller.file_body import FileBody, FileSpan
from moorage.registry.oci import SizeInvalid

_CONTENT = random.Random(7).randbytes(5_000_000)


@pytest.fixture
def path(tmp_path: Path) -> str:
    (tmp_path / "file").write_bytes(_CONTENT)
    return str(tmp_path / "file")


@pytest.fixture(params=["plain", "tls"])
def ends(request: pytest.FixtureRequest) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of a connection; the first sends."""
    near, far = socket.socketpair()
    near.settimeout(60)
    if request.param == "tls":
        near, far = _encrypted(near, far)
    with near, far:
        yield near, far


def _encrypted(near: socket.socket, far: socket.socket) -> tuple[ssl.SSLSocket, ssl.SSLSocket]:
    authority = trustme.CA()
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("here.example").configure_cert(server)
    authority.configure_trust(client)
    accepted: list[ssl.SSLSocket] = []
    thread = threading.Thread(target=lambda: accepted.append(server.wrap_socket(far, server_side=True)))
    thread.start()
    wrapped = client.wrap_socket(near, server_hostname="here.example")
    thread.join()
    return wrapped, accepted[0]


def _read(end: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size and (piece := end.recv(2**16)):
        data += piece
    return bytes(data)


@pytest.mark.parametrize(("start", "stop"), [(0, len(_CONTENT)), (1_000_001, 4_000_003), (5, 5)])
def test_a_span_arrives(ends: tuple[socket.socket, socket.socket], path: str, start: int, stop: int) -> None:
    """Exactly it, counted, as often as it is sent."""
    near, far = ends
    counted: list[int] = []
    body = FileBody(FileSpan(path, 0, len(_CONTENT)).cut(start, stop), counted.append)
    for _ in range(2):
        sender = threading.Thread(target=body.send_to, args=(near,))
        sender.start()
        assert _read(far, stop - start) == _CONTENT[start:stop]
        sender.join()
    assert (sum(counted), body.size) == (2 * (stop - start), stop - start)


def test_a_file_that_is_too_short(ends: tuple[socket.socket, socket.socket], path: str) -> None:
    """Is said; what is sent then is not taken for the whole."""
    near, far = ends
    reader = threading.Thread(target=_read, args=(far, len(_CONTENT)))
    reader.start()
    with pytest.raises(SizeInvalid, match="100 are missing"):
        FileBody(FileSpan(path, 0, len(_CONTENT) + 100), lambda _: None).send_to(near)
    reader.join()
    with pytest.raises(ImageError, match="No such file"):
        FileBody(FileSpan(path + "x", 0, 1), lambda _: None).send_to(near)


def test_an_early_answer_ends_it(path: str) -> None:
    """A refusal before the last byte is read, not run over."""
    near, far = socket.socketpair()
    near.settimeout(60)
    counted: list[int] = []
    with near, far:
        far.sendall(b"HTTP/1.1 413 Too Large\r\n\r\n")
        FileBody(FileSpan(path, 0, len(_CONTENT)), counted.append).send_to(near)
        assert sum(counted) < len(_CONTENT)
        assert near.recv(12) == b"HTTP/1.1 413"


def test_a_connection_that_takes_nothing_has_stalled(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """After its patience."""
    monkeypatch.setattr("moorage.puller.file_body._STALL", 0.05)
    near, far = socket.socketpair()
    near.settimeout(60)
    with near, far, pytest.raises(TimeoutError, match="no more bytes"):
        FileBody(FileSpan(path, 0, len(_CONTENT)), lambda _: None).send_to(near)


def test_a_broken_connection_is_an_error(ends: tuple[socket.socket, socket.socket], path: str) -> None:
    """Of the kind that a sender knows; on a plain one the broken end may look like an early answer."""
    near, far = ends
    far.close()
    with pytest.raises(OSError, match=r"."):
        _send_and_ask(FileBody(FileSpan(path, 0, len(_CONTENT)), lambda _: None), near)


def _send_and_ask(body: FileBody, end: socket.socket) -> None:
    body.send_to(end)
    end.sendall(b"x")
    end.sendall(b"x")
