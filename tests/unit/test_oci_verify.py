"""Streams that verify themselves: a transfer never ends well with wrong bytes."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moorage.registry.oci import (
    Descriptor,
    Digest,
    DigestInvalid,
    ManifestTooLarge,
    OciError,
    SizeInvalid,
    read_limited,
    verified,
)

from tests.content import blob, chunked

_BLOB = blob("stream", 1000)


async def _read(content: bytes, descriptor: Descriptor, size: int = 100) -> tuple[bytes, OciError | None]:
    """What a reader of ``verified`` got before the end or the error."""
    received = bytearray()
    try:
        async for chunk in verified(chunked(content, size), descriptor):
            received += chunk
    except OciError as exc:
        return bytes(received), exc
    return bytes(received), None


@given(st.binary(max_size=200), st.integers(1, 64), st.sampled_from(["sha256", "sha512"]))
async def test_right_content_passes_unchanged(content: bytes, size: int, algorithm: str) -> None:
    """However it is cut, and empty content too."""
    descriptor = Descriptor("application/octet-stream", Digest.of(content, algorithm), len(content))
    assert await _read(content, descriptor, size) == (content, None)


@pytest.mark.parametrize(
    ("content", "error"),
    [
        pytest.param(_BLOB.content[:-1], SizeInvalid, id="one byte short"),
        pytest.param(_BLOB.content + b"x", SizeInvalid, id="one byte long"),
        pytest.param(b"", SizeInvalid, id="nothing"),
        pytest.param(_BLOB.content[:-1] + b"\0", DigestInvalid, id="last byte differs"),
        pytest.param(b"\0" + _BLOB.content[1:], DigestInvalid, id="first byte differs"),
    ],
)
@pytest.mark.parametrize("size", [1, 100, 999, 5000])
async def test_wrong_content_raises_before_its_end_is_released(
    content: bytes, error: type[OciError], size: int
) -> None:
    """A reader that stops at the error has less than the whole."""
    received, raised = await _read(content, _BLOB.descriptor, size)
    assert isinstance(raised, error)
    assert len(received) < len(_BLOB.content)
    assert raised.detail is not None


async def test_content_without_end_is_cut_off() -> None:
    """No more is read than the descriptor promised, plus one chunk."""
    taken = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal taken
        while True:
            taken += 100
            yield b"x" * 100

    with pytest.raises(SizeInvalid):
        async for _ in verified(endless(), _BLOB.descriptor):
            pass
    assert taken <= _BLOB.descriptor.size + 100


@pytest.mark.parametrize("length", [0, 1, 99, 100])
async def test_a_limited_read_takes_up_to_its_limit(length: int) -> None:
    """The limit itself is allowed."""
    assert await read_limited(chunked(b"x" * length, 7), 100) == b"x" * length


@pytest.mark.parametrize("length", [101, 10_000])
async def test_a_limited_read_stops_beyond_its_limit(length: int) -> None:
    """Rule A1: one byte more is too much."""
    with pytest.raises(ManifestTooLarge):
        await read_limited(chunked(b"x" * length, 7), 100)
