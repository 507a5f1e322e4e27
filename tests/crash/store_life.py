"""A life of a store: random operations on objects and uploads, and the judgement after its death.

Law of the judgement: what was acknowledged is there, whole; what was begun is there, whole, or is not; what nobody
spoke of is not there at all. Content tells its key and its turn, so any mixture shows.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack
from typing import Any, Final

from moorage.storage_backends.base import ANY, UPLOADS, ObjectInfo, ObjectStore, read_all
from moorage.storage_backends.errors import KeyNotFound, UploadNotFound

from tests.crash.workers import Line, Say

__all__ = ["StoreLedger", "live"]

_KEYS: Final = 12
_SIZES: Final = (0, 1, 900, 5_000, 70_000)
_ABSENT: Final = None

Value = tuple[int, int] | None
"""What an object holds: the turn it was written at, and its size in bytes. None: there is no object."""


def content(key: str, turn: int, size: int) -> bytes:
    """The content of an object: ``size`` bytes that no other key or turn has, from one byte on."""
    return (f"{turn:x}|{key}|" * (size // 4 + 1)).encode()[:size]


def upload_bytes(upload: str, start: int, stop: int) -> bytes:
    """The bytes of an upload from ``start`` to ``stop``."""
    return (upload * (stop // len(upload) + 1)).encode()[start:stop]


async def live(store: ObjectStore, say: Say, *, seed: str, tasks: int) -> None:
    """Works with the store until it fails or somebody ends the process. Each task has keys of its own."""
    async with asyncio.TaskGroup() as group:
        for number in range(tasks):
            group.create_task(_Task(store, say, f"{seed}-{number}").run())


class _Task:
    def __init__(self, store: ObjectStore, say: Say, name: str) -> None:
        self._store, self._say, self._name = store, say, name
        self._random = random.Random(name)
        self._turn = 0
        self._versions: dict[str, str] = {}

    async def run(self) -> None:
        """One operation after another, until one fails."""
        while True:
            match self._random.randrange(10):
                case 0 | 1 | 2:
                    await self._told(self._draw())
                case 3 | 4 | 5:
                    await self._batch()
                case _:
                    await self._upload()

    async def _batch(self) -> None:
        operations = [self._draw() for _ in range(self._random.randrange(2, 9))]
        self._say({"what": "begin", "who": self._name, "changes": operations})
        async with self._store.batch():
            for operation in operations:
                await self._do(operation)
        self._say({"what": "done", "who": self._name, "changes": operations})

    def _draw(self) -> list[Any]:
        """A change: a key, the turn and size of its new value; a size of -1 deletes."""
        self._turn += 1
        number = self._random.randrange(_KEYS)
        key = f"{'links' if number % 2 else 'tags'}/{self._name}/{number % 5}/{number}"
        size = self._random.choice([-1, *_SIZES])
        return [key, self._turn, size]

    async def _told(self, operation: list[Any]) -> None:
        self._say({"what": "begin", "who": self._name, "changes": [operation]})
        await self._do(operation)
        self._say({"what": "done", "who": self._name, "changes": [operation]})

    async def _do(self, operation: list[Any]) -> None:
        key, turn, size = operation
        if size < 0:
            await self._store.delete(key)
            self._versions.pop(key, None)
            return
        known = self._versions.get(key)
        expect = self._random.choice([ANY, known or ANY])
        self._versions[key] = await self._store.put(key, content(key, turn, size), expect=expect)

    async def _upload(self) -> None:
        self._turn += 1
        key = f"data/{self._turn % 7}/{self._name}-{self._turn}"
        upload = await self._store.create_upload(key, b"0")
        self._tell("opened", upload, 0)
        offset = 0
        for _ in range(self._random.randrange(4)):
            end = offset + self._random.choice([1, 4_000, 100_000, 1_300_000])
            self._tell("appending", upload, end)
            await self._store.append_upload(upload, offset, _in_pieces(upload, offset, end), lambda at: b"%d" % at)
            self._tell("appended", upload, end)
            offset = end
        if self._random.random() < 0.2:
            self._tell("aborting", upload, offset)
            await self._store.abort_upload(upload)
        elif self._random.random() < 0.8:
            self._tell("committing", upload, offset, key=key)
            async with AsyncExitStack() as stack:
                if self._random.random() < 0.5:
                    await stack.enter_async_context(self._store.batch())
                await self._store.commit_upload(upload, offset)
            self._tell("committed", upload, offset, key=key)

    def _tell(self, what: str, upload: str, offset: int, **more: str) -> None:
        self._say({"what": what, "upload": upload, "offset": offset, **more})


async def _in_pieces(upload: str, start: int, stop: int) -> AsyncIterator[bytes]:
    data = upload_bytes(upload, start, stop)
    for at in range(0, len(data), 65_536):
        yield data[at : at + 65_536]


class StoreLedger:
    """What may be true of a store, from what its workers said.

    Args:
        power: whether deaths are power cuts; then an upload may also be unknown, or stand where it stood before.
    """

    def __init__(self, *, power: bool) -> None:
        self._power = power
        self._values: dict[str, set[Value]] = {}
        self._uploads: dict[str, set[int | None]] = {}
        self._commits: dict[str, tuple[str, int, bool]] = {}  # key: upload, size, acknowledged
        self._found: set[str] = set()

    def hear(self, lines: Iterable[Line]) -> list[str]:
        """Takes down what a worker said; complaints if it died of itself."""
        complaints = []
        for line in lines:
            match line["what"]:
                case "begin":
                    for key, turn, size in line["changes"]:
                        self._values.setdefault(key, {_ABSENT}).add(_value(turn, size))
                case "done":
                    for key, turn, size in line["changes"]:
                        self._values[key] = {_value(turn, size)}
                case "stopped" if self._power:
                    pass  # nothing works when the power is gone
                case "died" | "stopped":
                    complaints.append(line["trace"])
                case _:
                    self._hear_upload(line)
        return complaints

    def _hear_upload(self, line: Line) -> None:
        upload, offset = line["upload"], line["offset"]
        places = self._uploads.setdefault(upload, {None} if self._power else set())
        match line["what"]:
            case "appended" if not self._power:
                self._uploads[upload] = {offset}
            case "opened" | "appending" | "appended":
                places.add(offset)
            case "aborting":
                places.add(None)
            case "committing" | "committed":
                places.add(None)
                self._commits[line["key"]] = (upload, offset, line["what"] == "committed")

    async def judge(self, store: ObjectStore) -> list[str]:
        """Complaints about the store as it is now; what was found becomes what must be, for the next life."""
        complaints = [
            *[c for key in self._values for c in await self._judge_object(store, key)],
            *[c for key in self._commits for c in await self._judge_commit(store, key)],
            *[c for upload in list(self._uploads) for c in await self._judge_upload(store, upload)],
        ]
        listed = {e.key async for e in store.list("") if isinstance(e, ObjectInfo) and not e.key.startswith(UPLOADS)}
        if listed != self._found:
            complaints.append(f"a list shows {listed - self._found} and lacks {self._found - listed}")
        return complaints

    async def _judge_object(self, store: ObjectStore, key: str) -> list[str]:
        data = await _read(store, key)
        self._note(key, data)
        for value in self._values[key]:
            if data == (None if value is None else content(key, *value)):
                self._values[key] = {value}
                return []
        state = "absent" if data is None else f"{len(data)} bytes {data[:40]!r}"
        return [f"{key} is {state}, allowed: {self._values[key]}"]

    async def _judge_commit(self, store: ObjectStore, key: str) -> list[str]:
        upload, size, acknowledged = self._commits[key]
        data = await _read(store, key)
        self._note(key, data)
        if data is None and not acknowledged:
            return []
        if data == upload_bytes(upload, 0, size):
            self._commits[key] = (upload, size, True)
            return []
        return [f"{key} is {None if data is None else len(data)}, not the {size} bytes of its upload"]

    async def _judge_upload(self, store: ObjectStore, upload: str) -> list[str]:
        """An upload stands at a place it was, with the note of that place, and its bytes are those it took."""
        places = self._uploads.pop(upload)
        try:
            info = await store.stat_upload(upload)
        except UploadNotFound:
            return [] if None in places else [f"upload {upload} is unknown, allowed: {places}"]
        if info.offset not in places or info.note != b"%d" % info.offset:
            return [f"upload {upload} stands at {info.offset} with note {info.note!r}, allowed: {places}"]
        more = info.offset + 1000
        await store.append_upload(upload, info.offset, _in_pieces(upload, info.offset, more), lambda at: b"%d" % at)
        await store.commit_upload(upload, more)
        self._commits[info.key] = (upload, more, True)
        return await self._judge_commit(store, info.key)

    def _note(self, key: str, data: bytes | None) -> None:
        (self._found.discard if data is None else self._found.add)(key)


def _value(turn: int, size: int) -> Value:
    return None if size < 0 else (turn, size)


async def _read(store: ObjectStore, key: str) -> bytes | None:
    try:
        return (await read_all(store, key))[0]
    except KeyNotFound:
        return None
