"""What every ``Deleter`` keeps (interface.py). A suite is a base class: subclass it with a ``registry`` fixture."""

from __future__ import annotations

import pytest
from moorage.registry.oci import BlobReferenced, BlobUnknown, Digest, ManifestUnknown, Registry, Tag

from tests.content import artifact, blob, image, index, push, push_blobs, read_bytes, repository

__all__ = ["DeleterSuite"]

_HERE, _THERE, _NOWHERE = repository("team/app"), repository("team/other"), repository("no/where")
_BLOB = blob("deleted", 1000)


class DeleterSuite:
    """Removing names."""

    async def test_a_deleted_blob_is_unknown_at_once(self, registry: Registry) -> None:
        """Promise M9: no later read returns it."""
        await push_blobs(registry, _HERE, [_BLOB])
        await registry.delete_blob(_HERE, _BLOB.digest)
        with pytest.raises(BlobUnknown):
            await registry.resolve_blob(_HERE, _BLOB.digest)
        with pytest.raises(BlobUnknown):
            await read_bytes(registry, _HERE, _BLOB.digest)
        with pytest.raises(BlobUnknown):
            await registry.delete_blob(_HERE, _BLOB.digest)

    async def test_a_deleted_blob_may_come_back(self, registry: Registry) -> None:
        """Deleting leaves no trace that hides a new push."""
        for _ in range(3):
            await push_blobs(registry, _HERE, [_BLOB])
            assert await read_bytes(registry, _HERE, _BLOB.digest) == _BLOB.content
            await registry.delete_blob(_HERE, _BLOB.digest)

    async def test_a_blob_is_deleted_in_one_repository_only(self, registry: Registry) -> None:
        """Others keep it."""
        for name in (_HERE, _THERE):
            await push_blobs(registry, name, [_BLOB])
        await registry.delete_blob(_HERE, _BLOB.digest)
        assert await read_bytes(registry, _THERE, _BLOB.digest) == _BLOB.content

    async def test_an_absent_blob_cannot_be_deleted(self, registry: Registry) -> None:
        """In a repository that exists, and in one that does not."""
        await push_blobs(registry, _THERE, [_BLOB])
        for name in (_HERE, _NOWHERE):
            with pytest.raises(BlobUnknown):
                await registry.delete_blob(name, _BLOB.digest)

    async def test_a_needed_blob_is_not_deleted(self, registry: Registry) -> None:
        """While a manifest of the repository references it, and only so long."""
        content = image()
        await push(registry, _HERE, content)
        for item in content.blobs:
            with pytest.raises(BlobReferenced) as caught:
                await registry.delete_blob(_HERE, item.digest)
            assert str(content.digest) in str(caught.value.detail)
            assert await read_bytes(registry, _HERE, item.digest) == item.content
        await registry.delete_manifest(_HERE, content.digest)
        await registry.delete_blob(_HERE, content.blobs[0].digest)

    async def test_a_blob_shared_by_two_manifests_is_needed_by_either(self, registry: Registry) -> None:
        """The last one decides."""
        one, two = artifact("one"), artifact("two")  # both have the config {}
        await push(registry, _HERE, one)
        await push(registry, _HERE, two)
        await registry.delete_manifest(_HERE, one.digest)
        with pytest.raises(BlobReferenced):
            await registry.delete_blob(_HERE, two.blobs[0].digest)
        await registry.delete_manifest(_HERE, two.digest)
        await registry.delete_blob(_HERE, two.blobs[0].digest)

    async def test_a_deleted_manifest_takes_its_tags_along(self, registry: Registry) -> None:
        """All that name it, and no others."""
        one, two = image("one"), image("two")
        await push(registry, _HERE, one, "a", "b", "moved")
        await push(registry, _HERE, two, "c", "moved")
        await registry.delete_manifest(_HERE, one.digest)
        for reference in (one.digest, Tag("a"), Tag("b")):
            with pytest.raises(ManifestUnknown):
                await registry.resolve_manifest(_HERE, reference)
        assert [str(tag) async for tag in registry.list_tags(_HERE)] == ["c", "moved"]
        assert (await registry.resolve_manifest(_HERE, Tag("moved"))).digest == two.digest

    async def test_a_deleted_manifest_is_gone_however_often_it_was_pushed(self, registry: Registry) -> None:
        """And may come back."""
        content = image()
        for _ in range(2):
            for tag in ("a", "b", "a"):
                await push(registry, _HERE, content, tag)
            await registry.delete_manifest(_HERE, content.digest)
            with pytest.raises(ManifestUnknown):
                await registry.read_manifest(_HERE, content.digest)

    async def test_an_absent_manifest_cannot_be_deleted(self, registry: Registry) -> None:
        """In a repository that exists, and in one that does not."""
        await push(registry, _THERE, image())
        for name, digest in ((_THERE, Digest.of(b"no")), (_HERE, image().digest), (_NOWHERE, image().digest)):
            with pytest.raises(ManifestUnknown):
                await registry.delete_manifest(name, digest)

    async def test_a_manifest_is_deleted_in_one_repository_only(self, registry: Registry) -> None:
        """Others keep it with its tags."""
        for name in (_HERE, _THERE):
            await push(registry, name, image(), "latest")
        await registry.delete_manifest(_HERE, image().digest)
        assert (await registry.read_manifest(_THERE, Tag("latest"))).content == image().manifest.content

    async def test_children_stay_when_their_index_is_deleted(self, registry: Registry) -> None:
        """They are manifests of their own."""
        child = image()
        await push(registry, _HERE, index([child]), "latest")
        await registry.delete_manifest(_HERE, index([child]).digest)
        assert (await registry.read_manifest(_HERE, child.digest)).content == child.manifest.content

    async def test_a_deleted_tag_leaves_its_manifest(self, registry: Registry) -> None:
        """And the other tags."""
        content = image()
        await push(registry, _HERE, content, "a", "b")
        await registry.delete_tag(_HERE, Tag("a"))
        with pytest.raises(ManifestUnknown):
            await registry.resolve_manifest(_HERE, Tag("a"))
        assert (await registry.resolve_manifest(_HERE, Tag("b"))).digest == content.digest
        assert (await registry.resolve_manifest(_HERE, content.digest)).digest == content.digest
        assert [str(tag) async for tag in registry.list_tags(_HERE)] == ["b"]

    async def test_a_deleted_tag_may_come_back(self, registry: Registry) -> None:
        """Naming something else, too."""
        for seed in ("one", "two", "one"):
            await push(registry, _HERE, image(seed), "latest")
            assert (await registry.resolve_manifest(_HERE, Tag("latest"))).digest == image(seed).digest
            await registry.delete_tag(_HERE, Tag("latest"))

    async def test_an_absent_tag_cannot_be_deleted(self, registry: Registry) -> None:
        """Not twice either."""
        await push(registry, _HERE, image(), "a")
        await registry.delete_tag(_HERE, Tag("a"))
        for name, tag in ((_HERE, "a"), (_HERE, "never"), (_NOWHERE, "a")):
            with pytest.raises(ManifestUnknown):
                await registry.delete_tag(name, Tag(tag))

    async def test_a_deleted_referrer_leaves_the_list(self, registry: Registry) -> None:
        """At once, and others stay."""
        subject = image()
        one, two = artifact("one", subject=subject.descriptor), artifact("two", subject=subject.descriptor)
        for content in (subject, one, two):
            await push(registry, _HERE, content)
        await registry.delete_manifest(_HERE, one.digest)
        assert [entry.digest async for entry in registry.list_referrers(_HERE, subject.digest)] == [two.digest]

    async def test_referrers_outlive_their_subject(self, registry: Registry) -> None:
        """A signature is a manifest of its own, and is still found under the digest it signs."""
        subject = image()
        signature = artifact(subject=subject.descriptor)
        for content in (subject, signature):
            await push(registry, _HERE, content)
        await registry.delete_manifest(_HERE, subject.digest)
        assert [entry.digest async for entry in registry.list_referrers(_HERE, subject.digest)] == [signature.digest]
