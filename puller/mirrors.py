"""A registry with mirrors in front of it, for reading: each mirror is asked first, the registry itself last.

Law: a mirror is a convenience. Whatever it lacks, refuses or gets wrong, the next one is asked, and the registry's own
answer is final; what was asked for by digest is checked wherever it comes from. A mirror that fails is left alone for a
while, one that sent wrong bytes of a blob is not asked for that blob again.
A mirror that answers for a tag is believed: who configures it says so, as with containerd and podman.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from moorage.puller.errors import BadAnswer
from moorage.puller.events import OnEvent, Warned
from moorage.puller.fetch.judge import RangeRefused, body_start
from moorage.puller.messages import Answer
from moorage.puller.origins import redact
from moorage.puller.remote import RemoteRegistry
from moorage.registry.oci import (
    BlobLocation,
    BlobStream,
    Descriptor,
    Digest,
    Manifest,
    NotFound,
    OciError,
    RepositoryName,
    TagOrDigest,
    Unavailable,
)

__all__ = ["Front", "Mirrored"]

_REST = 30.0
"""Seconds for which a mirror that failed is not asked."""

_Value = TypeVar("_Value")


@dataclass
class Front:
    """A mirror in use. ``name``: to show; ``name_of``: its name for a repository of the registry."""

    name: str
    registry: RemoteRegistry
    name_of: Callable[[str], str]
    rests_until: float = 0.0
    distrusted: set[Digest] = field(default_factory=set)

    def repository(self, name: RepositoryName) -> RepositoryName:
        """The mirror's name for a repository.

        Raises:
            NameInvalid: it would be none.
        """
        return RepositoryName.parse(self.name_of(str(name)))


class Mirrored:
    """Reads from mirrors, then from the registry: see ``Reader`` and ``fetch.BlobSource``."""

    def __init__(self, fronts: Sequence[Front], home: RemoteRegistry, *, on_event: OnEvent) -> None:
        self._fronts, self._home, self._on_event = fronts, home, on_event
        self._served: dict[Digest, list[Front]] = {}

    def __repr__(self) -> str:
        return f"<Mirrored {self._home!r} by {', '.join(front.name for front in self._fronts)}>"

    async def resolve_blob(self, repository: RepositoryName, digest: Digest, *, for_push: bool = False) -> Descriptor:
        """See ``Reader``. About a push only the registry itself can answer."""
        if for_push:
            return await self._home.resolve_blob(repository, digest, for_push=True)
        return await self._first(repository, lambda registry, name: registry.resolve_blob(name, digest))

    @asynccontextmanager
    async def read_blob(
        self, repository: RepositoryName, digest: Digest, *, start: int = 0, stop: int | None = None
    ) -> AsyncIterator[BlobStream]:
        """See ``Reader``. Once bytes flow there is no other place: who needs that uses ``get_blob``."""
        async with AsyncExitStack() as stack:

            async def opened(registry: RemoteRegistry, name: RepositoryName) -> BlobStream:
                return await stack.enter_async_context(registry.read_blob(name, digest, start=start, stop=stop))

            yield await self._first(repository, opened)

    async def locate_blob(
        self, repository: RepositoryName, digest: Digest, *, ttl: int, headers: Mapping[str, str]
    ) -> BlobLocation | None:
        """See ``Reader``. None: see ``RemoteRegistry``."""
        return None

    async def resolve_manifest(self, repository: RepositoryName, reference: TagOrDigest) -> Descriptor:
        """See ``Reader``."""
        return await self._first(repository, lambda registry, name: registry.resolve_manifest(name, reference))

    async def read_manifest(self, repository: RepositoryName, reference: TagOrDigest) -> Manifest:
        """See ``Reader``."""
        return await self._first(repository, lambda registry, name: registry.read_manifest(name, reference))

    @asynccontextmanager
    async def get_blob(
        self, repository: RepositoryName, blob: Descriptor, *, start: int, stop: int
    ) -> AsyncIterator[Answer]:
        """See ``BlobSource``. A mirror's answer is judged here, so that an unfit one is never seen."""
        for front in self._rested(blob.digest):
            async with AsyncExitStack() as stack:
                try:
                    name = front.repository(repository)
                    answer = await stack.enter_async_context(
                        front.registry.get_blob(name, blob, start=start, stop=stop)
                    )
                    _check_fitness(answer, blob, start=start, stop=stop)
                except OciError as exc:
                    self._fell_short(front, exc, blob.digest)
                    continue
                self._served.setdefault(blob.digest, []).append(front)
                try:
                    yield answer
                except RangeRefused:
                    raise
                except OciError as exc:  # while the caller was reading: it broke off, stalled, or sent too much
                    self._fell_short(front, exc, blob.digest)
                    raise Unavailable(f"mirror {front.name}: {exc.message}") from exc
                return
        async with self._home.get_blob(repository, blob, start=start, stop=stop) as answer:
            yield answer

    def is_second_hand(self, blob: Descriptor) -> bool:
        """See ``BlobSource``."""
        return blob.digest in self._served or any(blob.digest in front.distrusted for front in self._fronts)

    def distrust(self, blob: Descriptor) -> bool:
        """See ``BlobSource``. The mirrors that sent some of it are not asked for it again."""
        fronts = self._served.pop(blob.digest, [])
        for front in {id(front): front for front in fronts}.values():
            front.distrusted.add(blob.digest)
            self._on_event(Warned(f"mirror {front.name}: sent wrong bytes of {blob.digest}"))
        return bool(fronts)

    async def _first(
        self, repository: RepositoryName, ask: Callable[[RemoteRegistry, RepositoryName], Awaitable[_Value]]
    ) -> _Value:
        for front in self._rested():
            try:
                return await ask(front.registry, front.repository(repository))
            except OciError as exc:
                self._fell_short(front, exc)
        return await ask(self._home, repository)

    def _rested(self, digest: Digest | None = None) -> Iterator[Front]:
        now = time.monotonic()
        return (front for front in self._fronts if front.rests_until <= now and digest not in front.distrusted)

    def _fell_short(self, front: Front, failure: OciError, digest: Digest | None = None) -> None:
        """That a mirror lacks something is its right; any other failure is told, and spares it for a while."""
        if isinstance(failure, NotFound):
            if digest is not None:
                front.distrusted.add(digest)
            return
        front.rests_until = time.monotonic() + _REST
        self._on_event(Warned(f"mirror {front.name}: {failure.message}"))


def _check_fitness(answer: Answer, blob: Descriptor, *, start: int, stop: int) -> None:
    """Accepts an answer that brings bytes of the blob, or says that there are no ranges.

    Raises:
        OciError: it is another.
    """
    try:
        body_start(answer, blob, start=start, stop=stop)
    except RangeRefused:
        return
    except LookupError:
        message = f"{redact(answer.url)}: answered {answer.status}"
        raise (NotFound if answer.status == 404 else BadAnswer)(message) from None
