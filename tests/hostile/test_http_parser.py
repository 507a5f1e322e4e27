"""What is not HTTP, or too much of it, is refused on the raw socket and the connection closed (rules A9, A12, A21).

Every case says how many answers the connection gives: a second one where the first request was refused would be a
smuggled request.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from moorage.registry.web.head import MAX_FIELDS, MAX_HEAD, MAX_REQUEST_LINE
from moorage.registry.web.protocol import Connection

from tests.servers import serving

_STATUS = re.compile(rb"HTTP/1\.1 ([0-9]{3}) ")
_NEXT = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
_GUARD = 60.0  # seconds after which something hangs, on the slowest of machines


class _Patient(Connection):
    """No deadline of its closes a connection that must be closed for what it said."""

    head_deadline = idle_deadline = 10 * _GUARD


async def _echo(scope: Any, receive: Any, send: Any) -> None:
    """Answers with what it was asked, once the whole body is there; like a registry, never on half a body."""
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message["body"]
        more = message["more_body"]
    text = scope["method"].encode() + b" " + scope["raw_path"] + b" " + body
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(text))]})
    await send({"type": "http.response.body", "body": text})


@pytest.fixture
async def address() -> AsyncIterator[tuple[str, int]]:
    async with serving(_echo, connection=_Patient) as url:
        host, port = url.removeprefix("http://").split(":")
        yield host, int(port)


async def _exchange(address: tuple[str, int], *pieces: bytes) -> bytes:
    """Everything that the server says to these bytes, each piece a segment of its own, until it closes."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.01 if len(pieces) > 1 else 0)
        async with asyncio.timeout(_GUARD):
            return await reader.read()
    finally:
        writer.close()


def _statuses(answer: bytes) -> list[int]:
    return [int(found) for found in _STATUS.findall(answer)]


def _post(*headers: bytes, body: bytes = b"") -> bytes:
    return b"\r\n".join([b"POST /x HTTP/1.1", b"Host: a", *headers, b"", b""]) + body


def _get(*headers: bytes, line: bytes = b"GET /x HTTP/1.1", host: bytes = b"Host: a") -> bytes:
    return b"\r\n".join([line, *([host] if host else []), *headers, b"", b""])


CHUNKED = b"Transfer-Encoding: chunked"

