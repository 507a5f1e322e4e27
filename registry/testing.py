"""A real registry for tests of what pulls and pushes: in this process, on a loopback port, with faults on demand.

    def test_deploy(registry):                              # the fixture of the pytest plugin, see ``pytest_plugin``
        registry.add_image("team/app:v1", {"etc/motd": "hi"})
        registry.inject(Refuse(429, retry_after=1), path="*/blobs/*", times=2)
        deploy(f"{registry.host}/team/app:v1")          # what you test: it has to come back after a second

Law: it is the server itself over a store in memory, in a thread with a loop of its own, so blocking tests, asyncio and
child processes may all talk to it. Nothing leaves it but its port; leaving the block ends it.
"""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import socket
import tarfile
import threading
from collections.abc import AsyncIterator, Coroutine, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from types import TracebackType
from typing import Any, Self, TypeVar

import uvloop
from moorage.registry.faults import (
    App,
    Corrupt,
    Drop,
    DropUpload,
    Fault,
    IgnoreRange,
    Receive,
    Refuse,
    Scope,
    Send,
    Slow,
    Stall,
    answer_with,
)
from moorage.registry.oci import Descriptor, Digest, Manifest, NameInvalid, Platform, Reference
from moorage.registry.oci.media_types import OCI_CONFIG, OCI_IMAGE, OCI_LAYER_GZIP
from moorage.registry.store import LocalRegistry
from moorage.registry.web.app import create_app
from moorage.registry.web.metrics import Table
from moorage.registry.web.server import Server
from moorage.storage_backends.memory import MemoryStore

__all__ = [
    "Corrupt",
    "Drop",
    "DropUpload",
    "Fault",
    "IgnoreRange",
    "Injected",
    "LoopbackRegistry",
    "Refuse",
    "Request",
    "Slow",
    "Stall",
]

_START_LIMIT = 20.0  # seconds
_PLATFORM = Platform("linux", "amd64")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it arrived. Header names are lower case. ``fault``: what was done to it."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    fault: Fault | None = None


@dataclass(slots=True)
class Injected:
    """A fault that waits for its requests. ``hits``: how many it met."""

    fault: Fault
    method: str | None
    path: str
    skip: int
    times: int | None
    hits: int = field(default=0)

    def take(self, method: str, path: str) -> bool:
        """Whether the fault happens to this request, which is counted."""
        if self.times == self.hits or self.method not in (None, method) or not fnmatchcase(path, self.path):
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.hits += 1
        return True


