"""Small images, each for one rule of unpacking layers; their layers are archives as other programs write them."""

from __future__ import annotations

import os
from collections.abc import Mapping

from moorage.puller.entries import Entry, Kind
from moorage.puller.tar_writer import END_OF_ARCHIVE

from tests.layers import Member, archive, pax

__all__ = ["CORPUS"]

_SECOND = 10**9
_T = 1_600_000_000 * _SECOND
_CAPABILITY = b"\1\0\0\2" + b"\0\4\0\0" + bytes(12)
_ACL = b"\2\0\0\0" + b"".join(
    tag.to_bytes(2, "little") + permission.to_bytes(2, "little") + name.to_bytes(4, "little")
    for tag, permission, name in [
        (1, 6, 2**32 - 1),
        (2, 4, 12),
        (4, 4, 2**32 - 1),
        (16, 4, 2**32 - 1),
        (32, 0, 2**32 - 1),
    ]
)


def _f(
    name: str | bytes, content: bytes = b"x", mode: int = 0o644, uid: int = 0, gid: int = 0, **more: object
) -> Member:
    return Entry(os.fsencode(name), Kind.FILE, mode, uid, gid, _T + _SECOND, len(content), **more), content  # type: ignore[arg-type]


def _d(name: str, mode: int = 0o755, uid: int = 0, gid: int = 0, **more: object) -> Member:
    return Entry(os.fsencode(name), Kind.DIRECTORY, mode, uid, gid, _T + 2 * _SECOND, **more), b""  # type: ignore[arg-type]


def _s(name: str, target: str | bytes, uid: int = 0) -> Member:
    return Entry(os.fsencode(name), Kind.SYMLINK, 0o777, uid, uid, _T + 3 * _SECOND, link=os.fsencode(target)), b""


def _h(name: str, target: str, mode: int = 0o644, uid: int = 0, gid: int = 0) -> Member:
    return Entry(os.fsencode(name), Kind.HARD_LINK, mode, uid, gid, _T + _SECOND, link=os.fsencode(target)), b""


def _n(name: str, kind: Kind, device: tuple[int, int] = (0, 0), mode: int = 0o600) -> Member:
    return Entry(os.fsencode(name), kind, mode, 3, 4, _T + 4 * _SECOND, device=device), b""


_BASE = (
    _d("./"),
    _d("d", 0o750, 1, 2),
    _f("d/old", b"old", 0o640, 3, 4),
    _d("d/sub", 0o711),
    _f("d/sub/deep"),
    _f("top"),
)
_D = _d("d", 0o750, 1, 2)


def _pack(*layers: tuple[Member, ...] | bytes) -> list[bytes]:
    return [layer if isinstance(layer, bytes) else archive(*layer) for layer in layers]


