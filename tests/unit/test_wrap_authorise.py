"""The wrapper that lets a caller do what they may: it fails closed, is no oracle, tells new tags from moved ones."""

from __future__ import annotations

import asyncio
import hmac
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
from moorage.auth.patterns import RepositoryPattern, TextPattern
from moorage.auth.policy import Action, ImmutableTags, Policy, Rule
from moorage.auth.principal import ANONYMOUS, Principal
from moorage.auth.scope import Scope
from moorage.registry.oci import (
    BlobUnknown,
    BlobUploadUnknown,
    Denied,
    Descriptor,
    Digest,
    Manifest,
    ManifestUnknown,
    PreconditionFailed,
    Registry,
    RepositoryName,
    Tag,
    TagCondition,
    Unauthorized,
)
from moorage.registry.oci.media_types import OCI_INDEX, OCTET_STREAM
from moorage.registry.store import LocalRegistry
from moorage.registry.wrap.authorise import Authorised, Decided
from moorage.registry.wrap.rights import Rights
from moorage.storage_backends.memory import MemoryStore

from tests.content import image, index, push
from tests.suites.registry_suite import RegistrySuite

MINE, THEIRS = RepositoryName("mine/boat"), RepositoryName("theirs/boat")
TAG, OTHER_TAG = Tag("latest"), Tag("next")
BLOB = b"hull"
DIGEST = Digest.of(BLOB)
INDEX = Manifest.of(b'{"schemaVersion":2,"manifests":[]}', OCI_INDEX)
SECOND = Manifest.of(b'{"schemaVersion":2,"manifests":[],"annotations":{"a":"b"}}', OCI_INDEX)
ALICE, BOB = Principal("alice"), Principal("bob")

Call = Callable[[Registry], Awaitable[Any]]


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
NOTHING = rights()


async def chunks(content: bytes = BLOB) -> AsyncIterator[bytes]:
    yield content


async def collect(found: AsyncIterator[Any]) -> list[Any]:
    return [entry async for entry in found]


async def read(registry: Registry, repository: RepositoryName) -> bytes:
    async with registry.read_blob(repository, DIGEST) as stream:
        return b"".join([chunk async for chunk in stream])


def descriptor(content: bytes) -> Descriptor:
    return Descriptor(OCTET_STREAM, Digest.of(content), len(content))


def calls(where: RepositoryName) -> dict[str, Call]:
    """Every method of the protocol, on one repository."""
    return {
        "resolve_blob": lambda r: r.resolve_blob(where, DIGEST, for_push=True),
        "read_blob": lambda r: read(r, where),
        "locate_blob": lambda r: r.locate_blob(where, DIGEST, ttl=60, headers={}),
        "resolve_manifest": lambda r: r.resolve_manifest(where, TAG),
        "read_manifest": lambda r: r.read_manifest(where, TAG),
        "push_blob": lambda r: r.push_blob(where, descriptor(BLOB), chunks()),
        "mount_blob": lambda r: r.mount_blob(where, DIGEST, source=THEIRS),
        "push_manifest": lambda r: r.push_manifest(where, INDEX, tags=[TAG]),
        "start_upload": lambda r: r.start_upload(where),
        "upload_status": lambda r: r.upload_status(where, "x" * 80),
        "append_upload": lambda r: r.append_upload(where, "x" * 80, chunks()),
        "finish_upload": lambda r: r.finish_upload(where, "x" * 80, DIGEST),
        "cancel_upload": lambda r: r.cancel_upload(where, "x" * 80),
        "delete_blob": lambda r: r.delete_blob(where, DIGEST),
        "delete_manifest": lambda r: r.delete_manifest(where, INDEX.digest),
        "delete_tag": lambda r: r.delete_tag(where, TAG),
        "list_repositories": lambda r: collect(r.list_repositories()),
        "list_tags": lambda r: collect(r.list_tags(where)),
        "list_referrers": lambda r: collect(r.list_referrers(where, INDEX.digest)),
    }


METHODS = sorted(calls(MINE))


