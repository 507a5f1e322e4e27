"""A registry as one caller may see and change it.

Law: it fails closed. Every method of the protocol is spelled out and asks ``Rights`` before it touches the registry
inside; a method added later does not exist here until somebody decides what it means (style sheet 20).
Law of silence (rule A18): the refusal is decided before anything is looked up, so it is the same whether the thing
exists or not.
Law of tags (rule A4): whether a tag is new is decided by the write that makes it, for each tag of a request, so of two
who may only create one loses.
Law of uploads (rule A15): an upload's id is good for who began it, in the repository where it began.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, replace
from typing import Final, Protocol

from moorage.auth.policy import Action, Decision
from moorage.registry.oci import (
    ANY_VALUE,
    BlobLocation,
    BlobStream,
    BlobUnknown,
    BlobUploadUnknown,
    Descriptor,
    Digest,
    Manifest,
    NameUnknown,
    Registry,
    RepositoryName,
    Tag,
    TagCondition,
    TagOrDigest,
    UploadStatus,
)
from moorage.registry.wrap.rights import PUSH, TOKEN, Rights
from moorage.registry.wrap.tag_writes import TagWrite, needs

__all__ = ["Authorised", "Decided", "Sealer"]

_PULL: Final = Action.PULL
_PURPOSE: Final = b"upload"
_MAC: Final = 43
"""Characters of a code at the end of an upload's id: 32 bytes in base64."""


class Sealer(Protocol):
    """Makes codes that only this registry, in any of its processes, can make."""

    def mac(self, purpose: bytes, data: bytes) -> bytes:
        """A code of 32 bytes."""

    def check_mac(self, purpose: bytes, data: bytes, mac: bytes) -> bool:
        """Whether the code was made here."""


@dataclass(frozen=True, slots=True)
class Decided:
    """One decision, for the audit log."""

    decision: Decision
    action: Action
    repository: RepositoryName | None = None
    tag: Tag | None = None
    digest: Digest | None = None


