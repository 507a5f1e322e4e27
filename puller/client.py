"""The client as a library, for asyncio: pull, push, copy, and looking at what registries have.

    async with AsyncClient() as client:
        result = await client.pull("127.0.0.1:5000/team/app:v1", unpack="rootfs")

Law: no prints, no global state; what is shown is made of events. References and platforms are given as people type them
or as values; text that is not well written is ``BadReference``. What a method needs is imported when it is called, so
that a pull does not load what pushes (``Client`` in ``blocking`` is the same for programs without asyncio).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Self, cast

from moorage.puller.connections import Connections
from moorage.puller.errors import BadReference, DeadlineExceeded
from moorage.puller.events import OnEvent, ignore
from moorage.puller.platforms import host_platform, parse_platform
from moorage.puller.references import parse_reference
from moorage.puller.store import Store, default_store
from moorage.registry.oci import Descriptor, Digest, Platform, Reference

if TYPE_CHECKING:
    from moorage.puller.credentials import Keys
    from moorage.puller.ends import Extent, Opener
    from moorage.puller.hosts import HostConfig
    from moorage.puller.images import Image
    from moorage.puller.messages import RetryPolicy, Timeouts
    from moorage.puller.pack import PackOptions
    from moorage.puller.places import Spot
    from moorage.puller.resolve import Policy
    from moorage.puller.results import PullResult
    from moorage.puller.transfer import CopyResult, Plan
    from moorage.puller.unpack.owners import OwnerMode
    from moorage.registry.oci import Registry

__all__ = ["AsyncClient", "to_platform", "to_reference"]


class AsyncClient:
    """Use it in ``async with``, in one event loop; its methods may run side by side.

    Args:
        store: where pulled images are kept; None: ``$MOORAGE_STORE``, else the user's data. Made when first needed.
        keychain: who we are; None: docker's and podman's files and helpers, as the environment names them.
        hosts: how registries are reached; None: the user's configuration.
        retry: how patiently requests are repeated; None: five attempts, for parts of blobs seven.
        timeouts: when a connection is given up; None: the defaults of ``Timeouts``.
        on_event: is told what happens, in the event loop's thread; methods may be given another.
    """

    def __init__(
        self,
        store: Store | str | os.PathLike[str] | None = None,
        *,
        keychain: Keys | None = None,
        hosts: HostConfig | None = None,
        retry: RetryPolicy | None = None,
        timeouts: Timeouts | None = None,
        on_event: OnEvent = ignore,
    ) -> None:
        self._store = store
        self._retry, self._on_event = retry, on_event
        self._connections = Connections(
            keychain=keychain, hosts=hosts, retry=retry, timeouts=timeouts, on_event=on_event
        )

    def __repr__(self) -> str:
        return f"<AsyncClient store={self._store or default_store()!r}>"

    async def __aenter__(self) -> Self:
        await self._connections.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._connections.__aexit__(kind, exc, trace)

    @property
    def store(self) -> Store:
        """The store; using it makes it."""
        if not isinstance(self._store, Store):
            self._store = Store(os.fspath(self._store or default_store()))
        return self._store

    async def resolve(self, reference: Reference | str, *, platform: Platform | str | None = None) -> Descriptor:
        """What the reference names, without fetching it (HEAD).

        Args:
            platform: chooses from an index; None: the index itself.

        Raises:
            ManifestUnknown: there is no such image.
            NoMatchingPlatform: the index has none for ``platform``.
        """
        spot = await self._find(reference)
        if platform is None:
            return await spot.place.registry.resolve_manifest(spot.place.repository, spot.target)
        from moorage.puller.transfer import find_image  # noqa: PLC0415 (see the law)

        return (await find_image(spot.place, spot.target, to_platform(platform))).descriptor

    async def image(
        self, reference: Reference | str, *, platform: Platform | str | None = None, index: bool = False
    ) -> Image:
        """The image with its config, to look into; layers are fetched when they are read.

        Args:
            platform: chooses from an index; None: this machine's.
            index: an index itself; no platform is chosen.

        Raises:
            ManifestUnknown: there is no such image.
            NoMatchingPlatform: the index has none for the platform.
        """
        from moorage.puller.images import open_image  # noqa: PLC0415 (see the law)

        spot = await self._find(reference)
        chosen = None if index else to_platform(platform) or host_platform()
        return await open_image(spot.name, spot.place, spot.target, chosen)

    async def pull(
        self,
        reference: Reference | str,
        *,
        platform: Platform | str | None = None,
        unpack: str | os.PathLike[str] | None = None,
        trees: bool = True,
        owners: OwnerMode | None = None,
        policy: Policy = "always",
        deadline: float | None = None,
        on_event: OnEvent | None = None,
    ) -> PullResult:
        """Makes the image complete in the store, and unpacks it; what is there already is not fetched.

        Args:
            platform: which image of an index, or what an image alone must be for; None: this machine's, or any.
            unpack: a directory that must not exist, or be empty: the files of the image, as one tree.
            trees: without ``unpack``, each layer gets its own tree in the store, shared by all images.
            owners: whose the files of ``unpack`` become; None: as the image says for root, the caller's for others.
            policy: whether the registry is asked what the reference names: ``always``, if it is ``missing``, ``never``.
            deadline: seconds for all of it; None: as long as bytes come.

        Raises:
            NotFound: there is no such image.
            Unauthorized, Denied: we may not have it.
            RateLimited, Unreachable, Stalled: the registry would not, or the network, after all retries.
            DigestMismatch, BadAnswer: the registry sent something wrong.
            NoMatchingPlatform, BrokenLayer, UnsafeLayer, TargetExists: the image cannot be had as asked.
            StoreFull: what is to be fetched cannot fit the store's disk.
            DeadlineExceeded: it took longer; what has arrived is kept for the next pull.
            OSError: the disk refuses.
        """
        from moorage.puller.pull import pull_image  # noqa: PLC0415 (see the law)

        wanted = to_reference(reference)
        async with _deadline(deadline):
            return await pull_image(
                await self._connections.source(wanted.registry),
                wanted,
                self.store,
                platform=to_platform(platform),
                policy=policy,
                target=None if unpack is None else os.fspath(unpack),
                trees=trees,
                owners=owners,
                host=self._connections.host(wanted.registry),
                retry=self._retry,
                on_event=on_event or self._on_event,
            )

    async def plan_pull(self, reference: Reference | str, *, platform: Platform | str | None = None) -> Plan:
        """What ``pull`` would fetch, which it does not; what earlier pulls left of a blob is not counted.

        Raises:
            NotFound, NoMatchingPlatform, OciError: as ``pull``, as far as reading manifests meets it.
        """
        from moorage.puller.archives.refusing import Nothing  # noqa: PLC0415 (see the law)
        from moorage.puller.fetch.ingest import held_bytes  # noqa: PLC0415
        from moorage.puller.transfer import Place, Wish, plan_copy  # noqa: PLC0415

        wanted = to_reference(reference)
        # Of its source a plan reads manifests, which mirrors have, too.
        source = Place(cast("Registry", await self._connections.source(wanted.registry)), wanted.repository)
        tags = [wanted.tag] if wanted.tag else []
        wish = Wish(wanted.target, tags=tags, platform=to_platform(platform) or host_platform(), foreign=True)
        if not (isinstance(self._store, Store) or os.path.isdir(self._store or default_store())):  # noqa: ASYNC240
            return await plan_copy(source, wish, Place(Nothing("the store"), wanted.repository))
        plan = await plan_copy(source, wish, Place(self.store.view(wanted.registry), wanted.repository))
        blobs = [replace(blob, held=held_bytes(self.store.files, blob.descriptor)) for blob in plan.blobs]
        return replace(plan, blobs=tuple(blobs))

    async def push(
        self,
        source: str | os.PathLike[str],
        reference: Reference | str,
        *,
        platform: Platform | str | None = None,
        pack: PackOptions | None = None,
        referrers: bool = False,
        foreign: bool = False,
        deadline: float | None = None,
        on_event: OnEvent | None = None,
    ) -> CopyResult:
        """Makes an image of ours readable in a registry under the tag of ``reference``; what is there is not sent.

        Args:
            source: a directory (packed into one layer), an OCI layout (``DIR``, ``DIR:NAME``), an archive
                (``docker-archive:FILE[:NAME]``, ``oci-archive:FILE[:NAME]``), or a reference that the store holds.
            platform: of a directory: what the image says it is for; of an index: sends only this one.
            pack: how a directory is packed: compression, owners, what is left out.
            referrers: signatures, SBOMs and whatever else refers to the image, too.
            foreign: foreign layers, too, which otherwise stay at their vendor's.
            deadline: seconds for all of it; None: as long as bytes go.

        Raises:
            BadReference: ``reference`` has no tag.
            ImageError: the source cannot be pushed.
            OciError: what the registry refused.
            DeadlineExceeded: it took longer.
        """
        told, extent = on_event or self._on_event, _extent(platform, referrers=referrers, foreign=foreign)
        opening = self._opener().pushing(
            os.fspath(source), str(reference), extent, pack=pack, on_event=told, plan=False
        )
        async with _deadline(deadline), opening as ends:
            return await ends.copy(told)

    async def plan_push(
        self,
        source: str | os.PathLike[str],
        reference: Reference | str,
        *,
        platform: Platform | str | None = None,
        pack: PackOptions | None = None,
        referrers: bool = False,
        foreign: bool = False,
    ) -> Plan:
        """What ``push`` would do, which it does not: a directory is packed for it, but nothing is sent.

        Raises:
            BadReference, ImageError, OciError: as ``push``, as far as reading meets it.
        """
        extent = _extent(platform, referrers=referrers, foreign=foreign)
        opening = self._opener().pushing(
            os.fspath(source), str(reference), extent, pack=pack, on_event=self._on_event, plan=True
        )
        async with opening as ends:
            return await ends.plan()

    async def copy(
        self,
        source: Reference | str,
        destination: Reference | str,
        *,
        platform: Platform | str | None = None,
        referrers: bool = False,
        foreign: bool = False,
        deadline: float | None = None,
        on_event: OnEvent | None = None,
    ) -> CopyResult:
        """Copies an image between registries, the store (``store:NAME``), layouts (``oci:DIR[:NAME]``) and archives
        (``docker-archive:FILE[:NAME]``, ``oci-archive:FILE[:NAME]``); digests do not change.

        Args:
            platform: takes one image out of an index; None: everything that ``source`` names.
            referrers: signatures, SBOMs and whatever else refers to the image, too.
            foreign: foreign layers, too, which otherwise stay at their vendor's.
            deadline: seconds for all of it; None: as long as bytes come.

        Raises:
            BadReference: ``destination`` has no tag.
            NotFound: there is no such image.
            OciError: what either side refused.
            DeadlineExceeded: it took longer.
        """
        extent = _extent(platform, referrers=referrers, foreign=foreign)
        opening = self._opener().copying(str(source), str(destination), extent, plan=False)
        async with _deadline(deadline), opening as ends:
            return await ends.copy(on_event or self._on_event)

    async def plan_copy(
        self,
        source: Reference | str,
        destination: Reference | str,
        *,
        platform: Platform | str | None = None,
        referrers: bool = False,
        foreign: bool = False,
    ) -> Plan:
        """What ``copy`` would do, which it does not.

        Raises:
            BadReference, NotFound, OciError: as ``copy``, as far as reading meets it.
        """
        extent = _extent(platform, referrers=referrers, foreign=foreign)
        async with self._opener().copying(str(source), str(destination), extent, plan=True) as ends:
            return await ends.plan()

    async def tags(self, repository: Reference | str) -> list[str]:
        """The tags of the repository, in the registry's order.

        Raises:
            NameUnknown: the registry has no such repository.
        """
        wanted = to_reference(repository)
        registry = await self._connections.remote(wanted.registry)
        return [str(tag) async for tag in registry.list_tags(wanted.repository)]

    async def referrers(self, reference: Reference | str, *, artifact_type: str | None = None) -> list[Descriptor]:
        """The manifests that say they refer to the image: signatures, SBOMs and the like.

        Raises:
            ManifestUnknown: there is no such image.
        """
        spot = await self._find(reference)
        registry, repository, subject = spot.place.registry, spot.place.repository, spot.target
        if not isinstance(subject, Digest):
            subject = (await registry.resolve_manifest(repository, subject)).digest
        return [found async for found in registry.list_referrers(repository, subject, artifact_type=artifact_type)]

    async def delete(self, reference: Reference | str) -> None:
        """Deletes the tag from its registry; given a digest, the manifest with all its tags.

        Raises:
            BadReference: the text names neither, and no default is deleted.
            ManifestUnknown: there is no such tag, or manifest.
            Unsupported: the registry deletes nothing.
        """
        wanted = to_reference(reference)
        if isinstance(reference, str) and wanted.digest is None and not reference.endswith(f":{wanted.tag}"):
            raise BadReference(f"{reference}: say which tag or digest to delete")
        registry = await self._connections.remote(wanted.registry)
        if wanted.digest is not None:
            await registry.delete_manifest(wanted.repository, wanted.digest)
        elif wanted.tag is not None:
            await registry.delete_tag(wanted.repository, wanted.tag)

    async def _find(self, reference: Reference | str) -> Spot:
        from moorage.puller.places import find_spot  # noqa: PLC0415 (see the law)

        return await find_spot(self._connections, str(reference), store=lambda: self.store)

    def _opener(self) -> Opener:
        from moorage.puller.ends import Opener  # noqa: PLC0415 (see the law)

        store = self._store if isinstance(self._store, Store) else os.fspath(self._store or default_store())
        return Opener(self._connections, store)


def _extent(platform: Platform | str | None, *, referrers: bool, foreign: bool) -> Extent:
    from moorage.puller.ends import Extent  # noqa: PLC0415 (see the module's law)

    return Extent(to_platform(platform), referrers, foreign)


def to_reference(reference: Reference | str) -> Reference:
    """The value of what a person typed.

    Raises:
        BadReference: it is not well written.
    """
    return parse_reference(reference) if isinstance(reference, str) else reference


def to_platform(platform: Platform | str | None) -> Platform | None:
    """The value of what a person typed.

    Raises:
        BadReference: it is not well written.
    """
    try:
        return parse_platform(platform) if isinstance(platform, str) else platform
    except ValueError as exc:
        raise BadReference(str(exc)) from exc


@asynccontextmanager
async def _deadline(seconds: float | None) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds) as timer:
            yield
    except TimeoutError:
        if not timer.expired():
            raise
        raise DeadlineExceeded(f"not done within {seconds:g} seconds") from None
