"""Taking connections: bursts are shared out, and no trouble stops it for good."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from moorage.registry.web.acceptor import Acceptor


class _Greeting(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        transport.write(b"hello")
        transport.close()


class _Listener(socket.socket):
    """A listening socket whose next accepts fail as told."""

    failures: Iterator[OSError] = iter(())

    def accept(self) -> Any:
        for failure in self.failures:
            raise failure
        return super().accept()


@pytest.fixture
def listener() -> Iterator[_Listener]:
    with _Listener() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen(100)
        yield sock


async def _greeted(listener: socket.socket, count: int = 1) -> list[bytes]:
    async def ask() -> bytes:
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        answer = await reader.read()
        writer.close()
        return answer

    async with asyncio.timeout(60):
        return await asyncio.gather(*(ask() for _ in range(count)))


async def test_a_burst_is_taken(listener: _Listener) -> None:
    """More connections at once than one turn takes."""
    acceptor = Acceptor(listener, _Greeting, tls=None, gives_way=lambda _: False)
    assert await _greeted(listener, 60) == [b"hello"] * 60
    acceptor.close()


async def test_giving_way_is_not_giving_up(listener: _Listener) -> None:
    """Where nobody else takes a connection, whoever gave way takes it after all."""
    acceptor = Acceptor(listener, _Greeting, tls=None, gives_way=lambda _: True)
    assert await _greeted(listener, 5) == [b"hello"] * 5
    acceptor.close()


async def test_no_room_is_waited_out(listener: _Listener, caplog: pytest.LogCaptureFixture) -> None:
    """When descriptors run out, accepting pauses, says so, and goes on by itself."""
    listener.failures = iter([OSError(errno.EMFILE, "too many open files")])
    acceptor = Acceptor(listener, _Greeting, tls=None, gives_way=lambda _: False)
    assert await _greeted(listener) == [b"hello"]
    assert [record.message for record in caplog.records] == ["cannot accept connections just now: too many open files"]
    acceptor.close()


async def test_a_client_that_thought_better_of_it_is_no_trouble(listener: _Listener) -> None:
    """A connection that is gone before it is taken does not stop the next."""
    listener.failures = iter([ConnectionAbortedError(errno.ECONNABORTED, "aborted")])
    acceptor = Acceptor(listener, _Greeting, tls=None, gives_way=lambda _: False)
    assert await _greeted(listener) == [b"hello"]
    acceptor.close()


async def test_a_closed_one_takes_nothing(listener: _Listener) -> None:
    """After close the port is shut."""
    address = listener.getsockname()
    Acceptor(listener, _Greeting, tls=None, gives_way=lambda _: False).close()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(*address)
