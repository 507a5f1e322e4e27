"""The transport retries what is harmless, follows what is safe, and gives secrets to nobody else."""

from __future__ import annotations

import asyncio
import itertools
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from importlib.metadata import version
from pathlib import Path

import pytest
from moorage.puller.about import VERSION
from moorage.puller.errors import BadAnswer, Unreachable
from moorage.puller.origins import Origin, check_hop, is_loopback, redact
from moorage.puller.route import Proxy, Route
from moorage.puller.transport import Request, RetryPolicy, Timeouts, Transport

from tests.blobhost import Behaviour, BlobHost
from tests.scripted import Reply, Seen, scripted

_FAST = RetryPolicy(attempts=4, first_delay=0.001, longest_delay=0.5)


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    async with Transport(retry=_FAST) as transport:
        yield transport


async def _status(transport: Transport, request: Request) -> int:
    async with transport.exchange(request) as answer:
        await answer.read_body(1000)
        return answer.status


async def _stream() -> AsyncIterator[bytes]:
    yield b"once"


@pytest.mark.parametrize(
    ("first", "method", "body", "idempotent", "sent"),
    [
        pytest.param(503, "GET", None, True, 3, id="unavailable, read"),
        pytest.param(502, "HEAD", None, True, 3, id="bad gateway, head"),
        pytest.param(504, "GET", None, True, 3, id="gateway timeout, read"),
        pytest.param(429, "GET", None, True, 3, id="too many, read"),
        pytest.param(503, "PUT", b"manifest", True, 3, id="unavailable, whole body"),
        pytest.param(429, "POST", b"", False, 3, id="too many, never acted on"),
        pytest.param(503, "POST", b"", False, 1, id="unavailable, may have acted"),
        pytest.param(503, "PUT", "stream", True, 1, id="stream cannot be sent again"),
        pytest.param(500, "GET", None, True, 1, id="a defect stays one"),
        pytest.param(404, "GET", None, True, 1, id="an answer is an answer"),
    ],
)
async def test_only_what_is_harmless_is_repeated(
    transport: Transport, first: int, method: str, body: bytes | str | None, idempotent: bool, sent: int
) -> None:
    """By status, method and body."""
    replies = itertools.chain([first, first], itertools.repeat(200))
    async with scripted(lambda seen: Reply(next(replies))) as server:
        content = _stream() if body == "stream" else body
        request = Request(method, f"{server.url}/", {}, content, idempotent)  # type: ignore[arg-type]
        assert await _status(transport, request) == (200 if sent == 3 else first)
        assert len(server.seen) == sent


async def test_patience_ends(transport: Transport) -> None:
    """The last answer is the answer."""
    async with scripted(lambda seen: Reply(503)) as server:
        assert await _status(transport, Request("GET", server.url)) == 503
        assert len(server.seen) == _FAST.attempts


@pytest.mark.parametrize(
    ("retry_after", "sent"), [("0", 2), ("", 2), ("nonsense", 2), ("3600", 1), ("Fri, 31 Dec 2100 23:59:59 GMT", 1)]
)
async def test_a_wait_that_is_too_long_is_not_waited(transport: Transport, retry_after: str, sent: int) -> None:
    """The answer goes to the caller instead; a short one is honoured."""
    replies = iter([429, 200])
    async with scripted(lambda seen: Reply(next(replies), headers={"retry-after": retry_after})) as server:
        await _status(transport, Request("GET", server.url))
        assert len(server.seen) == sent