@pytest.fixture
async def local() -> LocalRegistry:
    registry = await LocalRegistry.open(MemoryStore())
    for repository in (MINE, THEIRS):
        await registry.push_blob(repository, descriptor(BLOB), chunks())
        await registry.push_manifest(repository, INDEX, tags=[TAG])
    return registry


def protocol_methods() -> set[str]:
    return {name for name, _ in inspect.getmembers(Registry, inspect.isfunction) if not name.startswith("_")}


class TestEverythingAllowed(RegistrySuite):
    """Whoever may do everything finds the registry as it is."""

    @pytest.fixture
    async def registry(self) -> Registry:
        return Authorised(await LocalRegistry.open(MemoryStore()), rights(EVERYTHING), seal=Seal())


# -- it fails closed ---------------------------------------------------------------------------------------------------


def test_every_method_is_spelled_out() -> None:
    """Style sheet 20: none is inherited from the protocol, whose bodies are empty, none is passed on unseen."""
    assert set(METHODS) == protocol_methods()
    assert Authorised.__mro__ == (Authorised, object)
    assert not hasattr(Authorised, "__getattr__")
    for name in METHODS:
        assert inspect.signature(getattr(Authorised, name)) == inspect.signature(getattr(Registry, name)), name


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("who", [ALICE, ANONYMOUS], ids=["alice", "nobody"])
async def test_without_a_rule_every_method_is_denied(name: str, who: Principal) -> None:
    """Denied before the registry inside is touched: here there is none."""
    refusal = Unauthorized if who.is_anonymous else Denied
    with pytest.raises(refusal):
        await calls(MINE)[name](Authorised(object(), rights(who=who), seal=Seal()))  # type: ignore[arg-type]


async def test_a_method_that_is_not_spelled_out_is_not_there(local: LocalRegistry) -> None:
    """A method that only the registry inside has cannot be reached, whatever the rights."""

    class Grown(LocalRegistry):
        async def empty_everything(self) -> None:
            raise AssertionError("reached")

    grown = await Grown.open(MemoryStore())
    with pytest.raises(AttributeError):
        await Authorised(grown, rights(EVERYTHING), seal=Seal()).empty_everything()  # type: ignore[attr-defined]


NEEDED = {
    Action.PULL: {
        "resolve_blob", "read_blob", "locate_blob", "resolve_manifest", "read_manifest", "list_tags", "list_referrers",
    },
    Action.DELETE: {"delete_blob", "delete_manifest", "delete_tag"},
    Action.CATALOG: {"list_repositories"},
}  # fmt: skip
WRITES = set(METHODS) - {name for names in NEEDED.values() for name in names}


@pytest.mark.parametrize("action", Action, ids=str)
@pytest.mark.parametrize("name", METHODS)
async def test_each_method_needs_its_own_action(name: str, action: Action, local: LocalRegistry) -> None:
    """One right alone opens its methods and no other; A3: every destructive one is behind the same gate."""
    registry = Authorised(local, rights(rule(action)), seal=Seal())
    opened = NEEDED.get(action, WRITES)
    if name not in opened:
        with pytest.raises(Denied):
            await calls(MINE)[name](registry)
    else:
        with suppress(BlobUnknown, BlobUploadUnknown):  # a mount from elsewhere, an upload that is none
            await calls(MINE)[name](registry)


@pytest.mark.parametrize("name", METHODS)
async def test_a18_absent_and_forbidden_are_one(name: str, local: LocalRegistry) -> None:
    """A18: what the caller may not see is refused alike whether it is there or not, and nothing is looked up."""
    seen = []
    for inner in (local, await LocalRegistry.open(MemoryStore())):
        with pytest.raises(Denied) as caught:
            await calls(THEIRS)[name](Authorised(inner, rights(rule(Action.PULL)), seal=Seal()))
        seen.append(caught.value.to_json())
    assert seen[0] == seen[1]


