"""Who may create, move and delete tags, through the wrapper: one rule for all tags of a request; some are immutable."""

from __future__ import annotations

import asyncio

import pytest
from moorage.registry.oci import Denied, Descriptor, Digest, ManifestUnknown, PreconditionFailed, Tag, TagCondition
from moorage.registry.store import LocalRegistry
from moorage.registry.wrap.authorise import Authorised
from moorage.registry.wrap.rights import Rights

from tests.authorised import CREATOR, EVERYTHING, INDEX, MINE, MOVER, SECOND, TAG, Seal, local, rights
from tests.content import image, index, push

__all__ = ["local"]


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
