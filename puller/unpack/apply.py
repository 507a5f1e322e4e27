"""Applies the layers of an image, in order, to a directory that appears only when everything has held.

Law: the tree grows in a private directory beside the target and is renamed at the end. Before that each layer's archive
was read to its last byte and had the diffID that the image's config names (rules U15, U18), and the caller's
``before_appear`` agreed. Layers may still be arriving: reading them waits. This module blocks.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from moorage.puller.errors import BrokenLayer, TargetExists, UnsafeLayer
from moorage.puller.events import Times
from moorage.puller.unpack.decide import Hide, HideChildren, Link, Put, Skip, decide
from moorage.puller.unpack.destination import Destination
from moorage.puller.unpack.growing import growing_beside
from moorage.puller.unpack.layer import Layer, OnLayer, Unpacked
from moorage.puller.unpack.limits import Limits
from moorage.puller.unpack.owners import OwnerMode
from moorage.puller.unpack.source import TarReader
from moorage.puller.unpack.stages import Archive
from moorage.puller.unpack.written import Written

__all__ = ["Layer", "OnLayer", "Unpacked", "apply_layer", "check_target", "unpack_layers"]


def unpack_layers(
    layers: Sequence[Layer],
    target: str,
    *,
    keep_markers: bool = False,
    owners: OwnerMode | None = None,
    limits: Limits | None = None,
    on_layer: OnLayer | None = None,
    before_appear: Callable[[], None] | None = None,
) -> Unpacked:
    """Makes ``target`` the root file system that the layers describe.

    Args:
        target: must not exist, or be an empty directory.
        keep_markers: leaves whiteouts as empty files, for a layer that is unpacked by itself (see ``notes``).
        owners: whose the files become; None: as the image says for root, the caller's for others.
        on_layer: is told of each layer when it is done.
        before_appear: is called when the tree is complete; if it raises, nothing appears.

    Raises:
        TargetExists: there is something at ``target``.
        UnsafeLayer, BrokenLayer: a layer is refused; nothing appears.
        OSError: the file system refuses; nothing appears.
    """
    limits = limits or Limits()
    target = check_target(target)
    with growing_beside(target) as staging:
        destination = Destination(staging, limits=limits, owners=owners, is_alone=keep_markers)
        done = _grow(layers, destination, limits, keep_markers=keep_markers, on_layer=on_layer)
        if before_appear:
            before_appear()
        _appear(staging, target)
    return done


def check_target(target: str) -> str:
    """The absolute path of a place to unpack to.

    Raises:
        TargetExists: there is something other than an empty directory.
    """
    target = os.path.abspath(target)
    if os.path.lexists(target) and not (os.path.isdir(target) and not os.listdir(target)):
        raise TargetExists(f"{target}: exists and is not an empty directory")
    return target


def _grow(
    layers: Sequence[Layer], destination: Destination, limits: Limits, *, keep_markers: bool, on_layer: OnLayer | None
) -> Unpacked:
    """Applies all layers to the directory, gives everything in it its attributes, and lets go of it."""
    began, done = time.perf_counter(), Unpacked(0, 0)
    try:
        for layer in layers:
            one = apply_layer(destination, layer, limits, keep_markers=keep_markers)
            done = Unpacked(done.entries + one.entries, done.size + one.size, times=done.times + one.times)
            _check_image(done, limits)
            if on_layer:
                on_layer(layer, one)
        destination.finish()
    finally:
        destination.close()
    return replace(done, skipped=destination.skipped, seconds=time.perf_counter() - began)


def _check_image(done: Unpacked, limits: Limits) -> None:
    """Each layer was held to its own limits; this is for images of many."""
    if done.entries > limits.image_entries or done.size > limits.image_size:
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
    began = time.perf_counter()
    with Archive(layer, limit=limits.of_archive(layer.descriptor.size)) as archive:
        try:
            entries = _apply_entries(destination, TarReader(iter(archive), limits), limits, keep_markers=keep_markers)
            archive.check()
        except (UnsafeLayer, BrokenLayer) as exc:
            raise type(exc)(f"layer {layer.descriptor.digest}: {exc}") from exc
        seconds = time.perf_counter() - began
        times = archive.times + Times(disk=seconds - archive.waited)
        return Unpacked(entries, archive.size, seconds=seconds, times=times)


def _apply_entries(destination: Destination, reader: TarReader, limits: Limits, *, keep_markers: bool) -> int:
    """Applies all entries of an archive; returns how many that were."""
    written, entries = Written(), 0
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
    return entries
