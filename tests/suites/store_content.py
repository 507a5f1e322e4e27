"""What the tests of stores say often: content, lists, uploads and races in one line each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from moorage.storage_backends.base import CommonPrefix, ObjectStore, read_all
from moorage.storage_backends.errors import Conflict, StorageError

MIB = 1 << 20
LOOKALIKES = ("a!b", "a+b", "a-b", "a.b", "a/b", "a/b-c/d", "a/b.c", "a0", "aa/x", "b")
"""Keys whose components prefix each other, in byte order: a directory sorts by the ``/`` behind its name."""


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    """The parts, one by one."""
    for part in parts:
        yield part


def noted(text: bytes = b"note") -> Callable[[int], bytes]:
    """A note that tells the offset it was taken at."""
    return lambda offset: b"%s@%d" % (text, offset)


async def content(store: ObjectStore, key: str) -> bytes:
    """The whole of an object."""
    return (await read_all(store, key))[0]


async def listing(store: ObjectStore, prefix: str = "", *, after: str = "", delimiter: str | None = None) -> list[str]:
    """What a list shows: keys, and common prefixes with their slash."""
    found = store.list(prefix, after=after, delimiter=delimiter)
    return [e.prefix if isinstance(e, CommonPrefix) else e.key async for e in found]


async def fill(store: ObjectStore, *keys: str) -> None:
    """Puts objects whose content is their key."""
    for key in keys:
        await store.put(key, key.encode())


async def outcome(attempt: Awaitable[object]) -> object:
    """What an attempt gives: its result, or the class of the storage error that it raises."""
    try:
        return await attempt
    except StorageError as error:
        return type(error)


async def increment(store: ObjectStore, key: str, times: int) -> None:
    """Adds one, ``times`` times, by compare-and-swap."""
    for _ in range(times):
        for _ in range(10_000):
            data, info = await read_all(store, key)
            try:
                await store.put(key, b"%d" % (int(data) + 1), expect=info.version)
                break
            except Conflict:
                await asyncio.sleep(0)
        else:
            pytest.fail("a swap was refused 10,000 times in a row")


async def upload_of(store: ObjectStore, key: str, data: bytes) -> str:
    """An open upload that holds ``data``."""
    upload = await store.create_upload(key, b"")
    await store.append_upload(upload, 0, chunks(data), noted())
    return upload


async def slowly(data: bytes) -> AsyncIterator[bytes]:
    """The data byte by byte, letting others run in between."""
    for i in range(len(data)):
        await asyncio.sleep(0)
        yield data[i : i + 1]


def folded(keys: tuple[str, ...] | list[str], prefix: str, after: str) -> list[str]:
    """What a list with the delimiter ``/`` has to show."""
    entries = set()
    for key in keys:
        if key.startswith(prefix):
            head, slash, _ = key[len(prefix) :].partition("/")
            entries.add(prefix + head + slash)
    return sorted(e for e in entries if e > after)


def private_files(root: Path) -> list[str]:
    """Temporary files and bytes of uploads that lie about."""
    return [p.name for folder in ("tmp", "staging") for p in (root / ".moorage" / folder).iterdir()]
