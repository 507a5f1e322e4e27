"""What every ``Writer`` keeps (interface.py). A suite is a base class: subclass it with a ``registry`` fixture."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from moorage.registry.oci import (
    BlobUnknown,
    Descriptor,
    Digest,
    DigestInvalid,
    Manifest,
    ManifestBlobUnknown,
    ManifestInvalid,
    ManifestUnknown,
    OciError,
    PreconditionFailed,
    Registry,
    RepositoryName,
    SizeInvalid,
    Tag,
    TagCondition,
)
from moorage.registry.oci.media_types import OCI_IMAGE, OCTET_STREAM

from tests.content import (
    Content,
    artifact,
    blob,
    chunked,
    image,
    index,
    json_bytes,
    nondistributable,
    push,
    push_blobs,
    read_bytes,
    repository,
)

__all__ = ["MountSuite", "WriterSuite"]

_HERE, _THERE, _ELSEWHERE = repository("team/app"), repository("team/other"), repository("else/where")
_BLOB = blob("writing", 1000)
_TAG = Tag("latest")


class WriterSuite:
    """Putting whole blobs and manifests."""

    @pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
    @pytest.mark.parametrize("size", [1, 7, 1000, 5000])
    async def test_a_blob_is_stored_however_it_is_cut(self, registry: Registry, algorithm: str, size: int) -> None:
        """The answer describes what is now stored."""
        item = blob("cut", 1000, algorithm=algorithm)
        stored = await registry.push_blob(_HERE, item.descriptor, chunked(item.content, size))
        assert (stored.digest, stored.size) == (item.digest, 1000)
        assert await read_bytes(registry, _HERE, item.digest) == item.content

    async def test_pushing_a_blob_twice_is_pushing_it_once(self, registry: Registry) -> None:
        """Idempotent, also at the same time."""
        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(push_blobs(registry, _HERE, [_BLOB]))
        await push_blobs(registry, _HERE, [_BLOB])
        assert await read_bytes(registry, _HERE, _BLOB.digest) == _BLOB.content

    @pytest.mark.parametrize(
        ("content", "error"),
        [
            pytest.param(_BLOB.content[:-1] + b"\0", DigestInvalid, id="other bytes"),
            pytest.param(_BLOB.content[:-1], SizeInvalid, id="one byte short"),
            pytest.param(_BLOB.content + b"\0", SizeInvalid, id="one byte long"),
            pytest.param(b"", SizeInvalid, id="nothing"),
        ],
    )
    async def test_content_that_is_not_what_it_says_is_refused(
        self, registry: Registry, content: bytes, error: type[OciError]
    ) -> None:
        """And nothing appears."""
        with pytest.raises(error):
            await registry.push_blob(_HERE, _BLOB.descriptor, chunked(content))
        for digest in (_BLOB.digest, Digest.of(content)):
            with pytest.raises(BlobUnknown):
                await registry.resolve_blob(_HERE, digest)

    async def test_a_failing_source_leaves_nothing(self, registry: Registry) -> None:
        """The caller sees its own exception, and no blob appears."""

        async def failing() -> AsyncIterator[bytes]:
            yield _BLOB.content[:500]
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await registry.push_blob(_HERE, _BLOB.descriptor, failing())
        with pytest.raises(BlobUnknown):
            await registry.resolve_blob(_HERE, _BLOB.digest)
        await push_blobs(registry, _HERE, [_BLOB])

    async def test_tags_name_the_manifest_they_were_pushed_with(self, registry: Registry) -> None:
        """Several at once; case matters; the answer describes the manifest."""
        content = image()
        assert await push(registry, _HERE, content, "a", "A", "a.b-c_1") == content.descriptor
        for tag in ("a", "A", "a.b-c_1"):
            assert (await registry.resolve_manifest(_HERE, Tag(tag))).digest == content.digest

    async def test_a_tag_moves_to_the_manifest_pushed_last(self, registry: Registry) -> None:
        """The old manifest stays, by its digest."""
        for seed in ("one", "two", "one"):
            content = image(seed)
            await push(registry, _HERE, content, "latest")
            assert (await registry.read_manifest(_HERE, _TAG)).digest == content.digest
        assert (await registry.resolve_manifest(_HERE, image("two").digest)).digest == image("two").digest

    async def test_a_manifest_without_tag_is_found_by_its_digest(self, registry: Registry) -> None:
        """Pushing by digest makes no tag."""
        content = image()
        await push(registry, _HERE, content)
        assert (await registry.resolve_manifest(_HERE, content.digest)) == content.descriptor

    @pytest.mark.parametrize(
        "document",
        [
            pytest.param(b"", id="nothing"),
            pytest.param(b"{", id="broken JSON"),
            pytest.param(b"[]", id="no object"),
            pytest.param(json_bytes({"schemaVersion": 2}), id="no config"),
            pytest.param(image().manifest.content[:-1] + b', "manifests": []}', id="image and index"),
            pytest.param(image().manifest.content.replace(b'"size": 1000', b'"size": -1'), id="negative size"),
        ],
    )
    async def test_a_document_that_breaks_a_rule_is_refused(self, registry: Registry, document: bytes) -> None:
        """And neither it nor its tag appears."""
        await push_blobs(registry, _HERE, image().blobs)
        manifest = Manifest(OCI_IMAGE, document, Digest.of(document))
        with pytest.raises(ManifestInvalid):
            await registry.push_manifest(_HERE, manifest, tags=[_TAG])
        for reference in (_TAG, manifest.digest):
            with pytest.raises(ManifestUnknown):
                await registry.resolve_manifest(_HERE, reference)

    async def test_a_manifest_under_a_wrong_digest_is_refused(self, registry: Registry) -> None:
        """Not stored under either digest."""
        content = image()
        await push_blobs(registry, _HERE, content.blobs)
        wrong = Manifest(OCI_IMAGE, content.manifest.content + b"  ", content.digest)
        with pytest.raises(DigestInvalid):
            await registry.push_manifest(_HERE, wrong)
        for digest in (content.digest, Digest.of(wrong.content)):
            with pytest.raises(ManifestUnknown):
                await registry.resolve_manifest(_HERE, digest)

    @pytest.mark.parametrize("absent", [0, 1, 2], ids=["config", "first layer", "last layer"])
    async def test_a_manifest_whose_blob_is_absent_is_refused(self, registry: Registry, absent: int) -> None:
        """Whichever it is; nothing appears; and once it is there the manifest is taken."""
        content = image()
        await push_blobs(registry, _HERE, [item for number, item in enumerate(content.blobs) if number != absent])
        with pytest.raises(ManifestBlobUnknown):
            await registry.push_manifest(_HERE, content.manifest, tags=[_TAG])
        for reference in (_TAG, content.digest):
            with pytest.raises(ManifestUnknown):
                await registry.resolve_manifest(_HERE, reference)
        await push(registry, _HERE, content, "latest")

    async def test_an_index_whose_child_is_absent_is_refused(self, registry: Registry) -> None:
        """All children come first."""
        one, two = image("one"), image("two")
        await push(registry, _HERE, one)
        with pytest.raises(ManifestBlobUnknown):
            await registry.push_manifest(_HERE, index([one, two]).manifest, tags=[_TAG])
        with pytest.raises(ManifestUnknown):
            await registry.resolve_manifest(_HERE, _TAG)

    async def test_a_manifest_opens_no_blob_of_another_repository(self, registry: Registry) -> None:
        """Naming somebody else's digest neither passes nor makes it readable (rule T7)."""
        content = image()
        await push(registry, _THERE, content)
        with pytest.raises(ManifestBlobUnknown):
            await registry.push_manifest(_HERE, content.manifest)
        for item in content.blobs:
            with pytest.raises(BlobUnknown):
                await registry.resolve_blob(_HERE, item.digest)

    async def test_foreign_layers_need_not_be_there(self, registry: Registry) -> None:
        """Non-distributable layers are named, never pushed."""
        await push(registry, _HERE, nondistributable(), "latest")
        foreign = json.loads(nondistributable().manifest.content)["layers"][-1]["digest"]
        with pytest.raises(BlobUnknown):
            await registry.resolve_blob(_HERE, Digest.parse(foreign))

    async def test_a_subject_need_not_be_there(self, registry: Registry) -> None:
        """Signatures may come before what they sign."""
        await push(registry, _HERE, artifact(subject=image("subject").descriptor))
        with pytest.raises(ManifestUnknown):
            await registry.resolve_manifest(_HERE, image("subject").digest)

    async def test_a_tag_is_created_only_once_where_it_must_be_absent(self, registry: Registry) -> None:
        """If-None-Match: the second writer is refused and changes nothing."""
        await self._put(registry, image("one"), TagCondition(absent=True))
        with pytest.raises(PreconditionFailed):
            await self._put(registry, image("two"), TagCondition(absent=True))
        assert (await registry.resolve_manifest(_HERE, _TAG)).digest == image("one").digest

    async def test_a_tag_moves_only_from_the_value_it_must_have(self, registry: Registry) -> None:
        """If-Match: a stale writer is refused and changes nothing."""
        await self._put(registry, image("one"), TagCondition())
        await self._put(registry, image("two"), TagCondition(digest=image("one").digest))
        with pytest.raises(PreconditionFailed):
            await self._put(registry, image("three"), TagCondition(digest=image("one").digest))
        assert (await registry.resolve_manifest(_HERE, _TAG)).digest == image("two").digest

    async def test_an_absent_tag_has_no_value_to_match(self, registry: Registry) -> None:
        """If-Match on a tag that does not exist is refused."""
        with pytest.raises(PreconditionFailed):
            await self._put(registry, image("one"), TagCondition(digest=image("one").digest))
        with pytest.raises(ManifestUnknown):
            await registry.resolve_manifest(_HERE, _TAG)

    async def test_of_many_creators_exactly_one_wins(self, registry: Registry) -> None:
        """Rule A4: create or update is decided by the atomic write."""
        contents = [image(number) for number in range(6)]
        for content in contents:
            await push_blobs(registry, _HERE, content.blobs)
        pushes = (self._put(registry, content, TagCondition(absent=True)) for content in contents)
        results = await asyncio.gather(*pushes, return_exceptions=True)
        winners = [result for result in results if isinstance(result, Descriptor)]
        assert len(winners) == 1, results
        assert all(isinstance(result, (Descriptor, PreconditionFailed)) for result in results)
        assert (await registry.resolve_manifest(_HERE, _TAG)).digest == winners[0].digest

    async def test_of_many_movers_from_one_value_exactly_one_wins(self, registry: Registry) -> None:
        """Compare-and-swap: no update is lost (promise M4)."""
        await self._put(registry, image("start"), TagCondition())
        contents = [image(number) for number in range(6)]
        for content in contents:
            await push_blobs(registry, _HERE, content.blobs)
        condition = TagCondition(digest=image("start").digest)
        pushes = (self._put(registry, content, condition) for content in contents)
        results = await asyncio.gather(*pushes, return_exceptions=True)
        winners = [result for result in results if isinstance(result, Descriptor)]
        assert len(winners) == 1, results
        assert (await registry.resolve_manifest(_HERE, _TAG)).digest == winners[0].digest

    async def test_concurrent_pushes_of_one_image_all_succeed(self, registry: Registry) -> None:
        """Parallel CI jobs push the same thing."""
        content = index([image("one"), image("two")])
        async with asyncio.TaskGroup() as group:
            for number in range(4):
                group.create_task(push(registry, _HERE, content, "latest", f"job-{number}"))
        for tag in ("latest", "job-0", "job-3"):
            assert (await registry.read_manifest(_HERE, Tag(tag))).content == content.manifest.content

    async def _put(self, registry: Registry, content: Content, condition: TagCondition) -> Descriptor:
        await push_blobs(registry, _HERE, content.blobs)
        return await registry.push_manifest(_HERE, content.manifest, tags=[_TAG], condition=condition)


