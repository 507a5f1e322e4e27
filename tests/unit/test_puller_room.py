"""Whether what is to be fetched fits the disk is known from the manifest, and told before anything is fetched."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from moorage.puller.errors import StoreFull
from moorage.puller.fetch.ingest import missing_bytes
from moorage.puller.layout_files import LayoutFiles
from moorage.puller.pull import pull_image
from moorage.puller.remote import RemoteRegistry
from moorage.puller.store import Store
from moorage.registry.oci import MAX_SIZE, Descriptor, Digest, Manifest, Reference
from moorage.registry.oci.media_types import OCI_CONFIG, OCI_IMAGE, OCI_LAYER

from tests.content import json_bytes
from tests.scripted import Reply, scripted

_MIB = 1024 * 1024


async def test_a_pull_that_cannot_fit_fetches_nothing(tmp_path: Path) -> None:
    """The error names the store, what is needed and what is free; the store stays empty."""
    layer = Descriptor(OCI_LAYER, Digest.of(b"huge"), MAX_SIZE)
    config = Descriptor(OCI_CONFIG, Digest.of(b"{}"), 2)
    document = {"schemaVersion": 2, "mediaType": OCI_IMAGE, "config": config.to_json(), "layers": [layer.to_json()]}
    manifest = Manifest.of(json_bytes(document), OCI_IMAGE)
    reply = Reply(200, manifest.content, {"content-type": OCI_IMAGE})
    store = Store(str(tmp_path / "store"))
    async with scripted(lambda seen: reply) as server, RemoteRegistry.connect(server.host) as remote:
        with pytest.raises(StoreFull) as caught:
            await pull_image(remote, Reference.parse(f"{server.host}/a:v1"), store)
        assert [seen.target for seen in server.seen] == ["/v2/a/manifests/v1"]
    assert (caught.value.needed, 0 < caught.value.free < MAX_SIZE) == (MAX_SIZE + 2, True)
    assert f"{store.root}: {MAX_SIZE + 2:,} bytes" in str(caught.value)
    assert store.images() == []
    assert list((tmp_path / "store").glob("ingests/*")) == []


def test_what_is_there_needs_no_room(tmp_path: Path) -> None:
    """Nothing for a blob, and for one that is being fetched only the rest."""
    files = LayoutFiles(str(tmp_path), create=True)
    blob = Descriptor(OCI_LAYER, Digest.of(b"blob"), 4 * _MIB)
    assert missing_bytes(files, blob) == 4 * _MIB
    with open(files.ingest_path(f"sha256-{blob.digest.hex}.part"), "wb") as part:
        part.write(os.urandom(3 * _MIB))
        part.flush()
        os.fsync(part.fileno())
    assert missing_bytes(files, blob) <= _MIB
    os.unlink(part.name)
    held = files.write_blob(b"content")
    assert missing_bytes(files, Descriptor(OCI_LAYER, held, 7)) == 0
