"""What every ``Uploader`` keeps (interface.py). A suite is a base class: subclass it with a ``registry`` fixture."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from moorage.registry.oci import (
    BlobUnknown,
    BlobUploadUnknown,
    DigestInvalid,
    OciError,
    RangeInvalid,
    Registry,
    UploadStatus,
)

from tests.content import blob, chunked, empty_blob, read_bytes, repository

__all__ = ["UploaderSuite"]

_HERE, _THERE = repository("team/app"), repository("team/other")
_BLOB = blob("upload", 3000)
_UNKNOWN = "0" * 32


async def _append(registry: Registry, upload: str, start: int, stop: int, *, check: bool = True) -> UploadStatus:
    content = chunked(_BLOB.content[start:stop])
    return await registry.append_upload(_HERE, upload, content, start=start if check else None)


class UploaderSuite:
    """Taking a blob in pieces."""

    async def test_a_new_session_is_empty(self, registry: Registry) -> None:
        """It has an id of its own and no bytes."""
        one, two = await registry.start_upload(_HERE), await registry.start_upload(_HERE)
        assert one.id != two.id
        assert (one.offset, (await registry.upload_status(_HERE, one.id)).offset) == (0, 0)

    @pytest.mark.parametrize("algorithm", [None, "sha256", "sha512"])
    @pytest.mark.parametrize("digest_algorithm", ["sha256", "sha512"])
    async def test_pieces_become_a_blob(self, registry: Registry, algorithm: str | None, digest_algorithm: str) -> None:
        """Whether or not the client announced the algorithm that it closes with."""
        item = blob("pieces", 3000, algorithm=digest_algorithm)
        session = await registry.start_upload(_HERE, algorithm=algorithm)
        for start in (0, 1000, 2000):
            content = chunked(item.content[start : start + 1000])
            status = await registry.append_upload(_HERE, session.id, content, start=start)
            assert status.offset == start + 1000
            assert (await registry.upload_status(_HERE, status.id)).offset == start + 1000
        stored = await registry.finish_upload(_HERE, status.id, item.digest)
        assert (stored.digest, stored.size) == (item.digest, 3000)
        assert await read_bytes(registry, _HERE, item.digest) == item.content

    async def test_a_session_without_bytes_is_the_empty_blob(self, registry: Registry) -> None:
        """With no append, and with an empty one."""
        for appends in (0, 1):
            session = await registry.start_upload(_HERE)
            for _ in range(appends):
                session = await registry.append_upload(_HERE, session.id, chunked(b""), start=0)
            await registry.finish_upload(_HERE, session.id, empty_blob().digest)
            assert await read_bytes(registry, _HERE, empty_blob().digest) == b""

    async def test_an_append_need_not_say_where_it_starts(self, registry: Registry) -> None:
        """Streaming clients do not count."""
        session = await registry.start_upload(_HERE)
        for start in (0, 1500):
            session = await _append(registry, session.id, start, start + 1500, check=False)
        await registry.finish_upload(_HERE, session.id, _BLOB.digest)
        assert await read_bytes(registry, _HERE, _BLOB.digest) == _BLOB.content

    @pytest.mark.parametrize("start", [0, 999, 1001, 2000])
    async def test_an_append_that_starts_elsewhere_changes_nothing(self, registry: Registry, start: int) -> None:
        """Repeated and skipping chunks are refused, and the session goes on."""
        session = await registry.start_upload(_HERE)
        session = await _append(registry, session.id, 0, 1000)
        with pytest.raises(RangeInvalid):
            await _append(registry, session.id, start, start + 500)
        assert (await registry.upload_status(_HERE, session.id)).offset == 1000
        session = await _append(registry, session.id, 1000, 3000)
        await registry.finish_upload(_HERE, session.id, _BLOB.digest)
        assert await read_bytes(registry, _HERE, _BLOB.digest) == _BLOB.content

    async def test_what_arrived_before_a_fault_is_kept(self, registry: Registry) -> None:
        """The source's exception goes on to the caller, and so can the upload (promise M7)."""

        async def failing() -> AsyncIterator[bytes]:
            yield _BLOB.content[:700]
            yield _BLOB.content[700:1000]
            raise ZeroDivisionError

        session = await registry.start_upload(_HERE)
        with pytest.raises(ZeroDivisionError):
            await registry.append_upload(_HERE, session.id, failing(), start=0)
        offset = await _settled_offset(registry, session.id)
        assert offset in (0, 700, 1000)
        session = await _append(registry, session.id, offset, 3000)
        await registry.finish_upload(_HERE, session.id, _BLOB.digest)
        assert await read_bytes(registry, _HERE, _BLOB.digest) == _BLOB.content

    async def test_a_wrong_digest_ends_the_session(self, registry: Registry) -> None:
        """No blob appears, under neither digest."""
        session = await registry.start_upload(_HERE)
        session = await _append(registry, session.id, 0, 3000)
        with pytest.raises(DigestInvalid):
            await registry.finish_upload(_HERE, session.id, blob("other").digest)
        with pytest.raises(BlobUploadUnknown):
            await registry.upload_status(_HERE, session.id)
        for digest in (_BLOB.digest, blob("other").digest):
            with pytest.raises(BlobUnknown):
                await registry.resolve_blob(_HERE, digest)

    @pytest.mark.parametrize("ending", ["finished", "cancelled"])
    async def test_an_ended_session_is_unknown(self, registry: Registry, ending: str) -> None:
        """Every verb says so; a late append cannot change the blob (rule A16)."""
        session = await registry.start_upload(_HERE)
        session = await _append(registry, session.id, 0, 3000)
        if ending == "finished":
            await registry.finish_upload(_HERE, session.id, _BLOB.digest)
        else:
            await registry.cancel_upload(_HERE, session.id)
        await self._assert_unknown(registry, session.id)
        if ending == "finished":
            assert await read_bytes(registry, _HERE, _BLOB.digest) == _BLOB.content
        else:
            with pytest.raises(BlobUnknown):
                await registry.resolve_blob(_HERE, _BLOB.digest)

    @pytest.mark.parametrize("upload", [_UNKNOWN, "x", "no-such-session"])
    async def test_a_session_that_never_was_is_unknown(self, registry: Registry, upload: str) -> None:
        """Whatever its id looks like."""
        await self._assert_unknown(registry, upload)

    async def test_a_session_belongs_to_its_repository(self, registry: Registry) -> None:
        """Rule A15: elsewhere it is unknown, and nothing happens to it."""
        session = await registry.start_upload(_HERE)
        session = await _append(registry, session.id, 0, 1000)
        with pytest.raises(BlobUploadUnknown):
            await registry.upload_status(_THERE, session.id)
        with pytest.raises(BlobUploadUnknown):
            await registry.append_upload(_THERE, session.id, chunked(b"x"), start=1000)
        with pytest.raises(BlobUploadUnknown):
            await registry.finish_upload(_THERE, session.id, _BLOB.digest)
        with pytest.raises(BlobUploadUnknown):
            await registry.cancel_upload(_THERE, session.id)
        assert (await registry.upload_status(_HERE, session.id)).offset == 1000

    async def test_an_unsupported_algorithm_is_refused_at_once(self, registry: Registry) -> None:
        """Before anything is sent."""
        with pytest.raises(DigestInvalid):
            await registry.start_upload(_HERE, algorithm="md5")

    async def test_of_two_appends_at_once_one_wins(self, registry: Registry) -> None:
        """Offset and bytes change together: the loser changes nothing."""
        session = await registry.start_upload(_HERE)
        attempts = [
            registry.append_upload(_HERE, session.id, chunked(bytes([number]) * 1000), start=0) for number in range(4)
        ]
        results = await asyncio.gather(*attempts, return_exceptions=True)
        winners = [number for number, result in enumerate(results) if isinstance(result, UploadStatus)]
        assert len(winners) == 1, results
        assert all(isinstance(result, (UploadStatus, RangeInvalid)) for result in results)
        item = blob("x")
        content = bytes([winners[0]]) * 1000
        digest = type(item.digest).of(content)
        await registry.finish_upload(_HERE, session.id, digest)
        assert await read_bytes(registry, _HERE, digest) == content

    async def test_of_two_closings_at_once_one_wins(self, registry: Registry) -> None:
        """The loser finds the session gone, or busy, and the blob is right."""
        session = await registry.start_upload(_HERE)
        session = await _append(registry, session.id, 0, 3000)
        closings = [registry.finish_upload(_HERE, session.id, _BLOB.digest) for _ in range(4)]
        results = await asyncio.gather(*closings, return_exceptions=True)
        failures = [result for result in results if isinstance(result, BaseException)]
        assert len(failures) == 3, results
        assert all(isinstance(failure, (BlobUploadUnknown, RangeInvalid)) for failure in failures)
        assert await read_bytes(registry, _HERE, _BLOB.digest) == _BLOB.content

    async def _assert_unknown(self, registry: Registry, upload: str) -> None:
        async def calls() -> AsyncIterator[OciError | None]:
            for call in (
                registry.upload_status(_HERE, upload),
                registry.append_upload(_HERE, upload, chunked(b"late"), start=3000),
                registry.finish_upload(_HERE, upload, _BLOB.digest),
                registry.cancel_upload(_HERE, upload),
            ):
                try:
                    await call
                except BlobUploadUnknown as exc:
                    yield exc
                else:
                    yield None

        assert all([error is not None async for error in calls()])


async def _settled_offset(registry: Registry, upload: str) -> int:
    """Where the session stands once the fault has reached the far end of the connection, if there is one."""
    offset = -1
    for _ in range(50):
        previous, offset = offset, (await registry.upload_status(_HERE, upload)).offset
        if previous == offset:
            break
        await asyncio.sleep(0.05)
    return offset
