"""``ImageLayout`` keeps the protocol, except that the repositories of a layout share their blobs."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
from pathlib import Path
from typing import Any

import pytest
from moorage.puller.errors import LayoutInvalid
from moorage.puller.layout import ImageLayout
from moorage.puller.layout_files import REF_NAME, LayoutFiles
from moorage.puller.layout_names import FullReferences
from moorage.puller.layout_uploads import LayoutUploads
from moorage.registry.oci import (
    BlobReferenced,
    BlobUnknown,
    BlobUploadUnknown,
    ManifestUnknown,
    NameUnknown,
    Registry,
    RepositoryName,
    Tag,
    Unsupported,
)

from tests.content import blob, chunked, image, index, push, push_blobs, read_bytes, repository
from tests.suites.registry_suite import RegistrySuite

_HERE, _THERE, _ELSEWHERE = repository("team/app"), repository("team/other"), repository("else/where")
_BLOB = blob("layout", 1000)


@pytest.fixture
def files(tmp_path: Path) -> LayoutFiles:
    return LayoutFiles(str(tmp_path / "store"), create=True)


def _write(files: LayoutFiles, path: str, content: bytes) -> None:
    Path(files.root, path).write_bytes(content)


def _read_index(files: LayoutFiles) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(Path(files.root, "index.json").read_bytes())
    return document


def _names(files: LayoutFiles) -> list[str | None]:
    """The names in ``index.json``, as another program sees them."""
    return [entry.get("annotations", {}).get(REF_NAME) for entry in _read_index(files)["manifests"]]


class TestImageLayout(RegistrySuite):
    """The suite over the images of one registry; what differs is told by the tests of the same names below."""

    @pytest.fixture
    def registry(self, files: LayoutFiles) -> Registry:
        return ImageLayout.of_registry(files, "localhost:5000")

    async def test_an_absent_blob_is_unknown(self, registry: Registry) -> None:  # type: ignore[override]
        """A blob that is nowhere in the layout."""
        with pytest.raises(BlobUnknown):
            await registry.resolve_blob(_HERE, _BLOB.digest)

    async def test_a_blob_of_one_repository_is_unknown_in_another(self, registry: Registry) -> None:
        """Not here: blobs belong to the layout, so another repository reads them."""
        await push_blobs(registry, _HERE, [_BLOB])
        assert await read_bytes(registry, _THERE, _BLOB.digest) == _BLOB.content

    async def test_opening_an_absent_blob_fails_before_the_first_byte(self, registry: Registry) -> None:
        """The block is not entered."""
        with pytest.raises(BlobUnknown):
            async with registry.read_blob(_HERE, _BLOB.digest):
                pytest.fail("the block was entered")

    async def test_a_manifest_is_no_blob_and_a_blob_no_manifest(self, registry: Registry) -> None:
        """In a layout a manifest is a blob too; a blob is still no manifest."""
        content = image()
        await push(registry, _HERE, content)
        assert (await registry.resolve_blob(_HERE, content.digest)).size == content.descriptor.size
        with pytest.raises(ManifestUnknown):
            await registry.resolve_manifest(_HERE, content.blobs[0].digest)

    async def test_a_manifest_opens_no_blob_of_another_repository(self, registry: Registry) -> None:
        """Not here: what the layout holds may be referenced."""
        await push(registry, _THERE, image())
        await registry.push_manifest(_HERE, image().manifest, tags=[Tag("latest")])

    async def test_a_mount_outlives_its_source(self, registry: Registry) -> None:
        """Not here: there is one blob, and deleting it deletes it."""
        await push_blobs(registry, _THERE, [_BLOB])
        await registry.mount_blob(_HERE, _BLOB.digest, source=_THERE)
        await registry.delete_blob(_THERE, _BLOB.digest)
        with pytest.raises(BlobUnknown):
            await registry.resolve_blob(_HERE, _BLOB.digest)

    async def test_a_source_that_lacks_the_blob_is_not_replaced_by_another(self, registry: Registry) -> None:
        """Not here: every repository of a layout has every blob."""
        await push_blobs(registry, _ELSEWHERE, [_BLOB])
        assert (await registry.mount_blob(_HERE, _BLOB.digest, source=_THERE)).digest == _BLOB.digest

    async def test_a_blob_is_deleted_in_one_repository_only(self, registry: Registry) -> None:
        """Not here: it is refused while an image of any repository needs it."""
        await push(registry, _THERE, image())
        with pytest.raises(BlobReferenced):
            await registry.delete_blob(_HERE, image().blobs[0].digest)

    async def test_an_absent_blob_cannot_be_deleted(self, registry: Registry) -> None:
        """A blob that is nowhere in the layout."""
        with pytest.raises(BlobUnknown):
            await registry.delete_blob(_HERE, _BLOB.digest)


async def test_an_index_is_the_only_name_of_its_children(files: LayoutFiles) -> None:
    """While it is pushed its children have entries of their own; afterwards only the tag is left."""
    layout = ImageLayout.of_registry(files, "localhost:5000")
    await push(layout, _HERE, index([image("one"), image("two")]), "latest")
    assert _names(files) == ["localhost:5000/team/app:latest"]


async def test_a_child_goes_with_its_index(files: LayoutFiles) -> None:
    """Deleting it alone is refused, because the index could not be read whole any more."""
    layout = ImageLayout.of_registry(files, "localhost:5000")
    await push(layout, _HERE, index([image("one")]), "latest")
    with pytest.raises(Unsupported):
        await layout.delete_manifest(_HERE, image("one").digest)


async def test_a_replaced_image_stays_under_its_digest(files: LayoutFiles) -> None:
    """Moving a tag takes no content along."""
    layout = ImageLayout.of_registry(files, "localhost:5000")
    await push(layout, _HERE, image("one"), "latest")
    await push(layout, _HERE, image("two"), "latest")
    assert set(_names(files)) == {"localhost:5000/team/app:latest", f"localhost:5000/team/app@{image('one').digest}"}


async def test_views_do_not_see_each_other(files: LayoutFiles) -> None:
    """The same repository of two registries is two repositories."""
    one, two = ImageLayout.of_registry(files, "localhost:5000"), ImageLayout.of_registry(files, "127.0.0.1:5000")
    await push(one, _HERE, image("one"), "latest")
    assert [name async for name in two.list_repositories()] == []
    with pytest.raises(NameUnknown):
        _ = [tag async for tag in two.list_tags(_HERE)]


async def test_bare_tags_are_one_repository(files: LayoutFiles) -> None:
    """As other tools write layouts: the name of an entry is its tag."""
    layout = ImageLayout.of_tags(files, _HERE)
    await push(layout, _HERE, image(), "v1")
    assert _names(files) == ["v1"]
    assert [str(tag) async for tag in layout.list_tags(_HERE)] == ["v1"]
    with pytest.raises(NameUnknown):
        await push(layout, RepositoryName("other"), image(), "v1")


async def test_a_damaged_blob_is_not_read_as_good(files: LayoutFiles) -> None:
    """Every whole read is hashed."""
    layout = ImageLayout.of_registry(files, "localhost:5000")
    await push(layout, _HERE, image(), "latest")
    victim = image().blobs[1]
    _write(files, files.blob_path(victim.digest), bytes(victim.descriptor.size))
    with pytest.raises(Exception, match="does not have its digest"):
        await read_bytes(layout, _HERE, victim.digest)


async def test_unknown_members_of_the_index_are_kept(files: LayoutFiles) -> None:
    """Other tools' annotations survive our edits."""
    document = {**_read_index(files), "annotations": {"org.example.note": "kept"}}
    _write(files, "index.json", json.dumps(document).encode())
    await push(ImageLayout.of_registry(files, "localhost:5000"), _HERE, image(), "latest")
    assert _read_index(files)["annotations"] == {"org.example.note": "kept"}