# -- tokens ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(protocol_methods() - {"list_repositories"}))
async def test_t6_a_token_narrows_and_never_widens(name: str, local: LocalRegistry) -> None:
    """T6: granted is token ∩ policy. Where only the token says no, another one may do: 401; else 403."""
    narrow = Scope.repository("mine/other", "pull", "push", "delete")
    with pytest.raises(Unauthorized):
        await calls(MINE)[name](Authorised(local, rights(EVERYTHING, access=narrow), seal=Seal()))
    wide = Scope.repository(MINE, "*") | Scope.repository(THEIRS, "*")
    with pytest.raises(Denied):
        await calls(MINE)[name](Authorised(local, rights(access=wide), seal=Seal()))


async def test_the_token_of_an_issuer_speaks_for_its_repositories_only(local: LocalRegistry) -> None:
    """Its policy is the token, but what it says about others is not believed."""
    access = Scope.repository(MINE, "pull") | Scope.repository(THEIRS, "pull")
    theirs = Rights(Principal("issuer:x:y"), Policy(), access, (RepositoryPattern("mine/**"),))
    registry = Authorised(local, theirs, seal=Seal())
    assert await registry.resolve_manifest(MINE, TAG)
    with pytest.raises(Denied):
        await registry.resolve_manifest(THEIRS, TAG)
    with pytest.raises(Unauthorized):
        await registry.delete_tag(MINE, TAG)


async def test_the_catalog_shows_what_the_caller_may_pull(local: LocalRegistry) -> None:
    """A18: repositories of others are not even named."""
    some = Authorised(local, rights(rule(Action.PULL, Action.CATALOG)), seal=Seal())
    assert await collect(some.list_repositories()) == [MINE]
    everything = Authorised(local, rights(EVERYTHING), seal=Seal())
    assert await collect(everything.list_repositories()) == [MINE, THEIRS]


# -- blobs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", [THEIRS, None, RepositoryName("theirs/none")], ids=["known", "any", "absent"])
async def test_t7_a_mount_is_no_oracle(source: RepositoryName | None, local: LocalRegistry) -> None:
    """T7: from where the caller may not pull, a blob is as absent as one that nobody has; so it is from anywhere."""
    registry = Authorised(local, rights(rule(*Action)), seal=Seal())
    target = RepositoryName("mine/new")
    with pytest.raises(BlobUnknown) as caught:
        await registry.mount_blob(target, DIGEST, source=source)
    assert caught.value.to_json() == BlobUnknown(detail={"digest": str(DIGEST)}).to_json()
    with pytest.raises(BlobUnknown):
        await local.resolve_blob(target, DIGEST)


async def test_who_may_pull_everything_may_mount_from_anywhere(local: LocalRegistry) -> None:
    """And a source that the caller may pull from works by name."""
    everywhere = Authorised(local, rights(EVERYTHING), seal=Seal())
    assert await everywhere.mount_blob(RepositoryName("mine/new"), DIGEST)
    some = Authorised(local, rights(rule(*Action)), seal=Seal())
    assert await some.mount_blob(RepositoryName("mine/newer"), DIGEST, source=MINE)


async def test_a_head_of_who_may_only_pull_writes_nothing() -> None:
    """That a blob is kept for a push is a favour to pushers; for others it would be a write."""
    asked: list[bool] = []

    class Asked(LocalRegistry):
        async def resolve_blob(
            self, repository: RepositoryName, digest: Digest, *, for_push: bool = False
        ) -> Descriptor:
            asked.append(for_push)
            return descriptor(BLOB)

    inner = await Asked.open(MemoryStore())
    for actions in ([Action.PULL], [Action.PULL, Action.CREATE]):
        await Authorised(inner, rights(rule(*actions)), seal=Seal()).resolve_blob(MINE, DIGEST, for_push=True)
    assert asked == [False, True]


