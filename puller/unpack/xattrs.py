"""Which extended attributes of an entry are set, and under which name: pure.

Law: all are kept (rule 13), but for labels of this machine's policy and NFS's ACLs, which mean nothing elsewhere. What
overlayfs would obey is escaped in the tree of a single layer, which may become a layer of a mount. Capabilities are
held to the kernel's form, so that root and others refuse the same layers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from moorage.puller.errors import BrokenLayer, UnsafeLayer
from moorage.puller.unpack.limits import Limits

__all__ = ["CAPABILITY", "check_xattrs", "chosen_xattrs"]

CAPABILITY = b"security.capability"
_SKIPPED = frozenset({b"security.selinux", b"system.nfs4_acl"})
_OVERLAY = (b"trusted.overlay.", b"user.overlay.")
_NAME = 255
_CAPABILITY_SIZES = {b"\2": 20, b"\3": 24}
"""By the revision, the highest byte: of capabilities of files, and of those that belong to a user namespace."""


def check_xattrs(xattrs: Mapping[bytes, bytes], limits: Limits) -> None:
    """Holds the attributes of one entry to the limits, and capabilities to their form.

    Raises:
        UnsafeLayer: there are too many, or they are too long.
        BrokenLayer: capabilities that no kernel takes.
    """
    if len(xattrs) > limits.xattrs or sum(map(len, xattrs.values())) > limits.xattr_size:
        raise UnsafeLayer(f"more than {limits.xattrs} extended attributes or {limits.xattr_size} bytes of them")
    if any(len(key) > _NAME for key in xattrs):
        raise UnsafeLayer(f"the name of an extended attribute has more than {_NAME} bytes")
    value = xattrs.get(CAPABILITY)
    if value is not None and len(value) != _CAPABILITY_SIZES.get(value[3:4]):
        raise BrokenLayer("file capabilities of a form that the kernel does not take")


def chosen_xattrs(xattrs: Mapping[bytes, bytes], *, is_alone: bool) -> Iterator[tuple[bytes, bytes]]:
    """The attributes to set. ``is_alone``: in the tree of a single layer."""
    for key, value in xattrs.items():
        if key in _SKIPPED:
            continue
        prefix = next((prefix for prefix in _OVERLAY if is_alone and key.startswith(prefix)), b"")
        yield prefix + b"overlay." * bool(prefix) + key[len(prefix) :], value