async def test_nothing_unfinished_stays_behind(files: LayoutFiles) -> None:
    """After pushes that worked and one that failed, only whole blobs and the index are there."""
    layout = ImageLayout.of_registry(files, "localhost:5000")
    await push(layout, _HERE, image(), "latest")
    with pytest.raises(Exception, match="does not have its digest"):
        await push_blobs(layout, _HERE, [type(_BLOB)(_BLOB.descriptor, bytes(1000))])
    assert os.listdir(os.path.join(files.root, "staging")) == []
    assert sorted(os.listdir(files.root)) == ["blobs", "index.json", "oci-layout", "staging"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        pytest.param("oci-layout", b'{"imageLayoutVersion": "2.0.0"}', id="newer version"),
        pytest.param("oci-layout", b"", id="empty marker"),
        pytest.param("index.json", b'{"manifests": [{}]}', id="entry without digest"),
        pytest.param("index.json", b"[]", id="index is no object"),
    ],
)
async def test_what_is_no_layout_is_refused(files: LayoutFiles, name: str, content: bytes) -> None:
    """With one error class, whatever is wrong."""
    _write(files, name, content)
    with pytest.raises(LayoutInvalid):
        await ImageLayout.of_registry(LayoutFiles(files.root), "localhost:5000").resolve_manifest(_HERE, Tag("x"))