# -- uploads -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["upload_status", "append_upload", "finish_upload", "cancel_upload"])
async def test_a15_an_upload_belongs_to_who_began_it(name: str, local: LocalRegistry) -> None:
    """A15: its id is unknown to another user, in another repository, and when it was touched or guessed."""

    def registry_of(who: Principal) -> Authorised:
        return Authorised(local, rights(EVERYTHING, rule(*Action, where="**", who="bob"), who=who), seal=Seal())

    session = await registry_of(ALICE).start_upload(MINE)
    assert len(session.id) > 43
    methods: dict[str, Callable[[Registry, RepositoryName, str], Awaitable[Any]]] = {
        "upload_status": lambda r, where, upload: r.upload_status(where, upload),
        "append_upload": lambda r, where, upload: r.append_upload(where, upload, chunks()),
        "finish_upload": lambda r, where, upload: r.finish_upload(where, upload, DIGEST),
        "cancel_upload": lambda r, where, upload: r.cancel_upload(where, upload),
    }
    last = "A" if session.id[-5] != "A" else "B"
    touched = session.id[:-5] + last + session.id[-4:]
    wrong = [
        (BOB, MINE, session.id),
        (ALICE, THEIRS, session.id),
        (ALICE, MINE, touched),
        (ALICE, MINE, session.id[:-43]),
        (ALICE, MINE, "short"),
        (ALICE, MINE, "-" * 100),
    ]
    for who, where, upload in wrong:
        with pytest.raises(BlobUploadUnknown):
            await methods[name](registry_of(who), where, upload)
    assert (await registry_of(ALICE).append_upload(MINE, session.id, chunks(), start=0)).id == session.id
    assert await methods[name](registry_of(ALICE), MINE, session.id) or name == "cancel_upload"


# -- tags --------------------------------------------------------------------------------------------------------------

CREATOR = rights(rule(Action.PULL, Action.CREATE))
MOVER = rights(rule(Action.PULL, Action.UPDATE))


async def test_a4_two_racing_creators(local: LocalRegistry) -> None:
    """A4: of two who may only create, exactly one makes the tag; the other is refused, and nothing is overwritten."""
    tag = Tag("raced")
    registry = Authorised(local, CREATOR, seal=Seal())
    results = await asyncio.gather(
        *(registry.push_manifest(MINE, manifest, tags=[tag]) for manifest in (INDEX, SECOND)), return_exceptions=True
    )
    won = [one for one in results if isinstance(one, Descriptor)]
    assert len(won) == 1
    assert [type(one) for one in results if not isinstance(one, Descriptor)] == [Denied]
    assert (await local.resolve_manifest(MINE, tag)).digest == won[0].digest


async def test_a4_no_tag_of_a_request_is_special(local: LocalRegistry) -> None:
    """A4: a tag in the query is held to the same rule as the one in the path, wherever it stands."""
    registry = Authorised(local, CREATOR, seal=Seal())
    for tags in ([Tag("a"), TAG], [TAG, Tag("a")]):
        with pytest.raises(Denied):
            await registry.push_manifest(MINE, SECOND, tags=tags)
        assert (await local.resolve_manifest(MINE, TAG)).digest == INDEX.digest


async def test_a4_a_push_that_is_repeated_goes_well(local: LocalRegistry) -> None:
    """The tag names this manifest already: nothing is updated."""
    registry = Authorised(local, CREATOR, seal=Seal())
    for _ in range(2):
        assert (await registry.push_manifest(MINE, INDEX, tags=[TAG, Tag("new")])).digest == INDEX.digest


async def test_who_may_only_move_tags_creates_none(local: LocalRegistry) -> None:
    """Update without create: an existing tag moves, a new one is refused."""
    registry = Authorised(local, MOVER, seal=Seal())
    await registry.push_manifest(MINE, SECOND, tags=[TAG])
    assert (await local.resolve_manifest(MINE, TAG)).digest == SECOND.digest
    with pytest.raises(Denied):
        await registry.push_manifest(MINE, SECOND, tags=[Tag("new")])
    with pytest.raises(ManifestUnknown):
        await local.resolve_manifest(MINE, Tag("new"))


