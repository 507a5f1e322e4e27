"""One append on its way into S3.

Law: nothing of it counts until the record was swapped at its end, so of several writers at one offset one wins, whole.
Law of memory: at most two parts of it are held, filling or on their way, and all appends of a process share one budget:
who finds it spent does not read from his client until there is room.
Law of order: parts count in the order of their bytes; what was sent behind one that failed is as if it were not.
Law of the last part: the usual client sends all he has at once and closes, so what is left at the end is stored twice,
side by side: as a piece, for whoever goes on, and as the part that it will be if nobody does. That part counts for the
very state of the record that names it, and its number is never given again.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from moorage.storage_backends.base import UploadInfo
from moorage.storage_backends.errors import Conflict, OffsetMismatch, StorageError, UploadNotFound
from moorage.storage_backends.s3.multipart import Multipart
from moorage.storage_backends.s3.record import INLINE, PART, Held, Part, Piece
from moorage.storage_backends.s3.records import Records, describe_upload
from msgspec.structs import replace

__all__ = ["Budget", "Writer"]

_EXTENT: Final = 16
"""Numbers of parts reserved at once: one swap for 192 MiB, and all that a writer who dies wastes."""

_OPENING: Final = PART // 3
"""Bytes of a part upon which its place is made ready, while the rest of it arrives. Who sends no more after all has an
upload of one part."""

_RENEWAL: Final = 60.0
"""Seconds after which an append that still receives says so: sessions are dropped by the time of their record."""

_MANY_PIECES: Final = 32
_UNBUDGETED: Final = 64 * 1024


class Budget:
    """Memory for parts, shared by all appends of a process. ``size``: bytes."""

    def __init__(self, size: int) -> None:
        self._free = asyncio.Semaphore(max(2, size // PART))

    async def take(self) -> None:
        """Waits for room for a part."""
        await self._free.acquire()

    async def try_take(self) -> bool:
        """Takes room for a part if there is some right now."""
        return not self._free.locked() and await self._free.acquire()

    def give_back(self, parts: int) -> None:
        """Room for this many parts is free again."""
        for _ in range(parts):
            self._free.release()


class Writer:
    """Takes the bytes of one append. ``close`` it whatever happens."""

    def __init__(self, upload: str, held: Held, *, records: Records, multipart: Multipart, budget: Budget) -> None:
        self._upload = upload
        self._held = held
        self._records = records
        self._multipart = multipart
        self._budget = budget
        self._rooms = 0
        self._tail = held.record.tail
        self._inline = held.record.inline
        self._buffer = bytearray(self._inline)
        self._parts = list(held.record.parts)
        self._id = held.record.multipart
        self._may_leave = False
        self._numbers = range(0)
        self._sending: deque[asyncio.Task[Part]] = deque()
        self._order = asyncio.Lock()
        self._opening: asyncio.Task[None] | None = None
        self._swapped = time.monotonic()

    async def add(self, chunk: bytes) -> None:
        """Takes bytes, and sends a part when one is full.

        Raises:
            OffsetMismatch, UploadNotFound: another writer has the upload, or it is over.
        """
        if time.monotonic() - self._swapped > _RENEWAL:
            await self._renew()
        view = memoryview(chunk)
        while view:
            if not self._rooms and len(self._buffer) + len(view) > _UNBUDGETED:
                await self._budget.take()
                self._rooms = 1
            missing = PART - sum(piece.size for piece in self._carried) - len(self._buffer)
            self._buffer += view[:missing]
            view = view[missing:]
            if self._id is None and self._opening is None and len(self._buffer) >= _OPENING:
                self._opening = asyncio.create_task(self._open())
            if len(self._buffer) == PART - sum(piece.size for piece in self._carried):
                await self._send()

    @property
    def _carried(self) -> tuple[Piece, ...]:
        """The pieces that go before what is in the buffer; none once they are on their way in a part."""
        return () if self._sending else self._tail

    async def _send(self) -> None:
        """Begins to send a full part, and waits until there is memory for another one."""
        before, data, self._buffer = self._carried, self._buffer, bytearray()
        self._sending.append(asyncio.create_task(self._deliver(before, data)))
        if self._rooms == 1 and await self._budget.try_take():
            self._rooms = 2
        while self._sending and len(self._sending) >= self._rooms:
            await self._settle()

    async def _deliver(self, before: Sequence[Piece], data: bytes | bytearray) -> Part:
        """Sends a part, which has its number before the one behind it has one."""
        number = await self._next_number()
        if before:
            data = await self._multipart.read_pieces(before) + data
        return await self._multipart.send(self._held.record.key, str(self._id), number, data)

    async def _settle(self) -> None:
        """Waits for the first of the parts that are on their way; what comes behind one that failed is of no use."""
        await asyncio.wait([self._sending[0]])  # when the append is cancelled the part goes on, and ``finish`` has it
        sending = self._sending.popleft()
        try:
            self._parts.append(sending.result())
        except BaseException:  # whatever it is, and when we are cancelled too: no part may count after a hole
            self._buffer = bytearray(self._inline)
            await self._drop_sending()
            raise
        self._tail, self._inline = (), b""

    async def _drop_sending(self) -> None:
        dropped, self._sending = self._sending, deque()
        async with self._order:  # whoever is about to have a number has it first, or we would not know of it
            for sending in dropped:
                sending.cancel()
        await asyncio.gather(*dropped, return_exceptions=True)

    async def _next_number(self) -> int:
        """A part number that nobody else was ever given, in a multipart upload that exists."""
        async with self._order:
            if not self._numbers:
                await self._reserve()
            number, self._numbers = self._numbers[0], self._numbers[1:]
            return number

    async def _open(self) -> None:
        """Does what the first part would have to wait for; what fails here is tried again by that part."""
        async with self._order:
            if not self._numbers:
                with suppress(StorageError):
                    await self._reserve()

    async def _reserve(self) -> None:
        first, is_new = self._held.record.next, self._id is None
        self._may_leave |= is_new and self._held.record.opening
        await self._swap(next=first + _EXTENT, opening=is_new or self._held.record.opening)
        if is_new:
            self._id, is_only = await self._multipart.create(self._held.record.key)
            self._may_leave |= not is_only
        self._numbers = range(first, first + _EXTENT)

    async def _renew(self) -> None:
        async with self._order:
            await self._swap()

    async def _swap(self, **changes: object) -> None:
        self._swapped = time.monotonic()
        try:
            self._held = await self._records.swap(self._upload, self._held, replace(self._held.record, **changes))
        except Conflict:
            raise await self._records.lost(self._upload) from None

    async def finish(self, note: Callable[[int], bytes], *, is_whole: bool) -> UploadInfo:
        """Makes what arrived count. ``is_whole``: the client said that this is all of the append.

        Raises:
            OffsetMismatch, UploadNotFound: another writer has the upload, or it is over; nothing counts.
        """
        before = self._held.record.tail
        tail, inline, last = await self._end(is_likely_last=is_whole and self._held.record.offset == 0)
        size = sum(part.size for part in self._parts) + sum(piece.size for piece in tail) + len(inline)
        unused = {"next": self._numbers[0]} if self._numbers else {}
        is_ours = self._id is not None and self._held.record.multipart is None
        made = {"multipart": self._id, "opening": self._may_leave} if is_ours else {}
        held = {"parts": tuple(self._parts), "tail": tail, "inline": inline, "last": last}
        try:
            await self._swap(**held, note=note(size), **unused, **made)
        except (OffsetMismatch, UploadNotFound):  # anything else may mean that it counts
            await self._undo(tail)
            raise
        await self._multipart.drop_pieces([piece for piece in before if piece not in tail])
        return describe_upload(self._held)

    async def _end(self, *, is_likely_last: bool) -> tuple[tuple[Piece, ...], bytes, Part | None]:
        """The tail, what goes into the record, and the last part; made while other parts are on their way."""
        if self._opening is not None:
            await asyncio.shield(self._opening)  # or nobody would know the id of what it makes
        left, self._buffer = bytes(self._buffer), bytearray()
        settled, written, last = await asyncio.gather(
            self._settle_all(),
            self._write_tail(self._carried, left),
            self._send_last(left if is_likely_last else b""),
            return_exceptions=True,
        )
        if isinstance(written, BaseException):
            raise settled if isinstance(settled, BaseException) else written
        if isinstance(settled, BaseException) or isinstance(last, BaseException):
            await self._drop_new(written[0])
        if isinstance(settled, BaseException):
            raise settled
        if isinstance(last, BaseException):
            raise last
        return *written, last

    async def _send_last(self, left: bytes) -> Part | None:
        """``left`` as the part that it is if no more comes; its number is never given to another one."""
        if left and self._id is not None:
            with suppress(StorageError):  # then it is sent when the upload is closed
                return await self._deliver((), left)
        return None

    async def _settle_all(self) -> None:
        while self._sending:
            await self._settle()

    async def _write_tail(self, before: tuple[Piece, ...], left: bytes) -> tuple[tuple[Piece, ...], bytes]:
        """Stores ``left`` behind the pieces ``before``; little goes into the record, many pieces become one."""
        if len(left) <= INLINE:
            return before, left
        if len(before) < _MANY_PIECES:
            return (*before, await self._multipart.put_piece(self._upload, left)), b""
        return (await self._multipart.put_piece(self._upload, await self._multipart.read_pieces(before) + left),), b""

    async def _undo(self, tail: tuple[Piece, ...]) -> None:
        """Removes what only we could have made count."""
        await self._drop_new(tail)
        if self._id is not None and self._held.record.multipart is None:
            await self._multipart.abort(self._held.record.key, self._id)

    async def _drop_new(self, tail: tuple[Piece, ...]) -> None:
        await self._multipart.drop_pieces([piece for piece in tail if piece not in self._held.record.tail])

    async def close(self) -> None:
        """Lets go of memory, and of parts that are still on their way."""
        await self._drop_sending()
        if self._opening is not None:
            await asyncio.wait([self._opening])
        self._budget.give_back(self._rooms)
        self._rooms = 0