class Authorised:
    """``inner``, for one caller, in one request.

    Args:
        seal: binds the ids of uploads to the caller.
        record: is told every decision, once.
    """

    def __init__(
        self, inner: Registry, rights: Rights, *, seal: Sealer, record: Callable[[Decided], None] | None = None
    ) -> None:
        self._inner, self._rights, self._seal, self._record = inner, rights, seal, record
        self._told: Decided | None = None

    # -- Reader --------------------------------------------------------------------------------------------------------

    async def resolve_blob(self, repository: RepositoryName, digest: Digest, *, for_push: bool = False) -> Descriptor:
        """See ``Reader.resolve_blob``. Nothing is kept for a push of those who may not push: that would be a write."""
        self._require_pull(repository, digest)
        for_push = for_push and self._rights.any_of(PUSH, repository).allowed
        return await self._inner.resolve_blob(repository, digest, for_push=for_push)

    def read_blob(
        self, repository: RepositoryName, digest: Digest, *, start: int = 0, stop: int | None = None
    ) -> AbstractAsyncContextManager[BlobStream]:
        """See ``Reader.read_blob``."""
        self._require_pull(repository, digest)
        return self._inner.read_blob(repository, digest, start=start, stop=stop)

    async def locate_blob(
        self, repository: RepositoryName, digest: Digest, *, ttl: int, headers: Mapping[str, str]
    ) -> BlobLocation | None:
        """See ``Reader.locate_blob``."""
        self._require_pull(repository, digest)
        return await self._inner.locate_blob(repository, digest, ttl=ttl, headers=headers)

    async def resolve_manifest(self, repository: RepositoryName, reference: TagOrDigest) -> Descriptor:
        """See ``Reader.resolve_manifest``."""
        self._require_pull(repository, reference)
        return await self._inner.resolve_manifest(repository, reference)

    async def read_manifest(self, repository: RepositoryName, reference: TagOrDigest) -> Manifest:
        """See ``Reader.read_manifest``."""
        self._require_pull(repository, reference)
        return await self._inner.read_manifest(repository, reference)

    # -- Writer --------------------------------------------------------------------------------------------------------

    async def push_blob(
        self, repository: RepositoryName, descriptor: Descriptor, content: AsyncIterable[bytes]
    ) -> Descriptor:
        """See ``Writer.push_blob``."""
        self._require_push(repository, descriptor.digest)
        return await self._inner.push_blob(repository, descriptor, content)

    async def mount_blob(
        self, repository: RepositoryName, digest: Digest, *, source: RepositoryName | None = None
    ) -> Descriptor:
        """See ``Writer.mount_blob``. From where the caller may not pull, a blob is as good as absent (rule T7).

        Raises:
            Unauthorized: the caller may pull from there, but not with this token.
        """
        self._require_push(repository, digest)
        if source is None:
            is_open = self._rights.may_pull_everything()
        else:
            decision = self._rights.decide(Action.PULL, source)
            self._note(decision, Action.PULL, source, None, digest)
            if decision.rule == TOKEN:
                raise self._rights.refusal(decision)
            is_open = decision.allowed
        if not is_open:
            raise BlobUnknown(detail={"digest": str(digest)})
        return await self._inner.mount_blob(repository, digest, source=source)

    async def push_manifest(
        self,
        repository: RepositoryName,
        manifest: Manifest,
        *,
        tags: Sequence[Tag] = (),
        condition: TagCondition = ANY_VALUE,
    ) -> Descriptor:
        """See ``Writer.push_manifest``. Tags with half a right are written first; a refused one stops the rest.

        Raises:
            Denied: a tag exists and may not be moved, or is new and may not be created.
        """
        self._require_push(repository, manifest.digest)
        free: list[Tag] = []
        for tag in tags:
            may_create = self._rights.decide(Action.CREATE, repository)
            may_move = self._rights.decide(Action.UPDATE, repository, tag=tag)
            if may_create.allowed and may_move.allowed:
                self._note(may_move, Action.UPDATE, repository, tag, manifest.digest)
                free.append(tag)
            else:
                write = TagWrite(repository, tag, manifest, condition, may_create, may_move)
                action, decision = await write.run(self._inner)
                self._settle(decision, action, repository, tag, manifest.digest)
        return await self._inner.push_manifest(repository, manifest, tags=free, condition=condition)

    # -- Uploader ------------------------------------------------------------------------------------------------------

    async def start_upload(self, repository: RepositoryName, *, algorithm: str | None = None) -> UploadStatus:
        """See ``Uploader.start_upload``. The id carries a code that binds it to the caller and the repository."""
        self._require_push(repository)
        status = await self._inner.start_upload(repository, algorithm=algorithm)
        return self._sealed(repository, status)

    async def upload_status(self, repository: RepositoryName, upload: str) -> UploadStatus:
        """See ``Uploader.upload_status``."""
        self._require_push(repository)
        return self._sealed(repository, await self._inner.upload_status(repository, self._opened(repository, upload)))

    async def append_upload(
        self, repository: RepositoryName, upload: str, content: AsyncIterable[bytes], *, start: int | None = None
    ) -> UploadStatus:
        """See ``Uploader.append_upload``."""
        self._require_push(repository)
        session = self._opened(repository, upload)
        return self._sealed(repository, await self._inner.append_upload(repository, session, content, start=start))

    async def finish_upload(self, repository: RepositoryName, upload: str, digest: Digest) -> Descriptor:
        """See ``Uploader.finish_upload``."""
        self._require_push(repository, digest)
        return await self._inner.finish_upload(repository, self._opened(repository, upload), digest)

    async def cancel_upload(self, repository: RepositoryName, upload: str) -> None:
        """See ``Uploader.cancel_upload``. Whoever may begin an upload may end it: nothing of it was ever to be read."""
        self._require_push(repository)
        await self._inner.cancel_upload(repository, self._opened(repository, upload))

    # -- Deleter -------------------------------------------------------------------------------------------------------

    async def delete_blob(self, repository: RepositoryName, digest: Digest) -> None:
        """See ``Deleter.delete_blob``."""
        self._require(Action.DELETE, repository, digest)
        await self._inner.delete_blob(repository, digest)

    async def delete_manifest(self, repository: RepositoryName, digest: Digest) -> None:
        """See ``Deleter.delete_manifest``.

        A tag that is made at the same time is not seen.

        Raises:
            Denied: a tag that nobody may delete names it, or an index that needs it.
        """
        self._require(Action.DELETE, repository, digest)
        if self._rights.policy.immutable_tags:
            async for tag in self._immutable_tags(repository, digest):
                self._settle(self._rights.decide(Action.DELETE, repository, tag=tag), Action.DELETE, repository, tag)
        await self._inner.delete_manifest(repository, digest)

    async def delete_tag(self, repository: RepositoryName, tag: Tag) -> None:
        """See ``Deleter.delete_tag``."""
        self._require(Action.DELETE, repository, tag)
        await self._inner.delete_tag(repository, tag)

    # -- Lister --------------------------------------------------------------------------------------------------------

    def list_repositories(self, *, after: RepositoryName | None = None) -> AsyncIterator[RepositoryName]:
        """See ``Lister.list_repositories``. Only those that the caller may pull from (rule A18)."""
        self._settle(self._rights.decide(Action.CATALOG, None), Action.CATALOG)
        return self._listed(self._inner.list_repositories(after=after))

    def list_tags(self, repository: RepositoryName, *, after: str = "") -> AsyncIterator[Tag]:
        """See ``Lister.list_tags``."""
        self._require_pull(repository)
        return self._inner.list_tags(repository, after=after)

    def list_referrers(
        self, repository: RepositoryName, subject: Digest, *, artifact_type: str | None = None, after: str = ""
    ) -> AsyncIterator[Descriptor]:
        """See ``Lister.list_referrers``."""
        self._require_pull(repository, subject)
        return self._inner.list_referrers(repository, subject, artifact_type=artifact_type, after=after)

    # -- deciding ------------------------------------------------------------------------------------------------------

    def _require(self, action: Action, repository: RepositoryName, what: TagOrDigest | None = None) -> None:
        tag, digest = (what, None) if isinstance(what, Tag) else (None, what)
        self._settle(self._rights.decide(action, repository, tag=tag), action, repository, tag, digest)

    def _require_pull(self, repository: RepositoryName, what: TagOrDigest | None = None) -> None:
        """As ``_require``, on the path of nearly every request."""
        if self._record is not None or not self._rights.decide(_PULL, repository).allowed:
            self._require(_PULL, repository, what)

    def _require_push(self, repository: RepositoryName, digest: Digest | None = None) -> None:
        self._settle(self._rights.any_of(PUSH, repository), Action.CREATE, repository, None, digest)

    def _settle(
        self,
        decision: Decision,
        action: Action,
        repository: RepositoryName | None = None,
        tag: Tag | None = None,
        digest: Digest | None = None,
    ) -> None:
        """Notes the decision, and raises what it says if that is no."""
        self._note(decision, action, repository, tag, digest)
        if not decision.allowed:
            raise self._rights.refusal(decision)

    def _note(
        self,
        decision: Decision,
        action: Action,
        repository: RepositoryName | None,
        tag: Tag | None = None,
        digest: Digest | None = None,
    ) -> None:
        """Tells a decision; one that is come to twice in a request, as by who looks before he reads, once."""
        if self._record is not None:
            decided = Decided(decision, action, repository, tag, digest)
            if decided != self._told:
                self._told = decided
                self._record(decided)

    # -- what the caller is shown --------------------------------------------------------------------------------------

    async def _listed(self, found: AsyncIterator[RepositoryName]) -> AsyncIterator[RepositoryName]:
        try:
            async for name in found:
                if self._rights.lists(name):
                    yield name
        finally:
            if isinstance(found, AsyncGenerator):
                await found.aclose()

    async def _immutable_tags(self, repository: RepositoryName, digest: Digest) -> AsyncIterator[Tag]:
        """The tags that nobody may delete, of the manifest and of every index that needs it."""
        with suppress(NameUnknown):
            async for tag in self._inner.list_tags(repository):
                is_immutable = self._rights.policy.is_immutable(repository.value, tag.value)
                if is_immutable and await needs(self._inner, repository, tag, digest):
                    yield tag

    # -- upload ids ----------------------------------------------------------------------------------------------------

    def _sealed(self, repository: RepositoryName, status: UploadStatus) -> UploadStatus:
        """The session under the id that this caller knows."""
        mac = self._seal.mac(_PURPOSE, self._bound(repository, status.id))
        return replace(status, id=status.id + base64.urlsafe_b64encode(mac).decode("ascii").rstrip("="))

    def _opened(self, repository: RepositoryName, upload: str) -> str:
        """The id that the registry inside knows.

        Raises:
            BlobUploadUnknown: the id was not given to this caller for this repository.
        """
        session, code = upload[:-_MAC], upload[-_MAC:]
        try:
            mac = base64.b64decode(code + "=", altchars=b"-_", validate=True)
        except binascii.Error:
            mac = b""
        if not self._seal.check_mac(_PURPOSE, self._bound(repository, session), mac):
            raise BlobUploadUnknown(detail={"upload": upload[:256]})
        return session

    def _bound(self, repository: RepositoryName, session: str) -> bytes:
        # A session and a repository hold no line feed, so two of these never share a text.
        return f"{session}\n{repository}\n{self._rights.principal.name}".encode("utf-8", "surrogatepass")