async def test_a_refused_connection_is_unreachable(transport: Transport) -> None:
    """After a few attempts, with the address and without secrets."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        url = f"http://user:pass@127.0.0.1:{held.getsockname()[1]}/v2/?token=secret"
        with pytest.raises(Unreachable) as caught:
            await _status(transport, Request("POST", url, {}, b"", False))
    assert "127.0.0.1" in caught.value.message
    assert "pass" not in caught.value.message
    assert "secret" not in caught.value.message


async def test_a_body_cut_short_is_no_body(transport: Transport) -> None:
    """Never a shorter result."""
    reply = Reply(200, b"half", {"content-length": "1000"}, cut=True)
    async with scripted(lambda seen: reply) as server, transport.exchange(Request("GET", server.url)) as answer:
        with pytest.raises(Unreachable):
            await answer.read_body(10_000)


async def test_a_body_has_a_cap(transport: Transport) -> None:
    """An answer that never ends is left (rule N5)."""
    reply = Reply(200, bytes(10_000), {"content-length": ""}, repeat=10_000)
    async with scripted(lambda seen: reply) as server, transport.exchange(Request("GET", server.url)) as answer:
        with pytest.raises(BadAnswer, match="longer than"):
            await answer.read_body(50_000)


@pytest.mark.parametrize("encoding", ["gzip", "br", "zstd", "deflate", "gzip, identity"])
async def test_encoded_bodies_are_refused(transport: Transport, encoding: str) -> None:
    """We ask for none, and a bomb comes as one (rule N6)."""
    async with scripted(lambda seen: Reply(200, b"x", {"content-encoding": encoding})) as server:
        with pytest.raises(BadAnswer, match="Content-Encoding"):
            await _status(transport, Request("GET", server.url))
        assert server.seen[0].headers["accept-encoding"] == "identity"


async def test_redirects_keep_what_they_must(transport: Transport) -> None:
    """Range and Accept survive; within an origin Authorization does too."""
    headers = {"Authorization": "Basic secret", "Range": "bytes=1-2", "Accept": "a/b"}
    async with scripted(lambda s: Reply(307, headers={"location": "/there"}) if s.target == "/" else Reply()) as server:
        await _status(transport, Request("GET", f"{server.url}/", headers))
        there = server.seen[1].headers
        assert (there["authorization"], there["range"], there["accept"]) == ("Basic secret", "bytes=1-2", "a/b")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_another_origin_gets_no_secret(transport: Transport, status: int) -> None:
    """Not even when it sends us back (rule N2): another port is another origin."""
    async with scripted(lambda seen: Reply()) as home:

        def away(seen: Seen) -> Reply:
            return Reply(status, headers={"location": f"{home.url}/back"})

        async with scripted(away) as other:
            start = Request("GET", f"{other.url}/", {"Authorization": "Basic secret"})
            assert await _status(transport, start) == 200
            assert "authorization" in other.seen[0].headers
            assert "authorization" not in home.seen[0].headers


@pytest.mark.parametrize(("hops", "is_fine"), [(5, True), (6, False)])
async def test_five_redirects_are_enough(transport: Transport, hops: int, is_fine: bool) -> None:
    """One more is a loop."""

    def count(seen: Seen) -> Reply:
        number = int(seen.target[1:])
        return Reply(307, headers={"location": f"/{number + 1}"}) if number < hops else Reply()

    async with scripted(count) as server:
        if is_fine:
            assert await _status(transport, Request("GET", f"{server.url}/0")) == 200
        else:
            with pytest.raises(BadAnswer, match="redirects"):
                await _status(transport, Request("GET", f"{server.url}/0"))


@pytest.mark.parametrize("method", ["POST", "PATCH", "PUT", "DELETE"])
async def test_writes_are_not_redirected(transport: Transport, method: str) -> None:
    """A body goes where it was meant to go."""
    async with scripted(lambda seen: Reply(307, headers={"location": "/there"})) as server:
        with pytest.raises(BadAnswer, match="redirect"):
            await _status(transport, Request(method, server.url, {}, b"body"))
        assert len(server.seen) == 1


@pytest.mark.parametrize("location", ["", "ftp://127.0.0.1/", "file:///etc/passwd", "http://", "http://[bad/"])
async def test_unusable_redirects_are_refused(transport: Transport, location: str) -> None:
    """Whatever is wrong with them."""
    async with scripted(lambda seen: Reply(307, headers={"location": location})) as server:
        with pytest.raises(BadAnswer):
            await _status(transport, Request("GET", server.url))


async def test_the_environment_lends_no_secrets(
    transport: Transport, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No netrc, no proxy, no cookie comes along."""
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login user password secret")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    async with scripted(lambda seen: Reply(headers={"set-cookie": "session=1; Path=/"})) as server:
        async with Transport(retry=_FAST) as fresh:
            for _ in range(2):
                assert await _status(fresh, Request("GET", server.url)) == 200
        assert not {"authorization", "cookie"} & set(server.seen[1].headers)


