"""Access that is denied: MinIO says so for a moment of a put beside a delete, so it is asked again, but not long."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from moorage.storage_backends.errors import StorageUnavailable
from moorage.storage_backends.s3 import Location, S3Store

_DENIED = b"<Error><Code>AccessDenied</Code><Message>m</Message></Error>"


class _Denying(ThreadingHTTPServer):
    """Denies ``denials`` puts, then takes them. ``asked``: puts so far."""

    denials = 0
    asked = 0


class _Handler(BaseHTTPRequestHandler):
    server: _Denying

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked += 1
        is_denied = self.server.asked <= self.server.denials
        body = _DENIED if is_denied else b""
        self.send_response(403 if is_denied else 200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"etag"')
        self.end_headers()
        self.wfile.write(body)

    def do_HEAD(self) -> None:
        self.send_response(404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def denying(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Denying]:
    """Such a server."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with _Denying(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


async def _put(server: _Denying) -> str:
    endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    store = S3Store(Location.parse(f"s3://bucket?endpoint={endpoint}&addressing=path"))
    try:
        return await store.put("key", b"value")
    finally:
        await store.close()


async def test_a_denial_of_a_moment_is_not_seen(denying: _Denying) -> None:
    """The put is made again."""
    denying.denials = 2
    assert await _put(denying) == '"etag"'
    assert denying.asked == 3


async def test_a_denial_that_stays_is_told(denying: _Denying) -> None:
    """After four of them, in the server's own word."""
    denying.denials = 1000
    with pytest.raises(StorageUnavailable, match="S3 forbids put_object: AccessDenied"):
        await _put(denying)
    assert denying.asked == 4