class LoopbackRegistry:
    """``with LoopbackRegistry() as registry:`` runs an empty registry; everybody who knows the port may push.

    Attributes:
        host: ``127.0.0.1:PORT``, the beginning of references.
    """

    host: str

    def __init__(self) -> None:
        self._requests: list[Request] = []
        self._faults: list[Injected] = []
        self._lock = threading.Lock()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="moorage-loopback-registry", daemon=True)
        self._failure: BaseException | None = None

    def __repr__(self) -> str:
        return f"<LoopbackRegistry {getattr(self, 'host', 'not started')}>"

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._ready.wait(_START_LIMIT) or self._failure is not None:
            raise RuntimeError("the registry did not start") from self._failure
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._server.stop)
        self._thread.join()

    @property
    def url(self) -> str:
        """``http://127.0.0.1:PORT``."""
        return f"http://{self.host}"

    @property
    def requests(self) -> list[Request]:
        """What arrived so far, in order."""
        with self._lock:
            return list(self._requests)

    def forget_requests(self) -> None:
        """Empties ``requests``: what follows is easier to look at."""
        with self._lock:
            self._requests.clear()

    def inject(
        self, fault: Fault, *, method: str | None = None, path: str = "*", skip: int = 0, times: int | None = 1
    ) -> Injected:
        """Lets ``fault`` happen to requests from now on. Of several that fit, the one injected first happens.

        Args:
            method: only to requests of this method.
            path: only where the path fits this pattern of shells, such as ``*/blobs/*``.
            skip: so many fitting requests are spared first.
            times: how often it happens; None: always.
        """
        injected = Injected(fault, method, path, skip, times)
        with self._lock:
            self._faults.append(injected)
        return injected

    def heal(self) -> None:
        """Takes all faults back."""
        with self._lock:
            self._faults.clear()

    def add_image(
        self,
        name: str,
        *layers: Mapping[str, str | bytes],
        platform: Platform = _PLATFORM,
        config: Mapping[str, Any] | None = None,
    ) -> str:
        """Stores a container image as ``REPOSITORY[:TAG]``; returns its digest, the same for the same input.

        Args:
            layers: each a mapping of paths to contents, the lowest first.
            config: further members of the image's config, such as ``{"config": {"Env": [...]}}``.

        Raises:
            NameInvalid, TagInvalid: the name breaks the grammar.
        """
        reference = Reference.parse(f"{self.host}/{name}")
        if reference.digest is not None:
            raise NameInvalid(f"{name}: the digest follows from the content")
        return str(self._call(self._add(reference, [_layer(layer) for layer in layers], platform, config or {})))

    async def _add(
        self, reference: Reference, layers: list[_Layer], platform: Platform, extra: Mapping[str, Any]
    ) -> Digest:
        rootfs = {"type": "layers", "diff_ids": [str(layer.diff_id) for layer in layers]}
        config = json.dumps({**platform.to_json(), **extra, "rootfs": rootfs}).encode()
        named = Descriptor(OCI_CONFIG, Digest.of(config), len(config))
        blobs = [(named, config), *((layer.descriptor, layer.content) for layer in layers)]
        document = {
            "schemaVersion": 2,
            "mediaType": OCI_IMAGE,
            "config": named.to_json(),
            "layers": [layer.descriptor.to_json() for layer in layers],
        }
        manifest = Manifest.of(json.dumps(document).encode(), OCI_IMAGE)
        for descriptor, content in blobs:
            await self._registry.push_blob(reference.repository, descriptor, _once(content))
        tags = [reference.tag] if reference.tag else []
        return (await self._registry.push_manifest(reference.repository, manifest, tags=tags)).digest

    def _call(self, work: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    # -- in the registry's own thread ----------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(self._serve())
        except BaseException as exc:
            self._failure = exc
            raise
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        store = MemoryStore()
        self._registry = await LocalRegistry.open(store)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.host = f"127.0.0.1:{listener.getsockname()[1]}"
            app = self._observed(create_app(self._registry))
            self._server = Server(app, meter=Table(workers=1).meter(0), drain_timeout=0)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._server.serve([listener]))
                await self._server.listening.wait()
                self._ready.set()
        await store.close()

    def _observed(self, app: App) -> App:
        async def observed(scope: Scope, receive: Receive, send: Send) -> None:
            fault = self._take(scope)
            if fault is None:
                await app(scope, receive, send)
            else:
                await answer_with(fault, app, scope, receive, send)

        return observed

    def _take(self, scope: Scope) -> Fault | None:
        method, path = scope["method"], scope["raw_path"].decode("latin-1")
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        with self._lock:
            fault = next((injected.fault for injected in self._faults if injected.take(method, path)), None)
            self._requests.append(Request(method, path, scope["query_string"].decode("latin-1"), headers, fault))
        return fault


@dataclass(frozen=True, slots=True)
class _Layer:
    descriptor: Descriptor
    diff_id: Digest
    content: bytes


def _layer(files: Mapping[str, str | bytes]) -> _Layer:
    """A gzip layer of regular files, the same bytes in every run."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for path, text in sorted(files.items()):
            data = text.encode() if isinstance(text, str) else text
            info = tarfile.TarInfo(path)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    content = gzip.compress(raw.getvalue(), compresslevel=1, mtime=0)
    return _Layer(Descriptor(OCI_LAYER_GZIP, Digest.of(content), len(content)), Digest.of(raw.getvalue()), content)


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content