def test_a_directory_that_is_no_layout_is_not_made_one(tmp_path: Path) -> None:
    """Without ``create`` nothing is written."""
    with pytest.raises(LayoutInvalid):
        LayoutFiles(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


async def test_an_append_that_comes_too_late_cannot_change_the_blob(
    files: LayoutFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process closes the upload between our opening its file and our locking it (rule A16)."""
    layout = ImageLayout.of_registry(files, "localhost:5000")
    session = await layout.start_upload(_HERE)
    await layout.append_upload(_HERE, session.id, chunked(_BLOB.content))
    flock = fcntl.flock

    def lock_late(descriptor: int, flags: int) -> None:
        monkeypatch.setattr(fcntl, "flock", flock)
        LayoutUploads(files, repr(FullReferences("localhost:5000"))).finish(_HERE, session.id, _BLOB.digest)
        flock(descriptor, flags)

    monkeypatch.setattr(fcntl, "flock", lock_late)
    with pytest.raises(BlobUploadUnknown):
        await layout.append_upload(_HERE, session.id, chunked(b"late"))
    assert await read_bytes(layout, _HERE, _BLOB.digest) == _BLOB.content


async def test_many_writers_lose_no_tag(files: LayoutFiles) -> None:
    """The index changes under a lock."""
    layout = ImageLayout.of_registry(files, "localhost:5000")
    await push(layout, _HERE, image())
    async with asyncio.TaskGroup() as group:
        for number in range(20):
            group.create_task(layout.push_manifest(_HERE, image().manifest, tags=[Tag(f"t{number}")]))
    assert len([tag async for tag in layout.list_tags(_HERE)]) == 20


async def test_a_change_that_has_begun_is_done_when_its_caller_is_cancelled(files: LayoutFiles) -> None:
    """Nothing happens behind the back of whoever goes on after the cancellation."""
    layout, content = ImageLayout.of_registry(files, "localhost:5000"), image()
    await push_blobs(layout, _HERE, content.blobs)
    folder = os.open(files.root, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)  # another process changes the index
    pushing = asyncio.create_task(layout.push_manifest(_HERE, content.manifest, tags=[Tag("latest")]))
    await asyncio.sleep(0.05)
    pushing.cancel()
    await asyncio.sleep(0.05)
    assert not pushing.done()
    os.close(folder)
    with pytest.raises(asyncio.CancelledError):
        await pushing
    assert _names(files) == ["localhost:5000/team/app:latest"]
    assert os.listdir(os.path.join(files.root, "staging")) == []
