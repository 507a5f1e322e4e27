"""RemoteRegistry: the ``Registry`` protocol over HTTP.

Law: an answer is believed only as far as it can be checked. Manifests are hashed, blobs read whole are hashed, lengths
are caps, lists must advance; whatever a registry says wrongly becomes ``BadAnswer``, never a wrong result.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Self, TypeVar

from moorage.puller.answers import digest_of, is_range, length_of, type_of
from moorage.puller.errors import BadAnswer
from moorage.puller.hosts import HostConfig
from moorage.puller.login import Login
from moorage.puller.pages import read_names, read_pages
from moorage.puller.referrers_tag import parse_referrers, tag_of, with_referrer
from moorage.puller.remote_uploader import RemoteUploader
from moorage.puller.sessions import cut, with_digest
from moorage.puller.transport import Answer, RetryPolicy, Timeouts, Transport
from moorage.puller.uploads import Upload
from moorage.puller.wire import Wire, location_of
from moorage.registry.oci import (
    ANY_VALUE,
    CANONICAL,
    MANIFEST_LIMIT,
    BlobLocation,
    BlobStream,
    BlobUnknown,
    Descriptor,
    Digest,
    DigestInvalid,
    Manifest,
    ManifestInvalid,
    ManifestUnknown,
    NotFound,
    OciError,
    RepositoryName,
    Tag,
    TagCondition,
    TagOrDigest,
    Unsupported,
    routes,
    verified,
)
from moorage.registry.oci.media_types import IMAGE_TYPES, INDEX_TYPES, MANIFEST_ACCEPT, OCTET_STREAM
from moorage.registry.oci.values import dataclass

if TYPE_CHECKING:
    from moorage.puller.credentials import Keys

__all__ = ["RemoteRegistry"]

_ACCEPT = {"Accept": f"{MANIFEST_ACCEPT}, */*;q=0.5"}
_BINARY = {"Content-Type": OCTET_STREAM}
_Raw = TypeVar("_Raw")
_Value = TypeVar("_Value")


class RemoteRegistry(RemoteUploader):
    """A registry reached over HTTP. Make one with ``connect``."""

    def __repr__(self) -> str:
        return f"<RemoteRegistry {self._wire.origin}>"

    @property
    def retry(self) -> RetryPolicy:
        """How patiently requests are repeated."""
        return self._wire.retry

    @classmethod
    @asynccontextmanager
    async def connect(
        cls,
        registry: str,
        *,
        keychain: Keys | None = None,
        hosts: HostConfig | None = None,
        retry: RetryPolicy | None = None,
        timeouts: Timeouts | None = None,
    ) -> AsyncIterator[Self]:
        """The registry at ``host`` or ``host:port``; nothing is sent yet. Its mirrors are not used.

        Args:
            keychain: who we are; None: whoever this machine's user is (``Keychain.default``).
            hosts: how registries are reached; None: what is configured (``HostConfig.load``).

        Raises:
            HostsInvalid: the configuration cannot be meant.
        """
        config = HostConfig.load() if hosts is None else hosts
        host = config.of(registry)
        async with Transport(retry=retry, route=config.route, timeouts=timeouts) as transport:
            login = Login(transport, host.origin, keychain, realms=host.realms)
            yield cls(Wire(transport, host.origin, login))

    async def ping(self) -> None:
        """Returns if this is a registry and it lets us in.

        Raises:
            Unauthorized, Denied: it does not.
        """
        async with self._wire.call(routes.Ping()):
            pass

    async def resolve_blob(self, repository: RepositoryName, digest: Digest, *, for_push: bool = False) -> Descriptor:
        """See ``Reader``; the registry judges by our rights whether we may rely on it for a push."""
        async with self._wire.call(routes.HeadBlob(repository, digest)) as answer:
            return Descriptor(OCTET_STREAM, digest, length_of(answer))

    @asynccontextmanager
    async def read_unverified(self, repository: RepositoryName, digest: Digest) -> AsyncIterator[BlobStream]:
        """The whole blob as it comes, for a reader who verifies it."""
        async with self._wire.call(routes.GetBlob(repository, digest)) as answer:
            yield RemoteBlob(Descriptor(OCTET_STREAM, digest, length_of(answer)), answer.chunks())

    @asynccontextmanager
    async def read_blob(
        self, repository: RepositoryName, digest: Digest, *, start: int = 0, stop: int | None = None
    ) -> AsyncIterator[BlobStream]:
        """See ``Reader``. Read whole, the bytes are checked against the digest; a range cannot be."""
        if start == 0 and stop is None:
            async with self.read_unverified(repository, digest) as whole:
                yield RemoteBlob(whole.descriptor, verified(whole, whole.descriptor))
            return
        blob = await self.resolve_blob(repository, digest)
        stop = blob.size if stop is None else min(stop, blob.size)
        if start >= stop:
            yield RemoteBlob(blob, _nothing())
            return
        headers = {"Range": f"bytes={start}-{stop - 1}"}
        async with self._wire.call(routes.GetBlob(repository, digest), headers=headers) as answer:
            skipped = 0 if is_range(answer, start, stop) else start
            yield RemoteBlob(blob, cut(answer.chunks(), skip=skipped, take=stop - start))

    async def locate_blob(
        self, repository: RepositoryName, digest: Digest, *, ttl: int, headers: Mapping[str, str]
    ) -> BlobLocation | None:
        """See ``Reader``. None: whom a registry redirects is its own business; we follow, and check what comes."""
        return None

    @asynccontextmanager
    async def get_blob(
        self, repository: RepositoryName, blob: Descriptor, *, start: int, stop: int
    ) -> AsyncIterator[Answer]:
        """The answer to a GET of these bytes, not judged, after one attempt: what ``fetch.BlobSource`` asks for.

        A foreign layer that the registry does not have is asked for at its ``urls``.
        """
        headers = {} if (start, stop) == (0, blob.size) else {"Range": f"bytes={start}-{stop - 1}"}
        async with self._wire.ask(routes.GetBlob(repository, blob.digest), headers=headers) as answer:
            if answer.status != 404 or not blob.urls:
                yield answer
                return
        async with self._wire.ask_elsewhere(blob.urls, headers=headers) as answer:
            yield answer

    def distrust(self, blob: Descriptor) -> bool:
        """See ``fetch.BlobSource``: there is no other place than this one."""
        return False

    def is_second_hand(self, blob: Descriptor) -> bool:
        """See ``fetch.BlobSource``."""
        return False

    async def resolve_manifest(self, repository: RepositoryName, reference: TagOrDigest) -> Descriptor:
        """See ``Reader``. Asks with HEAD; reads the manifest where the answer leaves something out."""
        try:
            async with self._wire.call(routes.HeadManifest(repository, reference), headers=_ACCEPT) as answer:
                digest, size, media_type = digest_of(answer), answer.content_length, type_of(answer)
        except Unsupported:
            digest = None
        if digest is None or size is None or media_type is None:
            return (await self.read_manifest(repository, reference)).descriptor
        if isinstance(reference, Digest) and digest != reference:
            raise BadAnswer(f"{self._wire.origin}: answered {digest} when asked for {reference}")
        return Descriptor(media_type, digest, size)

    async def read_manifest(self, repository: RepositoryName, reference: TagOrDigest) -> Manifest:
        """See ``Reader``."""
        async with self._wire.call(routes.GetManifest(repository, reference), headers=_ACCEPT) as answer:
            content = await answer.read_body(MANIFEST_LIMIT)
            named = reference if isinstance(reference, Digest) else digest_of(answer)
            media_type = type_of(answer)
        digest = Digest.of(content, named.algorithm if named else CANONICAL)
        if named is not None and digest != named:
            raise BadAnswer(f"{self._wire.origin}: the manifest {reference} does not have the digest {named}")
        try:
            manifest = Manifest.of(content, media_type, digest=digest)
            _ = manifest.document  # parsed where it can be said whose it is
        except ManifestInvalid as exc:
            what = f"{self._wire.origin}: manifest {reference} of {repository}"
            raise BadAnswer(f"{what}: {exc.message}", detail=exc.detail) from exc
        return manifest

    async def push_blob(
        self, repository: RepositoryName, descriptor: Descriptor, content: AsyncIterable[bytes]
    ) -> Descriptor:
        """See ``Writer``. One POST and one PUT; the session is dropped if ``content`` fails."""
        digest = descriptor.digest
        algorithm = None if digest.algorithm == CANONICAL else digest.algorithm
        async with self._wire.call(routes.StartUpload(repository, algorithm=algorithm), idempotent=False) as answer:
            location = location_of(answer)
        headers = {**_BINARY, "Content-Length": str(descriptor.size)}
        closing = routes.FinishUpload(repository, "-", digest)
        try:
            async with self._wire.call(
                closing,
                at=with_digest(location, digest),
                headers=headers,
                body=verified(content, descriptor),
                idempotent=False,
            ):
                return Descriptor(OCTET_STREAM, digest, descriptor.size)
        except Exception:
            with suppress(OciError):  # the first failure is the news; a session that stays expires by itself
                async with self._wire.call(routes.CancelUpload(repository, "-"), at=location, idempotent=False):
                    pass
            raise

    def upload(self, repository: RepositoryName, blob: Descriptor) -> Upload:
        """An upload of the blob that can mount, and goes on after a broken connection; nothing is sent yet."""
        return Upload(self._wire, repository, blob)

    async def mount_blob(
        self, repository: RepositoryName, digest: Digest, *, source: RepositoryName | None = None
    ) -> Descriptor:
        """See ``Writer``. Where the registry opens an upload instead of mounting, that is cancelled."""
        endpoint = routes.StartUpload(repository, mount=digest, source=source)
        async with self._wire.call(endpoint, idempotent=False) as answer:
            location = location_of(answer) if answer.status == 202 else None
        if location is None:
            return await self.resolve_blob(repository, digest)
        with suppress(OciError):  # a session that stays expires by itself
            async with self._wire.call(routes.CancelUpload(repository, "-"), at=location, idempotent=False):
                pass
        raise BlobUnknown(f"{source or 'no repository'} has the blob to mount", detail={"digest": str(digest)})

    async def push_manifest(
        self,
        repository: RepositoryName,
        manifest: Manifest,
        *,
        tags: Sequence[Tag] = (),
        condition: TagCondition = ANY_VALUE,
    ) -> Descriptor:
        """See ``Writer``. One tag goes into the path, as every registry knows it; several go as ``?tag=``."""
        digest, tags = manifest.digest, tuple(dict.fromkeys(tags))
        if Digest.of(manifest.content, digest.algorithm) != digest:
            raise DigestInvalid("the manifest does not have its digest", detail={"digest": str(digest)})
        if len(tags) == 1 and digest.algorithm == CANONICAL:
            taken = await self._put_manifest(routes.PutManifest(repository, tags[0]), manifest, condition)
        else:
            taken = await self._put_by_digest(repository, manifest, tags, condition)
        if not taken.knows_subjects and manifest.media_type in IMAGE_TYPES | INDEX_TYPES:
            await self._record_referrer(repository, manifest)
        return manifest.descriptor

    async def _put_by_digest(
        self, repository: RepositoryName, manifest: Manifest, tags: tuple[Tag, ...], condition: TagCondition
    ) -> _Taken:
        for first in range(0, len(tags) or 1, routes.MAX_TAGS):
            some = tags[first : first + routes.MAX_TAGS]
            taken = await self._put_manifest(routes.PutManifest(repository, manifest.digest, some), manifest, condition)
            for tag in (tag for tag in some if str(tag) not in taken.tags):
                await self._put_manifest(routes.PutManifest(repository, tag), manifest, condition)
        return taken

    async def _put_manifest(self, endpoint: routes.PutManifest, manifest: Manifest, condition: TagCondition) -> _Taken:
        headers = {"Content-Type": manifest.media_type}
        if condition.absent:
            headers["If-None-Match"] = "*"
        if condition.digest is not None:
            headers["If-Match"] = f'"{condition.digest}"'
        is_plain = condition == ANY_VALUE
        async with self._wire.call(endpoint, headers=headers, body=manifest.content, idempotent=is_plain) as answer:
            stored = digest_of(answer)
            if stored is not None and stored.algorithm == manifest.digest.algorithm and stored != manifest.digest:
                raise BadAnswer(f"{self._wire.origin}: stored {manifest.digest} as {stored}")
            tags = {tag.strip() for line in answer.header_lines("OCI-Tag") for tag in line.split(",")}
            return _Taken(frozenset(tags), answer.header("OCI-Subject") is not None)

    async def _record_referrer(self, repository: RepositoryName, manifest: Manifest) -> None:
        """Does what a registry without a referrers API leaves to its clients."""
        subject = manifest.document.subject
        if subject is not None:
            updated = with_referrer(await self._read_referrers_tag(repository, subject.digest), manifest.as_referrer())
            if updated is not None:
                await self._put_manifest(routes.PutManifest(repository, tag_of(subject.digest)), updated, ANY_VALUE)

    async def delete_blob(self, repository: RepositoryName, digest: Digest) -> None:
        """See ``Deleter``."""
        async with self._wire.call(routes.DeleteBlob(repository, digest), idempotent=False):
            pass

    async def delete_manifest(self, repository: RepositoryName, digest: Digest) -> None:
        """See ``Deleter``."""
        async with self._wire.call(routes.DeleteManifest(repository, digest), idempotent=False):
            pass

    async def delete_tag(self, repository: RepositoryName, tag: Tag) -> None:
        """See ``Deleter``."""
        async with self._wire.call(routes.DeleteManifest(repository, tag), idempotent=False):
            pass

    async def list_repositories(self, *, after: RepositoryName | None = None) -> AsyncIterator[RepositoryName]:
        """See ``Lister``."""
        async for name in read_names(self._wire, routes.ListRepositories(routes.MAX_PAGE, after), "repositories"):
            yield _parsed(RepositoryName.parse, name)

    async def list_tags(self, repository: RepositoryName, *, after: str = "") -> AsyncIterator[Tag]:
        """See ``Lister``."""
        async for name in read_names(self._wire, routes.ListTags(repository, routes.MAX_PAGE, after), "tags"):
            yield _parsed(Tag.parse, name)

    async def list_referrers(
        self, repository: RepositoryName, subject: Digest, *, artifact_type: str | None = None, after: str = ""
    ) -> AsyncIterator[Descriptor]:
        """See ``Lister``. Falls back to the tag that stands in for the API (spec "Referrers Tag Schema")."""
        endpoint = routes.ListReferrers(repository, subject, artifact_type, None, after)
        try:
            async for document, _ in read_pages(self._wire, endpoint):
                for referrer in _parsed(parse_referrers, document):
                    if _is_wanted(referrer, artifact_type, after):
                        yield referrer
        except NotFound:
            current = await self._read_referrers_tag(repository, subject)
            for referrer in current.document.manifests if current else ():
                if _is_wanted(referrer, artifact_type, after):
                    yield referrer

    async def _read_referrers_tag(self, repository: RepositoryName, subject: Digest) -> Manifest | None:
        try:
            return await self.read_manifest(repository, tag_of(subject))
        except ManifestUnknown:
            return None


@dataclass(frozen=True, slots=True)
class _Taken:
    """What a registry confirmed of a manifest: the tags of the query, and that it keeps track of subjects."""

    tags: frozenset[str]
    knows_subjects: bool


class RemoteBlob:
    """A blob, or a range of one, on its way from a registry."""

    def __init__(self, descriptor: Descriptor, content: AsyncIterator[bytes]) -> None:
        self.descriptor = descriptor
        self._content = content

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._content


async def _nothing() -> AsyncIterator[bytes]:
    nothing: tuple[bytes, ...] = ()
    for chunk in nothing:
        yield chunk


def _is_wanted(referrer: Descriptor, artifact_type: str | None, after: str) -> bool:
    return artifact_type in (None, referrer.artifact_type) and str(referrer.digest) > after


def _parsed(parse: Callable[[_Raw], _Value], raw: _Raw) -> _Value:
    """What the registry sent, parsed; its mistakes are not the caller's."""
    try:
        return parse(raw)
    except OciError as exc:
        raise BadAnswer(f"the registry sent something unreadable: {exc.message}", detail=exc.detail) from exc
