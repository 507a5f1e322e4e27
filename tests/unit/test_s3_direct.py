"""The frequent calls to S3 go without boto3's detour, but for what is not plainly understood."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from moorage.storage_backends.s3.calls import Calls, Refused
from moorage.storage_backends.s3.location import Location


class _Elsewhere(BaseHTTPRequestHandler):
    """A server that sends whoever is not boto3 to another region, and knows one object."""

    def do_HEAD(self) -> None:
        is_boto = "boto3" in self.headers.get("User-Agent", "").lower()
        self.send_response(301 if not is_boto else 200 if self.path.endswith("/here") else 404)
        self.send_header("Content-Length", "7" if is_boto else "0")
        self.send_header("ETag", '"etag"')
        self.send_header("Last-Modified", "Sat, 21 Nov 2026 18:00:00 GMT")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def endpoint() -> Iterator[str]:
    """The URL of such a server."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Elsewhere) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


async def test_a_redirect_is_left_to_boto3(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It knows the ways between regions: the call is made again through it, and its answer holds, a refusal too."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    calls = Calls(Location.parse(f"s3://bucket?endpoint={endpoint}&addressing=path"))
    try:
        answer = await calls.once("head_object", Key="here")
        assert (answer["ETag"], answer["ContentLength"]) == ('"etag"', 7)
        with pytest.raises(Refused) as refused:
            await calls.once("head_object", Key="gone")
        assert refused.value.status == 404
    finally:
        calls.close()
