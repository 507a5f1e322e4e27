"""The wrapper that lets a caller do what they may: it fails closed, and is no oracle."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
from moorage.auth.patterns import RepositoryPattern
from moorage.auth.policy import Action, Policy
from moorage.auth.principal import ANONYMOUS, Principal
from moorage.auth.scope import Scope
from moorage.registry.oci import (
    BlobUnknown,
    BlobUploadUnknown,
    Denied,
    Descriptor,
    Digest,
    Registry,
    RepositoryName,
    Unauthorized,
)
from moorage.registry.store import LocalRegistry
from moorage.registry.wrap.authorise import Authorised, Decided
from moorage.registry.wrap.rights import Rights
from moorage.storage_backends.memory import MemoryStore

from tests.authorised import (
    ALICE,
    BLOB,
    BOB,
    CREATOR,
    DIGEST,
    EVERYTHING,
    INDEX,
    MINE,
    OTHER_TAG,
    SECOND,
    TAG,
    THEIRS,
    Seal,
    chunks,
    descriptor,
    local,
    rights,
    rule,
)
from tests.suites.registry_suite import RegistrySuite

__all__ = ["local"]

Call = Callable[[Registry], Awaitable[Any]]
NOTHING = rights()


async def collect(found: AsyncIterator[Any]) -> list[Any]:
    return [entry async for entry in found]


async def read(registry: Registry, repository: RepositoryName) -> bytes:
    async with registry.read_blob(repository, DIGEST) as stream:
        return b"".join([chunk async for chunk in stream])


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
