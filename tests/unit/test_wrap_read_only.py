"""The switches --read-only and --no-delete: what they refuse, what they pass on, and that nothing slips by."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from moorage.registry.oci import Descriptor, Digest, Manifest, Registry, RepositoryName, Tag, Unsupported
from moorage.registry.oci.media_types import OCI_INDEX, OCTET_STREAM
from moorage.registry.store import LocalRegistry
from moorage.registry.wrap.read_only import NoDelete, ReadOnly
from moorage.storage_backends.memory import MemoryStore

from tests.addressed import AddressedStore

REPOSITORY = RepositoryName("moored/boat")
TAG = Tag("latest")
BLOB = b"hull"
BLOB_DIGEST = Digest.of(BLOB)
INDEX = Manifest.of(b'{"schemaVersion":2,"manifests":[]}', OCI_INDEX)

Call = Callable[[Registry], Awaitable[Any]]


async def chunks(content: bytes) -> AsyncIterator[bytes]:
    yield content


async def collect(found: AsyncIterator[Any]) -> list[Any]:
    return [entry async for entry in found]


async def read_blob(registry: Registry) -> bytes:
    async with registry.read_blob(REPOSITORY, BLOB_DIGEST, start=1, stop=3) as stream:
        return b"".join([chunk async for chunk in stream])


async def session(registry: Registry) -> str:
    return (await registry.start_upload(REPOSITORY)).id


READS: dict[str, Call] = {
    "resolve_blob": lambda r: r.resolve_blob(REPOSITORY, BLOB_DIGEST, for_push=True),
    "read_blob": read_blob,
    "locate_blob": lambda r: r.locate_blob(REPOSITORY, BLOB_DIGEST, ttl=60, headers={"content-type": "a/b"}),
    "resolve_manifest": lambda r: r.resolve_manifest(REPOSITORY, TAG),
    "read_manifest": lambda r: r.read_manifest(REPOSITORY, INDEX.digest),
    "list_repositories": lambda r: collect(r.list_repositories()),
    "list_tags": lambda r: collect(r.list_tags(REPOSITORY)),
    "list_referrers": lambda r: collect(r.list_referrers(REPOSITORY, INDEX.digest)),
}
WRITES: dict[str, Call] = {
    "push_blob": lambda r: r.push_blob(
        REPOSITORY, Descriptor(OCTET_STREAM, Digest.of(b"mast"), len(b"mast")), chunks(b"mast")
    ),
    "mount_blob": lambda r: r.mount_blob(RepositoryName("other"), BLOB_DIGEST, source=REPOSITORY),
    "push_manifest": lambda r: r.push_manifest(REPOSITORY, INDEX, tags=[Tag("next")]),
    "start_upload": lambda r: r.start_upload(REPOSITORY, algorithm="sha512"),
}
SESSIONS: dict[str, Callable[[Registry, str], Awaitable[Any]]] = {
    "upload_status": lambda r, upload: r.upload_status(REPOSITORY, upload),
    "append_upload": lambda r, upload: r.append_upload(REPOSITORY, upload, chunks(b"x"), start=0),
    "finish_upload": lambda r, upload: r.finish_upload(REPOSITORY, upload, Digest.of(b"")),
    "cancel_upload": lambda r, upload: r.cancel_upload(REPOSITORY, upload),
}
DELETES: dict[str, Call] = {
    "delete_blob": lambda r: r.delete_blob(REPOSITORY, BLOB_DIGEST),
    "delete_manifest": lambda r: r.delete_manifest(REPOSITORY, INDEX.digest),
    "delete_tag": lambda r: r.delete_tag(REPOSITORY, TAG),
}


@pytest.fixture
def store() -> MemoryStore:
    return AddressedStore()


@pytest.fixture
async def local(store: MemoryStore) -> LocalRegistry:
    registry = await LocalRegistry.open(store)
    await registry.push_blob(REPOSITORY, Descriptor(OCTET_STREAM, BLOB_DIGEST, len(BLOB)), chunks(BLOB))
    await registry.push_manifest(REPOSITORY, INDEX, tags=[TAG])
    return registry


async def snapshot(store: MemoryStore) -> dict[str, str]:
    """Key and version of everything stored."""
    return {info.key: info.version async for info in store.list("")}  # type: ignore[union-attr]


def protocol_methods() -> set[str]:
    return {name for name, _ in inspect.getmembers(Registry, inspect.isfunction) if not name.startswith("_")}


def test_this_file_knows_every_method_of_the_protocol() -> None:
    """A method added to the protocol must be decided on here as well."""
    assert protocol_methods() == {*READS, *WRITES, *SESSIONS, *DELETES}


@pytest.mark.parametrize("wrapper", [ReadOnly, NoDelete])
def test_a_wrapper_spells_out_every_method(wrapper: type) -> None:
    """Nothing is passed on by accident: no ``__getattr__``, no body inherited from the protocol itself."""
    assert Registry not in wrapper.__mro__
    assert not hasattr(wrapper, "__getattr__")
    for name in protocol_methods():
        ours, theirs = (inspect.signature(getattr(owner, name)) for owner in (wrapper, Registry))
        assert ours == theirs, name


@pytest.mark.parametrize("name", READS)
@pytest.mark.parametrize("wrapper", [ReadOnly, NoDelete])
async def test_reading_passes_through(wrapper: Callable[[Registry], Registry], name: str, local: LocalRegistry) -> None:
    """Both wrappers answer a read as the registry inside does."""
    answer = await READS[name](wrapper(local))
    assert answer is not None
    assert answer == await READS[name](local)


@pytest.mark.parametrize("name", [*WRITES, *DELETES])
async def test_read_only_refuses_every_write(name: str, local: LocalRegistry, store: MemoryStore) -> None:
    """Refused with 405 and the name of the switch, and nothing stored has changed."""
    before = await snapshot(store)
    with pytest.raises(Unsupported, match="--read-only"):
        await {**WRITES, **DELETES}[name](ReadOnly(local))
    assert await snapshot(store) == before


@pytest.mark.parametrize("name", SESSIONS)
async def test_read_only_refuses_sessions_that_were_open(name: str, local: LocalRegistry, store: MemoryStore) -> None:
    """A session from before the switch neither goes on nor goes away."""
    upload = await session(local)
    before = await snapshot(store)
    with pytest.raises(Unsupported, match="--read-only"):
        await SESSIONS[name](ReadOnly(local), upload)
    assert await snapshot(store) == before


async def test_read_only_keeps_nothing_for_a_push(local: LocalRegistry, store: MemoryStore) -> None:
    """HEAD of a blob, which otherwise may renew a link for a client about to push, writes nothing."""
    before = await snapshot(store)
    await ReadOnly(local).resolve_blob(REPOSITORY, BLOB_DIGEST, for_push=True)
    assert await snapshot(store) == before


@pytest.mark.parametrize("name", DELETES)
async def test_no_delete_refuses_deletes(name: str, local: LocalRegistry, store: MemoryStore) -> None:
    """Tag, manifest and blob alike (rule A3): 405 with the name of the switch, and nothing stored has changed."""
    before = await snapshot(store)
    with pytest.raises(Unsupported, match="--no-delete"):
        await DELETES[name](NoDelete(local))
    assert await snapshot(store) == before


@pytest.mark.parametrize("name", WRITES)
async def test_no_delete_lets_writes_pass(name: str, local: LocalRegistry) -> None:
    """Pushing goes on as without the switch."""
    assert await WRITES[name](NoDelete(local)) is not None


@pytest.mark.parametrize("name", SESSIONS)
async def test_no_delete_lets_sessions_pass(name: str, local: LocalRegistry) -> None:
    """Upload sessions live as without the switch, cancelling included."""
    await SESSIONS[name](NoDelete(local), await session(local))
