"""Big blobs are not all sent at once, but none waits for long."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from moorage.puller.transfer.turns import BIG, Turns
from moorage.registry.oci import Descriptor, Digest
from moorage.registry.oci.media_types import OCTET_STREAM

_FOREVER = 86_400.0
_BIG = Descriptor(OCTET_STREAM, Digest.of(b"big"), BIG)
_SMALL = Descriptor(OCTET_STREAM, Digest.of(b"small"), BIG - 1)


async def _have_turns(turns: Turns, stack: AsyncExitStack, blobs: list[Descriptor]) -> list[asyncio.Task[None]]:
    """Tasks that end once each has its turn, which it keeps; as far as they come without anything happening."""
    tasks = [asyncio.create_task(stack.enter_async_context(turns.turn(blob))) for blob in blobs]
    for _ in range(20):
        await asyncio.sleep(0)
    return tasks


async def test_two_big_blobs_go_first_and_leave_room_for_small_ones() -> None:
    turns = Turns(first=2, patience=_FOREVER)
    async with AsyncExitStack() as stack:
        big = await _have_turns(turns, stack, [_BIG, _BIG, _BIG])
        small = await _have_turns(turns, stack, [_SMALL, _SMALL, _SMALL])
        assert [task.done() for task in big] == [True, True, False]
        assert [task.done() for task in small] == [True, True, False]
        big[2].cancel()
        small[2].cancel()


async def test_a_big_blob_follows_when_another_has_ended() -> None:
    turns = Turns(first=2, patience=_FOREVER)
    async with AsyncExitStack() as stack:
        async with AsyncExitStack() as first:
            await _have_turns(turns, first, [_BIG, _BIG])
            waiting = await _have_turns(turns, stack, [_BIG])
            assert not waiting[0].done()
        await waiting[0]


async def test_after_a_while_four_big_blobs_go_at_once_and_never_more() -> None:
    turns = Turns(first=2, patience=0.01)
    async with AsyncExitStack() as stack:
        tasks = await _have_turns(turns, stack, [_BIG] * 5)
        await asyncio.gather(*tasks[:4])
        await _have_turns(turns, stack, [])
        assert not tasks[4].done()
        tasks[4].cancel()