async def test_a_connection_is_used_again_with_new_patience() -> None:
    """What it once took to answer does not count for the next request."""
    async with scripted(lambda seen: Reply()) as server:
        async with Transport(retry=_FAST, timeouts=Timeouts(answer=3.0)) as transport:
            assert await _status(transport, Request("GET", server.url)) == 200
            await asyncio.sleep(3.2)
            assert await _status(transport, Request("GET", server.url)) == 200
        assert len(server.seen) == 2


async def test_a_connection_that_was_closed_while_idle_is_no_failure(transport: Transport) -> None:
    """The next one is taken, and nobody waits."""
    with BlobHost(b"x", lambda asked: Behaviour(headers={"Content-Length": None})) as host:
        for _ in range(3):
            assert await _status(transport, Request("GET", f"http://{host.host}/")) == 200


async def test_who_is_cancelled_closes_the_socket(transport: Transport) -> None:
    """In every phase, and the thread ends."""
    gone = threading.Event()

    def linger() -> None:
        gone.wait(10)

    with BlobHost(b"x", lambda asked: Behaviour(before=linger)) as host:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await _status(transport, Request("GET", f"http://{host.host}/"))
        gone.set()


async def test_the_end_of_an_upload_may_take_longer() -> None:
    """Registries that copy what was uploaded answer a PUT late; a GET has no such excuse."""
    slow = Behaviour(before=lambda: time.sleep(0.5), status=200)
    with BlobHost(b"x", lambda asked: slow) as host:
        async with Transport(retry=RetryPolicy(attempts=1), timeouts=Timeouts(answer=0.2, stall=0.2)) as transport:
            assert await _status(transport, Request("PUT", f"http://{host.host}/", {}, b"")) == 200
            with pytest.raises(Unreachable):
                await _status(transport, Request("GET", f"http://{host.host}/"))


async def test_who_is_cancelled_ends_the_last_answer_of_a_connection(transport: Transport) -> None:
    """http.client forgets the socket of an answer that says ``Connection: close``; we do not."""
    last = Behaviour(rate=1.0, headers={"Connection": "close"})
    with BlobHost(bytes(1000), lambda asked: last) as host:
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await _status(transport, Request("GET", f"http://{host.host}/"))
    assert time.monotonic() - began < 25  # after 30 s the trickle would be a stall


async def test_a_body_that_can_be_sent_again_is(transport: Transport) -> None:
    """Bytes of a file go over the plain sender, with their length, as often as it takes."""

    class Span:
        size = 3

        def send_to(self, connection: socket.socket) -> None:
            connection.sendall(b"abc")

    replies = itertools.chain([503, 429], itertools.repeat(201))
    async with scripted(lambda seen: Reply(next(replies))) as server:
        assert await _status(transport, Request("PUT", server.url, {}, Span())) == 201
        assert [seen.body for seen in server.seen] == [b"abc"] * 3
        assert server.seen[0].headers["content-length"] == "3"


