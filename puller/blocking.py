"""The client for programs without asyncio: the same methods, which return when all is done.

    with Client() as client:
        result = client.pull("127.0.0.1:5000/team/app:v1", unpack="rootfs")

Law: everything runs in one event loop in a thread of the client's own, started with the first call. So it works in any
thread, in several at once, and where a loop runs already (Jupyter); only callbacks for events are called in that thread
and must not call the client. An interrupt (Ctrl-C) cancels what runs; closing waits for it.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent.futures import Future, wait
from contextlib import AbstractAsyncContextManager, contextmanager
from types import TracebackType
from typing import Any, BinaryIO, Generic, Self, TypeVar

from moorage.puller.client import AsyncClient
from moorage.puller.credentials import Keys
from moorage.puller.entries import Entry
from moorage.puller.events import OnEvent, ignore
from moorage.puller.hosts import HostConfig
from moorage.puller.images import Image, ImageLayer
from moorage.puller.messages import RetryPolicy, Timeouts
from moorage.puller.pack import PackOptions
from moorage.puller.resolve import Policy
from moorage.puller.results import PullResult
from moorage.puller.stock.images import Step
from moorage.puller.store import Store
from moorage.puller.transfer import CopyResult, Plan
from moorage.puller.unpack.owners import OwnerMode
from moorage.registry.oci import Descriptor, Digest, ImageIndex, ImageManifest, Manifest, Platform, Reference
from moorage.registry.oci.values import dataclass

__all__ = ["BlockingImage", "BlockingLayer", "Client"]

_T = TypeVar("_T")


class _Background:
    """An event loop in a thread, that starts with its first work."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: tuple[asyncio.AbstractEventLoop, threading.Thread] | None = None
        self._is_closed = False

    def run(self, work: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """What the work returns or raises. An interrupt of this thread cancels it and waits until it has cleaned up."""
        job = _Job(work)
        with self._lock:  # so that closing comes before this or after, and ends it then
            loop = self._start()
            loop.call_soon_threadsafe(job.start)
        try:
            return job.outcome.result()
        except BaseException:
            if not job.outcome.done():
                loop.call_soon_threadsafe(job.cancel)
                wait([job.outcome])
            raise

    def close(self) -> None:
        """Ends the loop; what runs there is cancelled first, and ends."""
        with self._lock:
            running, self._is_closed = None if self._is_closed else self._running, True
        if running is not None:
            loop, thread = running
            loop.call_soon_threadsafe(loop.stop)
            thread.join()

    def _start(self) -> asyncio.AbstractEventLoop:
        if self._is_closed:
            raise RuntimeError("the client is closed")
        if self._running is None:
            loop = asyncio.new_event_loop()
            thread = threading.Thread(target=_serve, args=(loop,), name="moorage-client", daemon=True)
            thread.start()
            self._running = loop, thread
        loop, thread = self._running
        if threading.current_thread() is thread:
            raise RuntimeError("a callback must not call the client that called it")
        return loop


class _Job(Generic[_T]):
    """Work for the loop, and what comes of it."""

    def __init__(self, work: Callable[[], Coroutine[Any, Any, _T]]) -> None:
        self.outcome: Future[_T] = Future()
        self._work = work
        self._task: asyncio.Task[_T] | None = None

    def start(self) -> None:
        """In the loop."""
        self._task = asyncio.get_running_loop().create_task(self._work())
        self._task.add_done_callback(self._deliver)

    def cancel(self) -> None:
        """In the loop."""
        if self._task is not None:
            self._task.cancel()

    def _deliver(self, task: asyncio.Task[_T]) -> None:
        if task.cancelled():
            self.outcome.set_exception(RuntimeError("the client was closed meanwhile"))
        elif (failure := task.exception()) is not None:
            self.outcome.set_exception(failure)
        else:
            self.outcome.set_result(task.result())


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    with asyncio.Runner(loop_factory=lambda: loop) as runner:  # leaving it cancels what is left, and waits for it
        runner.get_loop().run_forever()


class Client:
    """See the module; arguments and methods are those of ``AsyncClient``. Close it, or use it in ``with``."""

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
        self._client = AsyncClient(
            store, keychain=keychain, hosts=hosts, retry=retry, timeouts=timeouts, on_event=on_event
        )
        self._background = _Background()
        self._entering = threading.Lock()
        self._is_entered = False

    def __repr__(self) -> str:
        return repr(self._client).replace("AsyncClient", "Client")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections; what runs in other threads fails. Calling it again does nothing."""
        with self._entering:
            was_entered, self._is_entered = self._is_entered, False
            try:
                if was_entered:
                    self._background.run(lambda: self._client.__aexit__(None, None, None))
            finally:
                self._background.close()

    @property
    def store(self) -> Store:
        """See ``AsyncClient.store``."""
        return self._client.store

    def resolve(self, reference: Reference | str, *, platform: Platform | str | None = None) -> Descriptor:
        """See ``AsyncClient.resolve``."""
        return self._run(lambda: self._client.resolve(reference, platform=platform))

    def image(
        self, reference: Reference | str, *, platform: Platform | str | None = None, index: bool = False
    ) -> BlockingImage:
        """See ``AsyncClient.image``."""
        image = self._run(lambda: self._client.image(reference, platform=platform, index=index))
        return BlockingImage(image, self._background)

    def pull(
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
        """See ``AsyncClient.pull``."""
        return self._run(
            lambda: self._client.pull(
                reference,
                platform=platform,
                unpack=unpack,
                trees=trees,
                owners=owners,
                policy=policy,
                deadline=deadline,
                on_event=on_event,
            )
        )

    def plan_pull(self, reference: Reference | str, *, platform: Platform | str | None = None) -> Plan:
        """See ``AsyncClient.plan_pull``."""
        return self._run(lambda: self._client.plan_pull(reference, platform=platform))

    def push(
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
        """See ``AsyncClient.push``."""
        return self._run(
            lambda: self._client.push(
                source,
                reference,
                platform=platform,
                pack=pack,
                referrers=referrers,
                foreign=foreign,
                deadline=deadline,
                on_event=on_event,
            )
        )

    def plan_push(
        self,
        source: str | os.PathLike[str],
        reference: Reference | str,
        *,
        platform: Platform | str | None = None,
        pack: PackOptions | None = None,
        referrers: bool = False,
        foreign: bool = False,
    ) -> Plan:
        """See ``AsyncClient.plan_push``."""
        return self._run(
            lambda: self._client.plan_push(
                source, reference, platform=platform, pack=pack, referrers=referrers, foreign=foreign
            )
        )

    def copy(
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
        """See ``AsyncClient.copy``."""
        return self._run(
            lambda: self._client.copy(
                source,
                destination,
                platform=platform,
                referrers=referrers,
                foreign=foreign,
                deadline=deadline,
                on_event=on_event,
            )
        )

    def plan_copy(
        self,
        source: Reference | str,
        destination: Reference | str,
        *,
        platform: Platform | str | None = None,
        referrers: bool = False,
        foreign: bool = False,
    ) -> Plan:
        """See ``AsyncClient.plan_copy``."""
        return self._run(
            lambda: self._client.plan_copy(source, destination, platform=platform, referrers=referrers, foreign=foreign)
        )

    def tags(self, repository: Reference | str) -> list[str]:
        """See ``AsyncClient.tags``."""
        return self._run(lambda: self._client.tags(repository))

    def referrers(self, reference: Reference | str, *, artifact_type: str | None = None) -> list[Descriptor]:
        """See ``AsyncClient.referrers``."""
        return self._run(lambda: self._client.referrers(reference, artifact_type=artifact_type))

    def delete(self, reference: Reference | str) -> None:
        """See ``AsyncClient.delete``."""
        self._run(lambda: self._client.delete(reference))

    def _run(self, work: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        with self._entering:
            if not self._is_entered:
                self._background.run(self._client.__aenter__)
                self._is_entered = True
        return self._background.run(work)


@dataclass(frozen=True, slots=True)
class BlockingLayer:
    """An ``ImageLayer`` without asyncio."""

    _layer: ImageLayer
    _background: _Background

    @property
    def descriptor(self) -> Descriptor:
        """Of the blob."""
        return self._layer.descriptor

    @property
    def diff_id(self) -> Digest | None:
        """See ``ImageLayer``."""
        return self._layer.diff_id

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """See ``ImageLayer.open``."""
        with _entered(self._layer.open(), self._background) as file:
            yield file

    @contextmanager
    def uncompressed(self) -> Iterator[BinaryIO]:
        """See ``ImageLayer.uncompressed``."""
        with _entered(self._layer.uncompressed(), self._background) as file:
            yield file

    def files(self) -> list[Entry]:
        """See ``ImageLayer.files``."""
        return self._background.run(self._layer.files)


@dataclass(frozen=True, slots=True)
class BlockingImage:
    """An ``Image`` without asyncio."""

    _image: Image
    _background: _Background

    @property
    def reference(self) -> str:
        """How it was asked for."""
        return self._image.reference

    @property
    def descriptor(self) -> Descriptor:
        """Of the manifest."""
        return self._image.descriptor

    @property
    def digest(self) -> Digest:
        """Of the manifest."""
        return self._image.digest

    @property
    def manifest(self) -> Manifest:
        """The manifest, with its bytes."""
        return self._image.manifest

    @property
    def document(self) -> ImageManifest | ImageIndex:
        """The manifest, parsed."""
        return self._image.document

    @property
    def config(self) -> Mapping[str, Any]:
        """See ``Image``."""
        return self._image.config

    @property
    def layers(self) -> tuple[BlockingLayer, ...]:
        """See ``Image.layers``."""
        return tuple(BlockingLayer(layer, self._background) for layer in self._image.layers)

    @property
    def history(self) -> tuple[Step, ...]:
        """See ``Image.history``."""
        return self._image.history


@contextmanager
def _entered(manager: AbstractAsyncContextManager[_T], background: _Background) -> Iterator[_T]:
    """The asynchronous block, entered and left in the background."""
    entered = background.run(manager.__aenter__)
    try:
        yield entered
    finally:
        background.run(lambda: manager.__aexit__(None, None, None))
