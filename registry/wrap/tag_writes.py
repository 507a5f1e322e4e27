"""Writes of a tag by somebody who may only create tags, or only move them; and what a tag needs.

Law (rule A4): whether the tag is new is decided by the write itself, under a condition; never by a look before it. So
of two who may only create, one creates and the other one is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from moorage.auth.policy import Action, Decision
from moorage.registry.oci import (
    Descriptor,
    Digest,
    ImageIndex,
    Manifest,
    ManifestUnknown,
    PreconditionFailed,
    Registry,
    RepositoryName,
    Tag,
    TagCondition,
)
from moorage.registry.oci.media_types import INDEX_TYPES

__all__ = ["TagWrite", "needs"]

_ATTEMPTS: Final = 8
"""How often a tag is tried that others move at the same time."""

_MOST_LOOKED_AT: Final = 10_000
"""Manifests of one graph (rule A17)."""


@dataclass(frozen=True, slots=True)
class TagWrite:
    """One tag that is to name ``manifest``. ``condition``: the client's own."""

    repository: RepositoryName
    tag: Tag
    manifest: Manifest
    condition: TagCondition
    may_create: Decision
    may_move: Decision

    async def run(self, inner: Registry) -> tuple[Action, Decision]:
        """Writes the tag if that is allowed; returns what it came to, and the decision on it.

        Raises:
            PreconditionFailed: the tag is not what the client's condition asks for.
        """
        return await (self._move(inner) if self.may_move.allowed else self._create(inner))

    async def _create(self, inner: Registry) -> tuple[Action, Decision]:
        """Creates the tag. That it names this manifest already is fine: a push that is repeated goes well."""
        if self.condition.digest is None:
            try:
                await self._push(inner, TagCondition(absent=True))
            except PreconditionFailed:
                if self.condition.absent:
                    raise
            else:
                return Action.CREATE, self.may_create
        is_same = await self._named(inner) == self.manifest.digest
        if self.condition.digest not in (None, self.manifest.digest) or not is_same:
            return Action.UPDATE, self.may_move
        return Action.CREATE, self.may_create

    async def _move(self, inner: Registry) -> tuple[Action, Decision]:
        """Moves a tag that exists; a new one is not created."""
        for _ in range(_ATTEMPTS):
            named = await self._named(inner)
            if named is None:
                return Action.CREATE, self.may_create
            if self.condition.absent or self.condition.digest not in (None, named):
                raise PreconditionFailed(detail={"tag": self.tag.value})
            try:
                await self._push(inner, TagCondition(digest=named))
            except PreconditionFailed:
                continue  # somebody was faster: look again
            return Action.UPDATE, self.may_move
        raise PreconditionFailed("others move this tag at the same time, try again", detail={"tag": self.tag.value})

    async def _push(self, inner: Registry, condition: TagCondition) -> None:
        await inner.push_manifest(self.repository, self.manifest, tags=[self.tag], condition=condition)

    async def _named(self, inner: Registry) -> Digest | None:
        """The manifest that the tag names now."""
        try:
            return (await inner.resolve_manifest(self.repository, self.tag)).digest
        except ManifestUnknown:
            return None


async def needs(inner: Registry, repository: RepositoryName, tag: Tag, wanted: Digest) -> bool:
    """Whether the manifest is what the tag names, or part of it. A graph beyond all bounds needs everything."""
    try:
        waiting = [await inner.resolve_manifest(repository, tag)]
    except ManifestUnknown:
        return False
    seen = {waiting[0].digest}
    while waiting and wanted not in seen and len(seen) < _MOST_LOOKED_AT:
        children = await _children(inner, repository, waiting.pop())
        waiting += [child for child in children if child.digest not in seen]
        seen |= {child.digest for child in children}
    return wanted in seen or bool(waiting)


async def _children(inner: Registry, repository: RepositoryName, descriptor: Descriptor) -> tuple[Descriptor, ...]:
    if descriptor.media_type not in INDEX_TYPES:
        return ()
    try:
        document = (await inner.read_manifest(repository, descriptor.digest)).document
    except ManifestUnknown:
        return ()
    return document.manifests if isinstance(document, ImageIndex) else ()