CORPUS: Mapping[str, list[bytes]] = {
    "rule-1-directory-stays": _pack(_BASE, (_d("d", 0o1777, 7, 8),)),
    "rule-1-file-over-directory": _pack(_BASE, (_f("d", b"now a file"),)),
    "rule-1-directory-over-file": _pack(_BASE, (_d("top", 0o700), _f("top/x"))),
    "rule-1-link-over-directory": _pack(_BASE, (_s("d", "top"),)),
    "rule-1-directory-over-link": _pack((*_BASE, _s("l", "d")), (_d("l"), _f("l/x"))),
    "rule-1-file-over-link": _pack((*_BASE, _s("l", "top")), (_f("l", b"mine"),)),
    "rule-1-file-over-file": _pack(_BASE, (_f("top", b"new", 0o4755, 5, 6),)),
    "rule-1-fifo-over-file": _pack(_BASE, (_n("top", Kind.FIFO),)),
    "rule-2-whiteout": _pack(_BASE, (_D, _f("d/.wh.old", b""))),
    "rule-2-whiteout-of-directory": _pack(_BASE, (_D, _f("d/.wh.sub", b""))),
    "rule-2-whiteout-at-root": _pack(_BASE, (_f(".wh.d", b""), _f(".wh.top", b""))),
    "rule-2-whiteout-spares-its-layer": _pack(_BASE, (_D, _f("d/.wh.old", b""), _f("d/old", b"new"))),
    "rule-3-opaque": _pack(_BASE, (_D, _f("d/.wh..wh..opq", b""), _f("d/new"))),
    "rule-3-opaque-at-root": _pack(_BASE, (_f(".wh..wh..opq", b""), _f("new"))),
    "rule-3-opaque-last": _pack(_BASE, (_D, _f("d/new"), _f("d/.wh..wh..opq", b""))),
    "rule-3-opaque-below": _pack(
        _BASE, (_D, _f("d/.wh..wh..opq", b""), _d("d/sub", 0o700), _f("d/sub/new"), _f("d/sub/.wh..wh..opq", b""))
    ),
    "rule-4-whiteout-of-nothing": _pack(_BASE, (_D, _f("d/.wh.never", b""), _f(".wh.neither", b""))),
    "rule-4-child-is-added-again": _pack(_BASE, (_D, _f("d/.wh.sub", b""), _d("d/sub", 0o700), _f("d/sub/new"))),
    "rule-6-the-last-of-equals": _pack((*_BASE, _f("top", b"second", 0o600), _f("top", b"third", 0o640))),
    "rule-7-missing-parents": _pack((_d("./"), _f("a/b/c"))),
    "rule-7-parents-of-lower-layers": _pack(_BASE, (_f("d/sub/more"),)),
    "rule-9-hard-links": _pack(
        (*_BASE, _h("twin", "top"), _h("d/triplet", "/top"), _h("of-old", "./d/old", 0o640, 3, 4))
    ),
    "rule-9-hard-link-into-lower-layer": _pack(_BASE, (_h("twin", "d/old", 0o640, 3, 4),)),
    "rule-9-hard-link-with-other-attributes": _pack((*_BASE, _h("twin", "d/old"))),
    "rule-9-one-name-replaced": _pack((*_BASE, _h("twin", "top")), (_f("top", b"new"),)),
    "rule-9-one-name-hidden": _pack((*_BASE, _h("twin", "top")), (_f(".wh.top", b""),)),
    "rule-9-hard-link-to-link": _pack((*_BASE, _s("s", "top"), _h("h", "s"))),
    "rule-10-links-are-data": _pack(
        (*_BASE, _s("abs", "/etc/passwd"), _s("up", "../../../x"), _s("dangling", "no/where"), _s("bytes", b"\xff\xfe"))
    ),
    "rule-10-parents-that-are-links": _pack(
        (_d("./"), _d("usr"), _d("usr/lib"), _s("lib", "usr/lib"), _s("bin", "/usr/lib")),
        (_f("lib/one"), _f("bin/two"), _f("bin/.wh.none", b"")),
    ),
    "rule-10-names-with-slashes": _pack((_d("/"), _d("/d"), _f("/d/abs"), _f("./d/dot"), _f("d//twice"), _f("d/./in"))),
    "rule-11-times-of-directories": _pack((_d("./"), _d("a"), _d("a/b"), _f("a/b/x"), _f("a/y"))),
    "rule-12-modes": _pack(
        (
            _d("./"),
            *(_f(f"{m:04o}", b"", m) for m in (0o4755, 0o2755, 0o6711, 0, 0o444, 0o664, 0o7777)),
            _d("sticky", 0o1777),
            _d("setgid", 0o2775, 9, 10),
        )
    ),
    "rule-12-owners": _pack(
        (
            _d("./"),
            _f("a", b"", 0o4755, 1000, 1000),
            _f("b", b"", 0o644, 65534, 65534),
            _d("c", 0o755, 33, 33),
            _s("e", "a", 1000),
            _f("g", b"", 0o644, 0, 5),
        )
    ),
    "rule-12-big-owners": _pack((_d("./"), _f("big", b"", 0o644, 2**31 + 5, 2**32 - 2))),
    "rule-13-attributes": _pack(
        (
            _d("./"),
            _d("d", xattrs={b"user.of": b"d"}),
            _f("f", xattrs={b"user.raw": b"\x00\xff=\n", b"trusted.t": b"1"}),
            _f("cap", b"", 0o755, 5, 6, xattrs={b"security.capability": _CAPABILITY}),
            _f("acl", b"", 0o640, xattrs={b"system.posix_acl_access": _ACL}),
        )
    ),
    "rule-14-devices": _pack(
        (
            _d("./"),
            _n("null", Kind.CHARACTER_DEVICE, (1, 3), 0o666),
            _n("disk", Kind.BLOCK_DEVICE, (7, 300)),
            _n("pipe", Kind.FIFO),
        )
    ),
    "rule-15-names": _pack(
        (
            _d("./"),
            _f(b"\xff\xfe"),
            _f("Ναύτης"),
            _f("new\nline"),
            _f(" "),
            _f("-rf"),
            _f("a" * 255),
            _d("deep"),
            _f("deep/" + "long" * 50),
            _s("far", "t" * 300),
        )
    ),
    "rule-15-global-comment": _pack(pax([(b"comment", b"x")], b"g") + archive(_d("./"), _f("x"))),
    "rule-15-empty-record": _pack(pax([(b"path", b""), (b"uid", b"7")]) + archive(_f("x"))),
    "rule-16-size-of-the-record": _pack(
        pax([(b"size", b"5")]) + archive(_f("x", b""), end=b"") + b"12345" + bytes(507) + archive(_f("y"))
    ),
    "rule-17-bytes-after-the-end": _pack(archive(_f("x")) + b"these are not in the archive" + archive(_f("y"))),
    "rule-17-one-zero-block": _pack(archive(_f("x"), end=END_OF_ARCHIVE[:512])),
}
