"""The local store: an OCI image layout that other tools read as it is, and the layers unpacked beside it.

    <store>/oci-layout  index.json  blobs/     the layout; a name is a full reference: host:port/repository:tag
    <store>/unpacked/<alg>-<hex>/              one layer by its diffID, whiteouts kept as files, shared by all images
    <store>/ingests/                           content on its way in, that another run goes on with
    <store>/staging/                           what is being made and dies with its maker
    <store>/locks/                             who is using the store (``lease``)
    <store>/unsynced/                          what a power cut may have damaged (``unsynced``)

Law of the locks, each a flock that dies with its process, taken in this order:
1. the lease: everybody who relies on the store's content shares it, removal holds it alone (``lease``);
2. one per digest of an ingest and one per diffID of a tree: who fetches or unpacks, while others wait for the result;
3. the index: whoever changes ``index.json`` (``LayoutFiles.edit_index``), for as long as it takes to write one file.
Readers of the index take none, because it is replaced in one step.

What a pull does not need is imported by the methods that do, so that a pull starts quickly.

The store is its owner's alone (mode 0700), because layers bring setuid files. Where it may only be read, its images can
be listed, looked into, verified and unpacked elsewhere.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING

from moorage.puller.errors import ImageError
from moorage.puller.layout import ImageLayout
from moorage.puller.layout_files import LayoutFiles, NamesOfNow
from moorage.puller.lease import hold_shared
from moorage.puller.staging import is_writable, staging_directory, sweep
from moorage.puller.threads import to_the_end
from moorage.registry.oci import ANY_VALUE, Descriptor, Digest, ManifestUnknown, Reference

if TYPE_CHECKING:
    from moorage.puller.stock.images import History, StoredImage
    from moorage.puller.stock.removal import Removed, Target
    from moorage.puller.stock.verify import Verified

__all__ = ["Store", "default_store"]


class Store:
    """The images of one user on one machine. Opening makes what is missing."""

    def __init__(self, root: str) -> None:
        try:
            os.makedirs(root, mode=0o700, exist_ok=True)
        except OSError as exc:
            hint = f"{exc.strerror} (the store; --store or $MOORAGE_STORE puts it elsewhere)"
            raise OSError(exc.errno, hint, root) from exc
        self.root = root
        self.files = LayoutFiles(root, create=True)

    def __repr__(self) -> str:
        return f"<Store {self.root!r}>"

    def view(self, registry: str) -> ImageLayout:
        """The images that came from ``registry``, as a registry."""
        return ImageLayout.of_registry(self.files, registry)

    def snapshot(self, registry: str) -> ImageLayout:
        """``view``, for reading, with the names of this moment: a lease keeps content in the store, not names."""
        return ImageLayout.of_registry(NamesOfNow(self.files), registry)

    @contextmanager
    def lease(self) -> Iterator[None]:
        """While the block runs nothing that the store holds is taken away; afterwards what dead processes left is.

        Around every operation that relies on the store's content, one inside another never (see ``lease``). Blocks.
        """
        try:
            with hold_shared(self.root):
                yield
        finally:
            self._sweep()

    @asynccontextmanager
    async def leased(self) -> AsyncIterator[None]:
        """``lease``, taken and given back in threads, whatever is cancelled meanwhile."""
        lease = self.lease()
        await to_the_end(lease.__enter__)
        try:
            yield
        finally:
            await to_the_end(partial(lease.__exit__, None, None, None))

    def mark_used(self, digest: Digest) -> None:
        """Remembers that the image with this manifest was of use now; ``prune`` goes by it."""
        if not is_writable(self.root):
            return
        with contextlib.suppress(FileNotFoundError):
            os.utime(self.files.blob_path(digest))

    def tree_path(self, diff_id: Digest) -> str:
        """Where the layer's tree is, or would be."""
        return os.path.join(self.root, "unpacked", f"{diff_id.algorithm}-{diff_id.hex}")

    def has_tree(self, diff_id: Digest) -> bool:
        """Whether the layer is unpacked, and that can be trusted."""
        return os.path.isdir(self.tree_path(diff_id)) and not self.files.unsynced.is_doubtful_tree(diff_id)

    def remove_tree(self, diff_id: Digest) -> None:
        """Removes the layer's tree, in one step for everybody else."""
        with staging_directory(self.root) as trash, contextlib.suppress(FileNotFoundError):
            os.rename(self.tree_path(diff_id), os.path.join(trash, "tree"))

    def images(self) -> list[StoredImage]:
        """Every named image, by name.

        Raises:
            LayoutInvalid: the store is damaged.
        """
        from moorage.puller.stock.images import list_images  # noqa: PLC0415 (see the module)

        return list_images(self.files)

    def history(self, reference: Reference) -> History:
        """How the image was made.

        Raises:
            ImageError: the store has no such image, or it is none of a container, or one of several.
            LayoutInvalid: the store is damaged.
        """
        from moorage.puller.stock.images import image_history  # noqa: PLC0415 (see the module)

        return image_history(self.files, str(reference), self.find(reference))

    def find(self, reference: Reference) -> Descriptor:
        """What the reference leads to.

        Raises:
            ImageError: the store does not have it.
        """
        try:
            return self.view(reference.registry).catalog.resolve(reference.repository, reference.target)
        except ManifestUnknown:
            raise ImageError(f"{reference}: not in the store") from None

    def tag(self, source: Reference, target: Reference) -> Descriptor:
        """Gives an image one more name; what had the name before is kept under its digest.

        Raises:
            ImageError: the store does not have the source, or the target names no tag.
        """
        if target.tag is None or target.digest is not None:
            raise ImageError(f"{target}: a new name is a tag")
        with self.lease():
            descriptor = self.find(source)
            catalog = self.view(target.registry).catalog
            catalog.name(target.repository, descriptor, [target.tag], ANY_VALUE)
            self.mark_used(descriptor.digest)
        return descriptor

    def remove(self, targets: Sequence[Target]) -> Removed:
        """Takes names away, and the content that only they led to. All of them or none.

        Raises:
            ImageError: the store does not have one of them.
            LayoutInvalid: the store is damaged.
        """
        from moorage.puller.stock.removal import remove_images  # noqa: PLC0415 (see the module)

        return remove_images(self.files, targets)

    def prune(self, *, older_than: float | None = None, max_size: int | None = None, wait: float = 10) -> Removed:
        """Gives disk space back; see ``stock.prune``.

        Args:
            older_than: seconds; images that were of no use for longer go.
            max_size: bytes; images go, least recently used first, until the store is as small.
            wait: seconds that other processes get to finish.

        Raises:
            StoreInUse: they did not.
            LayoutInvalid: the store is damaged.
        """
        from moorage.puller.stock.prune import prune  # noqa: PLC0415 (see the module)

        removed = prune(self.files, older_than=older_than, max_size=max_size, wait=wait)
        self._sweep()
        return removed

    def verify(self) -> Verified:
        """Hashes every blob and checks that every name leads to whole images; changes nothing.

        Raises:
            LayoutInvalid: ``index.json`` cannot be read.
        """
        from moorage.puller.stock.verify import verify_store  # noqa: PLC0415 (see the module)

        with self.lease():
            return verify_store(self.files)

    def mend(self, verified: Verified) -> Removed:
        """Takes away what ``verify`` found wrong, with the names that lead to it; the next pull fetches it again.

        Raises:
            StoreInUse: other processes use the store.
        """
        from moorage.puller.stock.verify import mend_store  # noqa: PLC0415 (see the module)

        return mend_store(self.files, verified)

    def _sweep(self) -> None:
        """Removes what dead processes left."""
        if not is_writable(self.root):
            return
        sweep(self.root)
        with contextlib.suppress(FileNotFoundError):
            if os.listdir(os.path.join(self.root, "ingests")):
                from moorage.puller.fetch.ingest import sweep_ingests  # noqa: PLC0415 (see the module)

                sweep_ingests(self.files)


def default_store() -> str:
    """``$MOORAGE_STORE``, else ``moorage`` in ``$XDG_DATA_HOME``, else ``~/.local/share/moorage``.

    A ``~`` at the beginning is the home, because no shell has read the variables in a CI system's YAML.
    """
    data = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return os.path.expanduser(os.environ.get("MOORAGE_STORE") or os.path.join(data, "moorage"))
