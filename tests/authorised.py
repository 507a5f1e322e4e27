"""What the tests of the authorising wrapper share: a registry with one image in two repositories, and callers."""

from __future__ import annotations

import hmac
from collections.abc import AsyncIterator

import pytest
from moorage.auth.patterns import RepositoryPattern, TextPattern
from moorage.auth.policy import Action, ImmutableTags, Policy, Rule
from moorage.auth.principal import Principal
from moorage.auth.scope import Scope
from moorage.registry.oci import Descriptor, Digest, Manifest, RepositoryName, Tag
from moorage.registry.oci.media_types import OCI_INDEX, OCTET_STREAM
from moorage.registry.store import LocalRegistry
from moorage.registry.wrap.rights import Rights
from moorage.storage_backends.memory import MemoryStore

__all__ = [
    "ALICE", "BLOB", "BOB", "CREATOR", "DIGEST", "EVERYTHING", "INDEX", "MINE", "MOVER", "OTHER_TAG", "SECOND", "TAG",
    "THEIRS", "Seal", "chunks", "descriptor", "local", "rights", "rule",
]  # fmt: skip

MINE, THEIRS = RepositoryName("mine/boat"), RepositoryName("theirs/boat")
TAG, OTHER_TAG = Tag("latest"), Tag("next")
BLOB = b"hull"
DIGEST = Digest.of(BLOB)
INDEX = Manifest.of(b'{"schemaVersion":2,"manifests":[]}', OCI_INDEX)
SECOND = Manifest.of(b'{"schemaVersion":2,"manifests":[],"annotations":{"a":"b"}}', OCI_INDEX)
ALICE, BOB = Principal("alice"), Principal("bob")


class Seal:
    """Codes under a key of the test."""

    def mac(self, purpose: bytes, data: bytes) -> bytes:
        return hmac.digest(b"key of this test", purpose + b"\n" + data, "sha256")

    def check_mac(self, purpose: bytes, data: bytes, mac: bytes) -> bool:
        return hmac.compare_digest(mac, self.mac(purpose, data))


def rule(*actions: Action, where: str = "mine/**", who: str = "alice") -> Rule:
    return Rule("test", (RepositoryPattern(where),), frozenset(actions), principals=frozenset({who}))


def rights(*rules: Rule, who: Principal = ALICE, access: Scope | None = None, immutable: str = "") -> Rights:
    kept = (ImmutableTags((RepositoryPattern("**"),), (TextPattern(immutable),)),) if immutable else ()
    return Rights(who, Policy(rules=rules, immutable_tags=kept), access)


EVERYTHING = rule(*Action, where="**")
CREATOR = rights(rule(Action.PULL, Action.CREATE))
MOVER = rights(rule(Action.PULL, Action.UPDATE))


async def chunks(content: bytes = BLOB) -> AsyncIterator[bytes]:
    yield content


def descriptor(content: bytes) -> Descriptor:
    return Descriptor(OCTET_STREAM, Digest.of(content), len(content))


@pytest.fixture
async def local() -> LocalRegistry:
    registry = await LocalRegistry.open(MemoryStore())
    for repository in (MINE, THEIRS):
        await registry.push_blob(repository, descriptor(BLOB), chunks())
        await registry.push_manifest(repository, INDEX, tags=[TAG])
    return registry
