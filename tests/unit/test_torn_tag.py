"""A tag that a lying disk has torn is an absent one; the log says so, and the next push mends it."""

from __future__ import annotations

import logging

import pytest
from moorage.registry.oci import ManifestUnknown, Tag
from moorage.registry.store import LocalRegistry, layout
from moorage.storage_backends.memory import MemoryStore

from tests.content import image, push, repository


@pytest.mark.parametrize("torn", [pytest.param(b"", id="empty"), pytest.param(b'{"seq":1,"no', id="half")])
async def test_a_torn_tag_is_absent_until_it_is_pushed_again(torn: bytes, caplog: pytest.LogCaptureFixture) -> None:
    store, name, tag = MemoryStore(), repository(), Tag("latest")
    registry = await LocalRegistry.open(store)
    pushed = await push(registry, name, image("torn"), "latest")
    await store.put(layout.tag(name, tag), torn)

    with caplog.at_level(logging.ERROR), pytest.raises(ManifestUnknown):
        await registry.resolve_manifest(name, tag)
    assert "latest" in caplog.text
    assert pushed == await registry.resolve_manifest(name, pushed.digest)

    await push(registry, name, image("torn"), "latest")
    assert pushed == await registry.resolve_manifest(name, tag)
