"""Applies the layers of an image, in order, to a directory that appears only when everything has held.

Law: the tree grows in a private directory beside the target and is renamed at the end. Before that each layer's archive
was read to its last byte and had the diffID that the image's config names (rules U15, U18). This module blocks.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from moorage.puller.errors import BrokenLayer, TargetExists, UnsafeLayer
from moorage.puller.unpack.decide import Hide, HideChildren, Link, Put, Skip, decide
from moorage.puller.unpack.destination import Destination
from moorage.puller.unpack.inflate import inflate
from moorage.puller.unpack.limits import Limits
from moorage.puller.unpack.source import TarReader
from moorage.puller.unpack.written import Written
from moorage.registry.oci import Descriptor, Digest

__all__ = ["Layer", "OnLayer", "Unpacked", "apply_layer", "unpack_layers"]


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer to apply. ``open``: its blob's bytes; ``diff_id``: the digest of its uncompressed archive."""

    descriptor: Descriptor
    diff_id: Digest
    open: Callable[[], BinaryIO]


@dataclass(frozen=True, slots=True)
class Unpacked:
    """What was read: entries and bytes of the uncompressed archives. ``skipped``: what our rights did not allow."""

    entries: int
    size: int
    skipped: tuple[str, ...] = ()


OnLayer = Callable[[Layer, Unpacked], None]


def unpack_layers(
    layers: Sequence[Layer],
    target: str,
    *,
    keep_markers: bool = False,
    limits: Limits | None = None,
    on_layer: OnLayer | None = None,
) -> Unpacked:
    """Makes ``target`` the root file system that the layers describe.

    Args:
        target: must not exist, or be an empty directory.
        keep_markers: leaves whiteouts as the empty files that they are, for a layer that is unpacked by itself.
        on_layer: is told of each layer when it is done.

    Raises:
        TargetExists: there is something at ``target``.
        UnsafeLayer, BrokenLayer: a layer is refused; nothing appears.
        OSError: the file system refuses; nothing appears.
    """
    limits = limits or Limits()
    target = os.path.abspath(target)
    if os.path.lexists(target) and not (os.path.isdir(target) and not os.listdir(target)):
        raise TargetExists(f"{target}: exists and is not an empty directory")
    parent = os.path.dirname(target)
    os.makedirs(parent, exist_ok=True)
    staging = tempfile.mkdtemp(prefix=".unpack-", dir=parent)
    destination = Destination(staging, limits=limits)
    try:
        done = []
        for layer in layers:
            done.append(apply_layer(destination, layer, limits, keep_markers=keep_markers))
            _check_image(done, limits)
            if on_layer:
                on_layer(layer, done[-1])
        destination.finish()
        _appear(staging, target)
    except BaseException:
        destination.remove_all()
        os.rmdir(staging)
        raise
    finally:
        destination.close()
    return Unpacked(sum(d.entries for d in done), sum(d.size for d in done), tuple(destination.skipped))


def _check_image(done: Sequence[Unpacked], limits: Limits) -> None:
    """Each layer was held to its own limits; this is for images of many."""
    if sum(d.entries for d in done) > limits.image_entries or sum(d.size for d in done) > limits.image_size:
        raise UnsafeLayer(f"an image of more than {limits.image_entries} entries or {limits.image_size} bytes")


def _appear(staging: str, target: str) -> None:
    try:
        os.rename(staging, target)
    except OSError as exc:
        if exc.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
        raise TargetExists(f"{target}: appeared meanwhile") from None


def apply_layer(destination: Destination, layer: Layer, limits: Limits, *, keep_markers: bool = False) -> Unpacked:
    """Applies one layer over what the destination holds.

    Raises:
        UnsafeLayer, BrokenLayer: it is refused; what it changed so far stays, so the destination is of no use.
    """
    with layer.open() as file:
        archive = _Archive(layer, limits.of_archive(layer.descriptor.size))
        reader, written, entries = TarReader(archive.read(file), limits), Written(), 0
        for entry in reader:
            entries += 1
            match decide(entry, limits, keep_markers=keep_markers):
                case Put(path, entry):
                    destination.put(path, entry, reader.data(), written)
                case Link(path, target):
                    destination.link(path, target, written)
                case Hide(path):
                    destination.hide(path, written)
                case HideChildren(path):
                    destination.hide_children(path, written)
                case Skip():
                    continue
        archive.check()
    return Unpacked(entries, archive.size)


class _Archive:
    """The uncompressed bytes of a layer, counted and hashed on the way."""

    def __init__(self, layer: Layer, limit: int) -> None:
        self._layer = layer
        self._limit = limit
        self._hasher = layer.diff_id.hasher()
        self.size = 0

    def read(self, file: BinaryIO) -> Iterator[bytes]:
        for chunk in inflate(file):
            self.size += len(chunk)
            if self.size > self._limit:
                raise UnsafeLayer(f"{self._layer.descriptor.digest}: becomes more than {self._limit} bytes")
            self._hasher.update(chunk)
            yield chunk

    def check(self) -> None:
        if self._hasher.hexdigest() != self._layer.diff_id.hex:
            raise BrokenLayer(f"{self._layer.descriptor.digest}: is not the layer that the image's config names")