@pytest.mark.parametrize("who", [CREATOR, MOVER], ids=["create", "update"])
@pytest.mark.parametrize("tag", [TAG, Tag("new")], ids=["existing", "new"])
@pytest.mark.parametrize(
    "condition",
    [TagCondition(absent=True), TagCondition(digest=INDEX.digest), TagCondition(digest=Digest.of(b"none"))],
    ids=["absent", "this", "another"],
)
async def test_a_condition_of_the_client_holds_as_well(
    who: Rights, tag: Tag, condition: TagCondition, local: LocalRegistry
) -> None:
    """Rights and condition must both allow the write: it happens exactly if both would alone."""
    exists = tag == TAG
    holds = (condition.absent and not exists) or (condition.digest == INDEX.digest and exists)
    may = who is (MOVER if exists else CREATOR)
    registry = Authorised(local, who, seal=Seal())
    if holds and may:
        await registry.push_manifest(MINE, SECOND, tags=[tag], condition=condition)
        assert (await local.resolve_manifest(MINE, tag)).digest == SECOND.digest
        return
    with pytest.raises((Denied, PreconditionFailed)):
        await registry.push_manifest(MINE, SECOND, tags=[tag], condition=condition)
    if exists:
        assert (await local.resolve_manifest(MINE, tag)).digest == INDEX.digest
    else:
        with pytest.raises(ManifestUnknown):
            await local.resolve_manifest(MINE, tag)


async def test_an_immutable_tag_stays(local: LocalRegistry) -> None:
    """Whatever the rules: it is created once, then neither moved nor deleted, nor deleted with its manifest."""
    owner = rights(EVERYTHING, immutable="v*")
    registry, tag = Authorised(local, owner, seal=Seal()), Tag("v1")
    await registry.push_manifest(MINE, SECOND, tags=[tag])
    await registry.push_manifest(MINE, SECOND, tags=[tag])
    for refused in (
        registry.push_manifest(MINE, INDEX, tags=[tag]),
        registry.push_manifest(MINE, INDEX, tags=[Tag("other"), tag]),
        registry.delete_tag(MINE, tag),
        registry.delete_manifest(MINE, SECOND.digest),
    ):
        with pytest.raises(Denied):
            await refused
    assert (await local.resolve_manifest(MINE, tag)).digest == SECOND.digest
    await registry.delete_manifest(MINE, INDEX.digest)


@pytest.mark.parametrize("depth", [1, 3])
async def test_what_an_immutable_tag_needs_stays(depth: int, local: LocalRegistry) -> None:
    """An index under such a tag keeps its children, and theirs; what no such tag needs can go."""
    child, other = image("a child"), image("no child")
    top = index([child])
    for _ in range(depth - 1):
        top = index([top])
    await push(local, MINE, top, "v1")
    await push(local, MINE, other, "latest")
    registry = Authorised(local, rights(EVERYTHING, immutable="v*"), seal=Seal())
    for digest in (child.digest, top.digest):
        with pytest.raises(Denied):
            await registry.delete_manifest(MINE, digest)
    await registry.delete_manifest(MINE, other.digest)
    assert (await local.resolve_manifest(MINE, child.digest)).digest == child.digest


# -- the audit ---------------------------------------------------------------------------------------------------------


async def test_every_decision_is_told(local: LocalRegistry) -> None:
    """What was done to what, by which rule; and what was refused."""
    told: list[Decided] = []
    registry = Authorised(local, CREATOR, seal=Seal(), record=told.append)
    await registry.push_manifest(MINE, SECOND, tags=[OTHER_TAG])
    with pytest.raises(Denied):
        await registry.push_manifest(MINE, INDEX, tags=[OTHER_TAG])
    with pytest.raises(Denied):
        await registry.delete_blob(THEIRS, DIGEST)
    seen = [(str(one.action), str(one.tag), str(one.digest), one.decision.allowed) for one in told]
    assert seen == [
        ("create", "None", str(SECOND.digest), True),
        ("create", "next", str(SECOND.digest), True),
        ("create", "None", str(INDEX.digest), True),
        ("update", "next", str(INDEX.digest), False),
        ("delete", "None", str(DIGEST), False),
    ]