class MountSuite:
    """Making a blob of one repository readable in another."""

    @pytest.mark.parametrize("source", [_THERE, None], ids=["from its repository", "from any"])
    @pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
    async def test_a_mounted_blob_is_readable_in_both(
        self, registry: Registry, source: RepositoryName | None, algorithm: str
    ) -> None:
        """No bytes move, and the answer describes the blob."""
        item = blob("mounted", 1000, algorithm=algorithm)
        await push_blobs(registry, _THERE, [item])
        mounted = await registry.mount_blob(_HERE, item.digest, source=source)
        assert mounted == Descriptor(OCTET_STREAM, item.digest, 1000)
        for name in (_HERE, _THERE):
            assert await read_bytes(registry, name, item.digest) == item.content

    async def test_a_mount_outlives_its_source(self, registry: Registry) -> None:
        """The two names are independent."""
        await push_blobs(registry, _THERE, [_BLOB])
        await registry.mount_blob(_HERE, _BLOB.digest, source=_THERE)
        await registry.delete_blob(_THERE, _BLOB.digest)
        assert await read_bytes(registry, _HERE, _BLOB.digest) == _BLOB.content

    async def test_mounting_twice_is_mounting_once(self, registry: Registry) -> None:
        """Also onto itself."""
        await push_blobs(registry, _THERE, [_BLOB])
        for target in (_HERE, _HERE, _THERE):
            await registry.mount_blob(target, _BLOB.digest, source=_THERE)
        assert await read_bytes(registry, _HERE, _BLOB.digest) == _BLOB.content

    @pytest.mark.parametrize("source", [_THERE, None], ids=["from its repository", "from any"])
    async def test_a_blob_that_is_nowhere_is_not_mounted(
        self, registry: Registry, source: RepositoryName | None
    ) -> None:
        """And does not appear."""
        with pytest.raises(BlobUnknown):
            await registry.mount_blob(_HERE, _BLOB.digest, source=source)
        with pytest.raises(BlobUnknown):
            await registry.resolve_blob(_HERE, _BLOB.digest)

    async def test_a_source_that_lacks_the_blob_is_not_replaced_by_another(self, registry: Registry) -> None:
        """Who names a repository means that one."""
        await push_blobs(registry, _ELSEWHERE, [_BLOB])
        with pytest.raises(BlobUnknown):
            await registry.mount_blob(_HERE, _BLOB.digest, source=_THERE)

    async def test_a_mounted_blob_serves_a_manifest(self, registry: Registry) -> None:
        """It counts like one that was pushed."""
        content = image()
        await push(registry, _THERE, content)
        for item in content.blobs:
            await registry.mount_blob(_HERE, item.digest, source=_THERE)
        await registry.push_manifest(_HERE, content.manifest, tags=[_TAG])
        assert (await registry.read_manifest(_HERE, _TAG)).content == content.manifest.content
