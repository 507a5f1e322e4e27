"""The plain sender over TLS: whom it trusts, per origin, and that bulk, keep-alive and cancellation work there too."""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
import trustme
from moorage.puller.errors import Unreachable
from moorage.puller.messages import Request, RetryPolicy, Timeouts
from moorage.puller.origins import Origin
from moorage.puller.route import DIRECT, Proxy, Route
from moorage.puller.transport import Transport

from tests.blobhost import Behaviour, BlobHost

_CONTENT = random.Random(8).randbytes(3_000_000)
_FAST = RetryPolicy(attempts=2, first_delay=0.001)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def host(authority: trustme.CA) -> Iterator[BlobHost]:
    """A host that speaks TLS, for ``localhost`` and 127.0.0.1."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    with BlobHost(_CONTENT, tls=context) as host:
        yield host


def _trusting(authority: trustme.CA) -> Route:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return Route(tls=context)


async def _read(transport: Transport, url: str) -> bytes:
    async with transport.exchange(Request("GET", url)) as answer:
        return await answer.read_body(len(_CONTENT))


async def test_bulk_and_keep_alive(host: BlobHost, authority: trustme.CA) -> None:
    """Several requests, one connection."""
    route = _trusting(authority)
    async with Transport(retry=_FAST, route=lambda origin: route) as transport:
        for _ in range(3):
            assert await _read(transport, f"https://{host.host}/") == _CONTENT
    assert host.connections == 1


async def test_an_unknown_authority_is_refused(host: BlobHost) -> None:
    """Whatever else the machine trusts."""
    async with Transport(retry=_FAST) as transport:
        with pytest.raises(Unreachable, match="certificate"):
            await _read(transport, f"https://{host.host}/")
    assert host.asked == []


async def test_what_to_write_about_an_unknown_authority_is_said(host: BlobHost) -> None:
    """The setting and the name of its table; the host is not named otherwise."""
    async with Transport(retry=_FAST) as transport:
        with pytest.raises(Unreachable, match=rf'write ca = "FILE" under \["{host.host}"\]'):
            await _read(transport, f"https://{host.host}/")


async def test_an_expired_certificate_makes_one_look_at_the_clock(authority: trustme.CA) -> None:
    """It is as often the clock as the certificate."""
    context, route = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), _trusting(authority)
    authority.issue_cert("127.0.0.1", not_after=datetime(2020, 1, 1, tzinfo=UTC)).configure_cert(context)
    with BlobHost(_CONTENT, tls=context) as host:
        async with Transport(retry=_FAST, route=lambda origin: route) as transport:
            with pytest.raises(Unreachable, match="the clock of this machine says 20"):
                await _read(transport, f"https://{host.host}/")


async def test_the_wrong_scheme_is_guessed_and_not_tried(host: BlobHost) -> None:
    """In both directions, the setting is named; nothing is sent without TLS because TLS failed (rule N3)."""

    async def answer_plainly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert (await reader.readexactly(1)) == b"\x16"  # a TLS handshake, and nothing else ever
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.write_eof()
        await reader.read()
        writer.close()

    async with await asyncio.start_server(answer_plainly, "127.0.0.1") as server, Transport(retry=_FAST) as transport:
        plain = "127.0.0.1:{1}".format(*server.sockets[0].getsockname())
        with pytest.raises(Unreachable, match=rf'write plain_http = true under \["{plain}"\]'):
            await _read(transport, f"https://{plain}/")
        with pytest.raises(Unreachable, match=rf'write plain_http = false under \["{host.host}"\]'):
            await _read(transport, f"http://{host.host}/")
    assert host.asked == []


async def test_trust_is_for_one_origin(host: BlobHost, authority: trustme.CA) -> None:
    """Rule N3: the authority that was given for one name says nothing about another."""
    trusted, port = _trusting(authority), host.host.rpartition(":")[2]
    known = Origin.of(f"https://localhost:{port}")
    async with Transport(retry=_FAST, route=lambda origin: trusted if origin == known else DIRECT) as transport:
        assert await _read(transport, f"https://localhost:{port}/") == _CONTENT
        with pytest.raises(Unreachable, match="certificate"):
            await _read(transport, f"https://127.0.0.1:{port}/")


async def test_a_stall_and_a_cancellation_end(host: BlobHost, authority: trustme.CA) -> None:
    """The reading thread lets go of an encrypted connection as well."""
    route = _trusting(authority)
    host.behave = lambda asked: Behaviour(rate=1.0)
    timeouts = Timeouts(stall=0.2)
    async with Transport(retry=RetryPolicy(attempts=1), route=lambda origin: route, timeouts=timeouts) as transport:
        with pytest.raises(Unreachable, match="stalled"):
            await _read(transport, f"https://{host.host}/")
    async with Transport(retry=_FAST, route=lambda origin: route) as transport:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await _read(transport, f"https://{host.host}/")


async def test_a_tunnel_is_asked_for(host: BlobHost, authority: trustme.CA) -> None:
    """https goes through a proxy as CONNECT; the proxy's secret stays with the proxy, and sees nothing else."""
    heard: list[bytes] = []
    port, over = int(host.host.rpartition(":")[2]), asyncio.Event()

    async def pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while piece := await source.read(65536):
            target.write(piece)
            await target.drain()
        target.close()

    async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readuntil(b"\r\n\r\n"))
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))
        await asyncio.gather(writer.wait_closed(), far_writer.wait_closed())
        over.set()

    async with await asyncio.start_server(tunnel, "127.0.0.1", 0) as proxy:
        address = Origin.of(f"http://127.0.0.1:{proxy.sockets[0].getsockname()[1]}")
        route = Route(tls=_trusting(authority).tls, proxy=Proxy(address, "Basic cHJveHk="))
        async with Transport(retry=_FAST, route=lambda origin: route) as transport:
            assert await _read(transport, f"https://{host.host}/") == _CONTENT
        async with asyncio.timeout(60):
            await over.wait()
    assert heard[0].startswith(f"CONNECT {host.host} HTTP/1".encode())
    assert b"Proxy-Authorization: Basic cHJveHk=" in heard[0]
    assert "proxy-authorization" not in host.asked[0].headers
