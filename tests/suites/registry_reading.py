"""What every ``Reader`` keeps (interface.py). A suite is a base class: subclass it with a ``registry`` fixture."""

from __future__ import annotations

from typing import ClassVar

import httpx
import pytest
from moorage.registry.oci import BlobUnknown, Descriptor, Digest, ManifestUnknown, Registry, Tag
from moorage.registry.oci.media_types import OCTET_STREAM

from tests.content import Content, artifact, blob, empty_blob, gallery, image, push, push_blobs, read_bytes, repository

__all__ = ["ReaderSuite"]

_HERE, _THERE, _NOWHERE = repository("team/app"), repository("team/other"), repository("no/where")
_BLOB = blob("reading", 1000)
_ABSENT = Digest.of(b"never pushed")
_PINNED = {"content-type": "application/x-pinned", "content-disposition": "attachment"}


class ReaderSuite:
    """Finding and reading blobs and manifests."""

    LOCATES: ClassVar[bool] = False
    """Whether this registry knows an address for its blobs."""

    @pytest.mark.parametrize("for_push", [False, True], ids=["to read", "to push"])
    async def test_a_stored_blob_is_found(self, registry: Registry, for_push: bool) -> None:
        """Its descriptor says digest and size; the media type is only bytes."""
        await push_blobs(registry, _HERE, [_BLOB])
        expected = Descriptor(OCTET_STREAM, _BLOB.digest, 1000)
        assert await registry.resolve_blob(_HERE, _BLOB.digest, for_push=for_push) == expected

    @pytest.mark.parametrize("for_push", [False, True], ids=["to read", "to push"])
    async def test_an_absent_blob_is_unknown(self, registry: Registry, for_push: bool) -> None:
        """In a repository that exists, and in one that does not."""
        await push_blobs(registry, _HERE, [_BLOB])
        for name, digest in ((_HERE, _ABSENT), (_NOWHERE, _BLOB.digest)):
            with pytest.raises(BlobUnknown):
                await registry.resolve_blob(name, digest, for_push=for_push)

    async def test_a_blob_of_one_repository_is_unknown_in_another(self, registry: Registry) -> None:
        """Naming the digest of somebody else opens nothing (rule T7)."""
        await push_blobs(registry, _HERE, [_BLOB])
        await push(registry, _THERE, image())
        with pytest.raises(BlobUnknown):
            await registry.resolve_blob(_THERE, _BLOB.digest)
        with pytest.raises(BlobUnknown):
            await read_bytes(registry, _THERE, _BLOB.digest)

    @pytest.mark.parametrize(
        ("start", "stop"),
        [(0, None), (0, 1000), (0, 1), (0, 999), (1, None), (999, None), (10, 20), (999, 1000), (500, 5000)],
    )
    async def test_a_blob_is_read_whole_or_in_part(self, registry: Registry, start: int, stop: int | None) -> None:
        """Half-open, cut at the end, and always described as the whole."""
        await push_blobs(registry, _HERE, [_BLOB])
        async with registry.read_blob(_HERE, _BLOB.digest, start=start, stop=stop) as stream:
            assert stream.descriptor == Descriptor(OCTET_STREAM, _BLOB.digest, 1000)
            assert b"".join([chunk async for chunk in stream]) == _BLOB.content[start:stop]

    @pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
    async def test_the_empty_blob_is_a_blob(self, registry: Registry, algorithm: str) -> None:
        """Size 0 is found, and its stream just ends."""
        nothing = empty_blob(algorithm)
        await push_blobs(registry, _HERE, [nothing])
        assert (await registry.resolve_blob(_HERE, nothing.digest)).size == 0
        assert await read_bytes(registry, _HERE, nothing.digest) == b""

    async def test_a_large_blob_is_read_whole(self, registry: Registry) -> None:
        """More than one chunk of everybody."""
        large = blob("large", 5 * 2**20 + 1)
        await push_blobs(registry, _HERE, [large])
        assert await read_bytes(registry, _HERE, large.digest) == large.content
        assert (
            await read_bytes(registry, _HERE, large.digest, start=2**20 - 1, stop=3 * 2**20)
            == (large.content[2**20 - 1 : 3 * 2**20])
        )

    async def test_a_reader_may_stop_early(self, registry: Registry) -> None:
        """Leaving the block drops the rest, and the next reader gets everything."""
        large = blob("large", 3 * 2**20)
        await push_blobs(registry, _HERE, [large])
        async with registry.read_blob(_HERE, large.digest) as stream:
            async for _ in stream:
                break
        assert await read_bytes(registry, _HERE, large.digest) == large.content

    async def test_opening_an_absent_blob_fails_before_the_first_byte(self, registry: Registry) -> None:
        """The block is not entered."""
        await push_blobs(registry, _HERE, [_BLOB])
        for name, digest in ((_HERE, _ABSENT), (_NOWHERE, _BLOB.digest)):
            with pytest.raises(BlobUnknown):
                async with registry.read_blob(name, digest):
                    pytest.fail("the block was entered")

    async def test_a_blob_is_fetched_from_where_it_lies(self, registry: Registry) -> None:
        """By whoever has the URL, which tells it nothing else; whole or one range, with the headers asked for."""
        await push_blobs(registry, _HERE, [_BLOB])
        place = await registry.locate_blob(_HERE, _BLOB.digest, ttl=60, headers=_PINNED)
        assert (place is not None) is self.LOCATES
        if place is None:
            return
        assert place.descriptor == Descriptor(OCTET_STREAM, _BLOB.digest, 1000)
        assert place.url not in repr(place)
        async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
            whole = await client.get(place.url)
            part = await client.get(place.url, headers={"Range": "bytes=10-19"})
        assert (whole.status_code, whole.content) == (200, _BLOB.content)
        assert (part.status_code, part.content) == (206, _BLOB.content[10:20])
        assert part.headers["content-range"] == "bytes 10-19/1000"
        for answer in (whole, part):
            assert {name: answer.headers[name] for name in _PINNED} == _PINNED

    async def test_an_absent_blob_lies_nowhere(self, registry: Registry) -> None:
        """Who has an address for blobs has none for absent ones; who has none says so without looking."""
        await push_blobs(registry, _HERE, [_BLOB])
        for name, digest in ((_HERE, _ABSENT), (_NOWHERE, _BLOB.digest)):
            if self.LOCATES:
                with pytest.raises(BlobUnknown):
                    await registry.locate_blob(name, digest, ttl=60, headers=_PINNED)
            else:
                assert await registry.locate_blob(name, digest, ttl=60, headers=_PINNED) is None

    @pytest.mark.parametrize("content", [pytest.param(value, id=key) for key, value in gallery().items()])
    async def test_every_kind_of_manifest_comes_back_byte_for_byte(self, registry: Registry, content: Content) -> None:
        """By digest and by tag, with its own media type; blobs too."""
        pushed = await push(registry, _HERE, content, "tag")
        assert pushed == content.descriptor
        for reference in (content.digest, Tag("tag")):
            found = await registry.read_manifest(_HERE, reference)
            assert (found.content, found.media_type) == (content.manifest.content, content.manifest.media_type)
            resolved = await registry.resolve_manifest(_HERE, reference)
            assert (resolved.media_type, resolved.size) == (content.manifest.media_type, len(content.manifest.content))
        assert (await registry.resolve_manifest(_HERE, content.digest)).digest == content.digest
        for item in content.blobs:
            assert await read_bytes(registry, _HERE, item.digest) == item.content

    async def test_an_absent_manifest_is_unknown(self, registry: Registry) -> None:
        """By tag and by digest, in a repository that exists and in one that does not."""
        await push(registry, _HERE, image(), "tag")
        for name, reference in ((_HERE, Tag("other")), (_HERE, _ABSENT), (_NOWHERE, Tag("tag")), (_NOWHERE, _ABSENT)):
            with pytest.raises(ManifestUnknown):
                await registry.resolve_manifest(name, reference)
            with pytest.raises(ManifestUnknown):
                await registry.read_manifest(name, reference)

    async def test_a_manifest_of_one_repository_is_unknown_in_another(self, registry: Registry) -> None:
        """Repositories share bytes, never names."""
        await push(registry, _HERE, image(), "tag")
        await push(registry, _THERE, artifact(), "other")
        for reference in (image().digest, Tag("tag")):
            with pytest.raises(ManifestUnknown):
                await registry.read_manifest(_THERE, reference)

    async def test_a_manifest_is_no_blob_and_a_blob_no_manifest(self, registry: Registry) -> None:
        """The two kinds do not leak into each other."""
        content = image()
        await push(registry, _HERE, content)
        with pytest.raises(BlobUnknown):
            await registry.resolve_blob(_HERE, content.digest)
        with pytest.raises(ManifestUnknown):
            await registry.resolve_manifest(_HERE, content.blobs[0].digest)