REFUSED = [
    pytest.param(400, _post(b"Content-Length: 5", CHUNKED, body=b"0\r\n\r\n"), id="length and chunks"),
    pytest.param(400, _post(CHUNKED, b"Content-Length: 5", body=b"0\r\n\r\n"), id="chunks and length"),
    pytest.param(400, _post(b"Content-Length: 5", b"Content-Length: 5", body=b"abcde"), id="length twice, same"),
    pytest.param(400, _post(b"Content-Length: 5", b"Content-Length: 6", body=b"abcde"), id="length twice, other"),
    pytest.param(400, _post(b"Content-Length: 5, 5", body=b"abcde"), id="length as a list"),
    pytest.param(400, _post(b"Content-Length: +5", body=b"abcde"), id="length with a sign"),
    pytest.param(400, _post(b"Content-Length: -1", body=b"abcde"), id="length below zero"),
    pytest.param(400, _post(b"Content-Length: 0x5", body=b"abcde"), id="length in hex"),
    pytest.param(400, _post(b"Content-Length: 1_0", body=b"abcde"), id="length with underscore"),
    pytest.param(400, _post("Content-Length: ٣".encode(), body=b"abc"), id="length in Arabic digits"),
    pytest.param(400, _post(b"Content-Length: ", body=b"abcde"), id="length empty"),
    pytest.param(400, _post(b"Content-Length: 99999999999999999999", body=b"abcde"), id="length overflows"),
    pytest.param(400, _post(CHUNKED, CHUNKED, body=b"0\r\n\r\n"), id="chunked twice"),
    pytest.param(501, _post(b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"), id="gzip and chunked"),
    pytest.param(501, _post(b"Transfer-Encoding: identity", body=b"0\r\n\r\n"), id="identity"),
    pytest.param(501, _post(b"Transfer-Encoding: xchunked", body=b"0\r\n\r\n"), id="xchunked"),
    pytest.param(400, _post(b"Transfer-Encoding : chunked", body=b"0\r\n\r\n"), id="space before the colon"),
    pytest.param(400, _post(CHUNKED, body=b"zz\r\nabc\r\n0\r\n\r\n"), id="chunk size not hex"),
    pytest.param(400, _post(CHUNKED, body=b"3\r\nabcd\r\n0\r\n\r\n"), id="chunk longer than its size"),
    pytest.param(400, _post(CHUNKED, body=b"3\nabc\n0\n\n"), id="bare line feeds between chunks"),
    pytest.param(400, _post(CHUNKED, body=b"f" * 17 + b"\r\nabc\r\n"), id="chunk size overflows"),
    pytest.param(
        400, _post(CHUNKED, body=b"3;" + b"x" * 2048 + b"\r\nabc\r\n0\r\n\r\n"), id="chunk extension of 2 KiB"
    ),
    pytest.param(400, _post(CHUNKED, body=b"0\r\nT: " + b"x" * 2048 + b"\r\n\r\n"), id="trailers of 2 KiB"),
    pytest.param(400, b"GET /x HTTP/1.1\nHost: a\n\n", id="bare line feeds"),
    pytest.param(400, _get(b"X: a\nY: b"), id="a bare line feed in the head"),
    pytest.param(400, _get(b"X: a\rY: b"), id="a bare carriage return"),
    pytest.param(400, _get(b"X: a\r\n b"), id="folded line"),
    pytest.param(400, _get(b"X: a\0b"), id="NUL in a value"),
    pytest.param(400, _get(b"X: a\x01b"), id="control character in a value"),
    pytest.param(400, _get(b": b"), id="empty name"),
    pytest.param(400, _get(b"no colon"), id="no colon"),
    pytest.param(400, _get(host=b""), id="no Host"),
    pytest.param(400, _get(b"Host: a"), id="Host twice, same"),
    pytest.param(400, _get(b"hOST: b"), id="Host twice, other"),
    pytest.param(400, _get(host=b"Host: x/v2/?"), id="Host with a path (BadHost)"),
    pytest.param(400, _get(host=b"Host: a b"), id="Host with a space"),
    pytest.param(400, _get(host=b"Host: user@a"), id="Host with a user"),
    pytest.param(400, _get(host=b"Host: a:70000"), id="Host with a port too high"),
    pytest.param(400, _get(host=b"Host: a:"), id="Host with an empty port"),
    pytest.param(400, _get(host=b"Host: "), id="Host empty"),
    pytest.param(400, _get(host=b"Host: [::1"), id="Host with an open bracket"),
    pytest.param(400, _get(line=b"GET http://evil/v2/ HTTP/1.1"), id="absolute target of another host"),
    pytest.param(400, _get(line=b"GET http://u:p@a/v2/ HTTP/1.1"), id="absolute target with a user"),
    pytest.param(400, _get(line=b"GET ftp://a/v2/ HTTP/1.1"), id="absolute target of another scheme"),
    pytest.param(400, _get(line=b"OPTIONS * HTTP/1.1"), id="asterisk"),
    pytest.param(400, _get(line=b"CONNECT a:1 HTTP/1.1"), id="CONNECT"),
    pytest.param(400, _get(line=b"GET /x#y HTTP/1.1"), id="fragment"),
    pytest.param(400, _get(line=b"GET /\xc3\xa9 HTTP/1.1"), id="target not ASCII"),
    pytest.param(400, _get(line=b"_HELPER /x HTTP/1.1"), id="unknown method"),
    pytest.param(400, _get(line=b"GET /x HTTP/9.9"), id="HTTP/9.9"),
    pytest.param(505, _get(line=b"GET /x HTTP/2.0"), id="HTTP/2.0"),
    pytest.param(505, b"GET /x\r\n\r\n", id="HTTP/0.9"),
    pytest.param(400, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", id="HTTP/2 preface"),
    pytest.param(
        400, _post(b"Connection: upgrade", b"Upgrade: h2c", b"Content-Length: 3", body=b"abc"), id="upgrade+body"
    ),
    pytest.param(400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500), id="TLS on the plain port"),
    pytest.param(400, b"\x00" * 100, id="zeros"),
    pytest.param(400, b"SSH-2.0-OpenSSH_9\r\n", id="SSH"),
]


@pytest.mark.parametrize(("status", "request_"), REFUSED)
async def test_a12_refused_once_and_closed(address: tuple[str, int], status: int, request_: bytes) -> None:
    """One answer of the right status, as the protocol's JSON, and the end: what follows is never looked at."""
    answer = await _exchange(address, request_ + _NEXT)
    assert [status] == _statuses(answer)
    assert b"connection: close\r\n" in answer
    assert msgspec.json.decode(answer.partition(b"\r\n\r\n")[2])["errors"][0]["code"] == "REQUEST_INVALID"
    assert b"smuggled" not in answer


@pytest.mark.parametrize(("status", "request_"), REFUSED)
async def test_a12_refused_byte_by_byte_too(address: tuple[str, int], status: int, request_: bytes) -> None:
    """Where the segments are cut makes no difference."""
    middle = len(request_) // 2
    answer = await _exchange(address, request_[:middle], request_[middle:], _NEXT)
    assert [status] == _statuses(answer)


@pytest.mark.parametrize(("status", "request_"), REFUSED)
async def test_a12_refused_behind_a_good_request(address: tuple[str, int], status: int, request_: bytes) -> None:
    """A good request before it is answered first, and whole."""
    answer = await _exchange(address, _get(line=b"GET /good HTTP/1.1") + request_ + _NEXT)
    assert [200, status] == _statuses(answer)
    assert b"GET /good " in answer
    assert b"smuggled" not in answer


ACCEPTED = [
    pytest.param(b"GET /x ", _get(), id="plain"),
    pytest.param(b"GET /x ", _get(host=b"Host: localhost:5000"), id="Host with a port"),
    pytest.param(b"GET /x ", _get(host=b"Host: [::1]:5000"), id="Host as an IPv6 address"),
    pytest.param(b"GET /x ", _get(host=b"Host: my_service.internal"), id="Host with an underscore"),
    pytest.param(b"GET /v2/ ", _get(line=b"GET http://a/v2/ HTTP/1.1"), id="absolute target of this host"),
    pytest.param(b"GET /v2/ ", _get(line=b"GET http://A/v2/?n=1 HTTP/1.1"), id="absolute target in other case"),
    pytest.param(b"GET /%2e%2e ", _get(line=b"GET /%2e%2e HTTP/1.1"), id="escapes stay as they are"),
    pytest.param(b"GET /x ", b"GET /x HTTP/1.0\r\n\r\n", id="HTTP/1.0 without Host"),
    pytest.param(b"GET /x ", _get(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c"), id="upgrade is ignored"),
    pytest.param(b"GET /x ", b"\r\n\r\n" + _get(), id="empty lines before"),
    pytest.param(b"POST /x abcde", _post(b"Content-Length: 5", body=b"abcde"), id="length"),
    pytest.param(b"POST /x abcde", _post(CHUNKED, body=b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"), id="chunks"),
    pytest.param(
        b"POST /x abc", _post(b"Transfer-Encoding: Chunked", body=b"3;a=b\r\nabc\r\n0\r\nT: x\r\n\r\n"), id="ext"
    ),
]


@pytest.mark.parametrize(("text", "request_"), ACCEPTED)
async def test_what_clients_really_send_is_answered(address: tuple[str, int], text: bytes, request_: bytes) -> None:
    """Strictness must not cost a client that does nothing wrong."""
    close = (
        request_.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1) if b"onnection" not in request_ else request_
    )
    close = request_ if request_.startswith(b"\r\n") else close
    reader, writer = await asyncio.open_connection(*address)
    writer.write(close)
    async with asyncio.timeout(_GUARD):
        head = await reader.readuntil(b"\r\n\r\n")
        body = await reader.readexactly(len(text))
    writer.close()
    assert _statuses(head) == [200]
    assert body.startswith(text)


async def test_trailers_do_not_become_headers(address: tuple[str, int]) -> None:
    """A trailer named Host or Content-Length changes nothing: it is dropped."""
    body = b"3\r\nabc\r\n0\r\nX-Late: x\r\n\r\n"
    answer = await _exchange(address, _post(CHUNKED, body=body), _get(b"Connection: close"))
    assert _statuses(answer) == [200, 200]


async def test_many_small_chunks_are_no_overhead(address: tuple[str, int]) -> None:
    """What frames honest chunks does not count as extensions, however many there are."""
    answer = await _exchange(address, _post(CHUNKED, b"Connection: close", body=b"1\r\na\r\n" * 5000 + b"0\r\n\r\n"))
    assert _statuses(answer) == [200]
    assert answer.endswith(b" " + b"a" * 5000)


async def test_a_last_request_is_the_last(address: tuple[str, int]) -> None:
    """What follows a request with Connection: close is not looked at."""
    answer = await _exchange(address, _get(b"Connection: close") + _NEXT)
    assert _statuses(answer) == [200]


async def test_pipelined_requests_are_answered_in_order(address: tuple[str, int]) -> None:
    """A thousand requests in one write: a thousand answers, in order, each with its own body."""
    requests = [_post(b"Content-Length: 4", body=b"%04d" % i) for i in range(1000)]
    answer = await _exchange(address, b"".join(requests) + _get(b"Connection: close"))
    assert _statuses(answer) == [200] * 1001
    assert [b"%04d" % i for i in range(1000)] == re.findall(rb"POST /x ([0-9]{4})", answer)


@pytest.mark.parametrize(
    "extra", [pytest.param(-1, id="limit-1"), pytest.param(0, id="limit"), pytest.param(1, id="limit+1")]
)
class TestLimits:
    """Each limit at its edge, in one segment and in many (reliability figures 5.2)."""

    async def _check(self, address: tuple[str, int], request: bytes, extra: int, status: int) -> None:
        expected = status if extra > 0 else 200
        assert [expected] == _statuses(await _exchange(address, request))
        pieces = [request[i : i + 1000] for i in range(0, len(request), 1000)]
        assert [expected] == _statuses(await _exchange(address, *pieces))

    async def test_request_line(self, address: tuple[str, int], extra: int) -> None:
        """8 KiB of request line."""
        around = len(b"GET  HTTP/1.1")
        line = b"GET /" + b"x" * (MAX_REQUEST_LINE - around - 1 + extra) + b" HTTP/1.1"
        assert len(line) == 8192 + extra
        await self._check(address, _get(b"Connection: close", line=line), extra, 414)

    async def test_header_bytes(self, address: tuple[str, int], extra: int) -> None:
        """32 KiB of header lines."""
        lines = [b"Host: a", b"Connection: close"]
        used = sum(len(line) + 2 for line in lines)
        filler = b"X: " + b"y" * (MAX_HEAD - used - len(b"X: \r\n") + extra)
        assert used + len(filler) + 2 == 32768 + extra
        await self._check(address, _get(b"Connection: close", filler), extra, 431)

    async def test_header_fields(self, address: tuple[str, int], extra: int) -> None:
        """100 header lines."""
        fields = [b"X%d: y" % i for i in range(MAX_FIELDS - 2 + extra)]
        await self._check(address, _get(b"Connection: close", *fields), extra, 431)


async def test_a_pipelined_body_may_still_be_coming(address: tuple[str, int]) -> None:
    """A request that waits behind another one, with half its body there, gets the other half."""
    post = _post(b"Content-Length: 6", b"Connection: close", body=b"abc")
    answer = await _exchange(address, _get() + post, b"", b"", b"def")
    assert _statuses(answer) == [200, 200]
    assert answer.endswith(b"POST /x abcdef")


async def test_an_endless_head_is_cut_off(address: tuple[str, int]) -> None:
    """A head that never ends is refused by its size, long before its deadline."""
    answer = await _exchange(address, *[b"GET /x HTTP/1.1\r\nHost: a\r\n"], *[b"X: " + b"y" * 8000 + b"\r\n"] * 8)
    assert _statuses(answer) == [431]


async def test_an_endless_target_is_cut_off(address: tuple[str, int]) -> None:
    """A request line that never ends is refused by its size."""
    answer = await _exchange(address, b"GET /", *[b"y" * 4000] * 4)
    assert _statuses(answer) == [414]