async def test_a_proxy_that_cannot_be_reached_is_named() -> None:
    """It is the one that refuses; its secret is not told."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{held.getsockname()[1]}"
        way = Route(proxy=Proxy(Origin.of(address), "Basic cHJveHk="))
        async with Transport(retry=_FAST, route=lambda origin: way) as transport:
            with pytest.raises(Unreachable) as caught:
                await _status(transport, Request("GET", "http://registry.example/v2/"))
    assert caught.value.message.startswith("http://registry.example/v2/: ")
    assert caught.value.message.endswith(f" (through the proxy {address})")


async def test_a_proxy_is_asked_for_the_whole_url() -> None:
    """Plain http goes through it in absolute form, with its own secret and nobody else's."""
    async with scripted(lambda seen: Reply(200, b"from the proxy")) as proxy:
        way = Route(proxy=Proxy(Origin.of(proxy.url), "Basic cHJveHk="))
        async with Transport(retry=_FAST, route=lambda origin: way) as transport:
            url = "http://registry.example/v2/?n=1"
            async with transport.exchange(Request("GET", url, {"Authorization": "Basic eA=="})) as answer:
                assert await answer.read_body(100) == b"from the proxy"
        assert proxy.seen[0].headers["proxy-authorization"] == "Basic cHJveHk="
        assert proxy.seen[0].headers["host"] == "registry.example"
    assert "cHJveHk" not in repr(way)


def test_the_version_is_said_once_more_and_right() -> None:
    """In every User-Agent; asking the installed package for it costs too much."""
    assert version("moorage") == VERSION


def test_reading_loads_no_httpx() -> None:
    """It is for uploads that are asynchronous streams, and costs more than the rest of a warm pull."""
    program = "import sys, moorage.puller.remote, moorage.puller.fetch.engine; print('httpx' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "False"


_PUBLIC, _SECURE = "http://registry.example", "https://registry.example"


@pytest.mark.parametrize(
    ("here", "there", "is_fine"),
    [
        (_SECURE, "https://cdn.example", True),
        (_PUBLIC, "http://cdn.example", True),
        (_PUBLIC, _SECURE, True),
        (_SECURE, _PUBLIC, False),
        (_SECURE, "http://cdn.example", False),
        (_SECURE, "https://127.0.0.1", False),
        (_SECURE, "https://localhost:8443", False),
        (_PUBLIC, "http://169.254.169.254/latest", False),
        (_PUBLIC, "http://[::1]:80", False),
        (_PUBLIC, "http://[fe80::1]", False),
        (_PUBLIC, "http://10.0.0.7:9000", True),
        ("http://127.0.0.1:5000", "http://localhost:9000", True),
        ("http://127.0.0.1:5000", "http://cdn.example", True),
    ],
)
def test_hops_stay_on_safe_ground(here: str, there: str, is_fine: bool) -> None:
    """Never from https to http, never from outside to this machine or its cloud's secrets."""
    if is_fine:
        check_hop(Origin.of(here), Origin.of(there))
    else:
        with pytest.raises(BadAnswer):
            check_hop(Origin.of(here), Origin.of(there))


@pytest.mark.parametrize(
    ("registry", "expected"),
    [
        ("localhost", "http://localhost"),
        ("localhost:5000", "http://localhost:5000"),
        ("127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("127.8.9.10", "http://127.8.9.10"),
        ("[::1]:5000", "http://[::1]:5000"),
        ("registry.example", "https://registry.example"),
        ("registry.example:443", "https://registry.example"),
        ("localhost.example:5000", "https://localhost.example:5000"),
        ("10.0.0.1:5000", "https://10.0.0.1:5000"),
        ("127.0.0.1.example", "https://127.0.0.1.example"),
    ],
)
def test_only_loopback_is_plain(registry: str, expected: str) -> None:
    """Everything else is HTTPS, and nothing falls back (rule N3)."""
    assert str(Origin.of_registry(registry)) == expected


def test_loopback_is_told_without_asking_anybody() -> None:
    """By the address or the one name."""
    assert [is_loopback(host) for host in ("localhost", "127.1.2.3", "::1", "10.0.0.1", "LOCALHOST.x")] == [
        *(True, True, True, False, False)
    ]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://user:pass@h/a?b=c#d", "https://h/a?…"),
        ("http://h:1/p", "http://h:1/p"),
        ("https://h/a@b", "https://h/a@b"),
        ("/relative?x", "/relative?…"),
        ("https://u@h@evil/x", "https://evil/x"),
    ],
)
def test_urls_are_shown_without_secrets(url: str, shown: str) -> None:
    """User, password, signature."""
    assert redact(url) == shown
