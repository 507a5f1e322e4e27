"""Refusals that pass: of a put beside a delete MinIO denies access for a moment, and versitygw says that a directory is
in the way. So we ask again, but not long. versitygw says the same when its disk is full, so we look what is there."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from moorage.storage_backends.base import ABSENT, ANY, Expect
from moorage.storage_backends.errors import KeyInvalid, StorageError, StorageUnavailable
from moorage.storage_backends.s3 import Location, S3Store

_MISSING = (404, b"<Error><Code>NoSuchKey</Code><Message>m</Message></Error>")
_DENIED = (403, b"<Error><Code>AccessDenied</Code><Message>m</Message></Error>")
_NESTED = (409, b"<Error><Code>ExistingObjectIsDirectory</Code><Message>m</Message></Error>")
_INSIDE = (409, b"<Error><Code>ObjectParentIsFile</Code><Message>m</Message></Error>")
_BELOW = (
    b"<Contents><Key>key/below</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
    b"<ETag>&quot;e&quot;</ETag><Size>1</Size></Contents>"
)


class _Refusing(ThreadingHTTPServer):
    """Refuses ``refusals`` puts with ``refusal``, then takes them. ``asked``: puts so far; ``listed``: its objects."""

    refusal = _DENIED
    listed = b""
    refusals = 0
    asked = 0


class _Handler(BaseHTTPRequestHandler):
    server: _Refusing

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked += 1
        status, body = self.server.refusal if self.server.asked <= self.server.refusals else (200, b"")
        self._answer(status, body)

    def do_GET(self) -> None:
        assert "prefix=key%2F&" in f"{self.path}&"
        self._answer(200, b"<ListBucketResult>%b</ListBucketResult>" % self.server.listed)

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
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
def refusing(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Refusing]:
    """Such a server."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with _Refusing(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


async def _put(server: _Refusing, expect: Expect = ANY) -> str:
    endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    store = S3Store(Location.parse(f"s3://bucket?endpoint={endpoint}&addressing=path"))
    try:
        return await store.put("key", b"value", expect=expect)
    finally:
        await store.close()


@pytest.mark.parametrize("expect", [pytest.param(ANY, id="any"), pytest.param(ABSENT, id="absent")])
@pytest.mark.parametrize(
    "refusal",
    [pytest.param(_DENIED, id="denied"), pytest.param(_NESTED, id="nested"), pytest.param(_MISSING, id="missing")],
)
async def test_a_refusal_of_a_moment_is_not_seen(
    refusing: _Refusing, refusal: tuple[int, bytes], expect: Expect
) -> None:
    """The put is made again."""
    refusing.refusal, refusing.refusals = refusal, 2
    assert await _put(refusing, expect) == '"etag"'
    assert refusing.asked == 3


@pytest.mark.parametrize(
    ("refusal", "listed", "error", "words"),
    [
        pytest.param(_DENIED, b"", StorageUnavailable, "S3 forbids put_object: AccessDenied", id="denied"),
        pytest.param(_MISSING, b"", StorageUnavailable, "S3 refused put_object: 404 NoSuchKey", id="missing"),
        pytest.param(_NESTED, _BELOW, KeyInvalid, "key would hold another key, or lie in one", id="above another"),
        pytest.param(_INSIDE, b"", KeyInvalid, "key would hold another key, or lie in one", id="inside another"),
        pytest.param(_NESTED, b"", StorageUnavailable, "is the disk of the server full", id="no place"),
    ],
)
async def test_a_refusal_that_stays_is_told(
    refusing: _Refusing, refusal: tuple[int, bytes], listed: bytes, error: type[StorageError], words: str
) -> None:
    """After four of them, as what it is."""
    refusing.refusal, refusing.refusals, refusing.listed = refusal, 1000, listed
    with pytest.raises(error, match=words):
        await _put(refusing)
    assert refusing.asked == 4
