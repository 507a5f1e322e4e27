"""Layers that want something: a table of kinds, each marked as refused or accepted.

After the corpus skeleton of the design (reliability 1F). ``canary`` is a directory outside of the root that must not be
touched. Accepted does not mean that the attack works: the layer says nothing unsafe once it is read as the rules say.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from moorage.puller.entries import Kind
from moorage.puller.tar_writer import END_OF_ARCHIVE

from tests.layers import Member, archive, directory, file, fix_sum, hard_link, node, pax, symlink

__all__ = ["ATTACKS", "Attack", "header"]

_V2 = b"\1\0\0\2" + b"\0\4\0\0" + bytes(12)


@dataclass(frozen=True, slots=True)
class Attack:
    """A kind of layer. ``make``: its archive, given the canary's path.

    ``is_noted``: by itself in the store it is accepted, because what it wants may be in a lower layer.
    """

    is_accepted: bool
    make: Callable[[str], bytes]
    is_noted: bool = False


def _of(is_accepted: bool, *members: Member) -> Attack:
    return Attack(is_accepted, lambda canary: archive(*members))


def _raw(is_accepted: bool, raw: bytes) -> Attack:
    return Attack(is_accepted, lambda canary: raw)


def _aimed(is_accepted: bool, make: Callable[[str], tuple[Member, ...]], *, is_noted: bool = False) -> Attack:
    return Attack(is_accepted, lambda canary: archive(*make(canary)), is_noted)


def header(content: bytes = b"", **fields: bytes) -> bytes:
    """A file's header with raw fields changed and the checksum right, and its content."""
    offsets = {"mode": 100, "uid": 108, "gid": 116, "size": 124, "mtime": 136, "flag": 156, "magic": 257, "name": 0,
               "link": 157, "uname": 265, "prefix": 345, "trailer": 508}  # fmt: skip
    block = bytearray(archive(file("x", b""), end=b""))
    fields = {"size": b"%011o\0" % len(content)} | fields
    for key, value in fields.items():
        block[offsets[key] : offsets[key] + len(value)] = value
    fix_sum(block)
    return bytes(block) + content + bytes(-len(content) % 512)


def _long(flag: bytes, name: bytes, then: bytes = b"") -> bytes:
    return header(name + b"\0", flag=flag, name=b"././@LongLink") + then


def _nodes() -> Mapping[str, Attack]:
    deep = "d/" * 60
    return {
        "char-dev": _of(True, node("n", Kind.CHARACTER_DEVICE, (1, 3))),
        "block-dev": _of(True, node("n", Kind.BLOCK_DEVICE, (7, 1))),
        "fifo": _of(True, node("n", Kind.FIFO)),
        "overlay-whiteout-dev": _of(False, node("n", Kind.CHARACTER_DEVICE)),
        "whiteout-root": _of(False, file(".wh.")),
        "whiteout-dot": _of(False, file(".wh..")),
        "whiteout-dotdot": _of(False, file("d/.wh...")),
        "whiteout-dotwh": _of(True, file(".wh..wh.x")),
        "whiteout-children": _of(False, file(".wh.d/x")),
        "whiteout-through-a-link": _of(False, symlink("l", ".wh.x"), file("l/y")),
        "whiteout-own-layer": _of(True, directory("d"), file("d/.wh.x"), file("d/x")),
        "whiteout-nothing": _of(True, file(".wh.never"), directory("d"), file("d/.wh.never")),
        "whiteout-flood": _of(True, *(file(f"{deep}{n}", b"") for n in range(300)),
                              *(file("d/" * n + ".wh.d", b"") for n in range(59, 0, -1)), *[file(".wh.d", b"")] * 500),
        "opaque-at-root": _of(True, file(".wh..wh..opq", b""), file("x")),
        "opaque-after-children": _of(True, directory("d"), file("d/x"), file("d/.wh..wh..opq", b"")),
        "opaque-flood": _of(True, directory("d"), *(file(f"d/{n}", b"") for n in range(500)),
                            *[file("d/.wh..wh..opq", b"")] * 5000),
        "setuid-777": _of(True, file("x", mode=0o6777)),
        "sticky": _of(True, directory("d", mode=0o1777)),
        "mode-beyond-07777": _raw(True, header(mode=b"7777755\0") + END_OF_ARCHIVE),
        "mode-binary": _raw(True, header(mode=b"\x80" + bytes(5) + b"\x0d\xed") + END_OF_ARCHIVE),
        "uid-minus-1": _raw(False, header(uid=b"\xff" * 8)),
        "uid-2^32-1": _raw(False, pax([(b"uid", b"4294967295")]) + header()),
        "uid-2^32": _raw(False, pax([(b"uid", b"4294967296")]) + header()),
        "uid-2^64": _raw(False, pax([(b"uid", b"18446744073709551616")]) + header()),
        "uid-negative-binary": _raw(False, header(uid=b"\xff" * 7 + b"\xfe")),
        "gid-no-number": _raw(False, header(gid=b"00x0000\0")),
        "uname-only": _raw(True, header(uname=b"daemon\0") + END_OF_ARCHIVE),
        "mtime-huge": _raw(True, header(mtime=b"\x80" + bytes(3) + b"\x7f" + b"\xff" * 7) + END_OF_ARCHIVE),
        "mtime-before-1970": _raw(True, header(mtime=b"\xff" * 12) + END_OF_ARCHIVE),
        "xattr-1MB": _raw(False, pax([(b"SCHILY.xattr.user.x", b"x" * 1_100_000)]) + header()),
        "xattr-too-large": _of(False, file("x", xattrs={b"user.x": bytes(65537)})),
        "xattr-too-many": _of(False, file("x", xattrs={b"user.%d" % n: b"" for n in range(65)})),
        "xattr-long-name": _of(False, file("x", xattrs={b"user." + b"x" * 251: b""})),
        "xattr-NUL-in-name": _raw(False, pax([(b"SCHILY.xattr.user.a\0b", b"1")]) + header()),
        "xattr-trusted": _of(True, file("x", xattrs={b"trusted.x": b"1"})),
        "xattr-selinux": _of(True, file("x", xattrs={b"security.selinux": b"label"})),
        "xattr-overlay": _of(True, file("x", xattrs={b"trusted.overlay.opaque": b"y"})),
        "xattr-two-values": _raw(False, pax([(b"SCHILY.xattr.user.x", b"1"), (b"LIBARCHIVE.xattr.user.x", b"Mg")])
                                 + header()),
        "caps-v1": _of(False, file("x", xattrs={b"security.capability": b"\1\0\0\1" + bytes(8)})),
        "caps-v2": _of(True, file("x", xattrs={b"security.capability": _V2})),
        "caps-v3": _of(True, file("x", xattrs={b"security.capability": b"\1\0\0\3" + b"\0\4\0\0" + bytes(16)})),
        "caps-bad": _of(False, file("x", xattrs={b"security.capability": b"nonsense"})),
    }  # fmt: skip


def _paths() -> Mapping[str, Attack]:
    chain = [directory("end"), *(symlink(f"l{n}", f"l{n + 1}") for n in range(41)), symlink("l41", "end")]
    return {
        "dotdot": _of(False, file("../x")),
        "dotdot-middle": _of(False, file("a/../../x")),
        "dotdot-inside": _of(False, file("a/../x")),
        "dotdot-alone": _of(False, directory("..")),
        "absolute": _of(True, file("/x")),
        "absolute-canary": _aimed(True, lambda canary: (file(f"{canary}/secret", b"stolen"),)),
        "absolute-symlink-ok": _of(True, symlink("l", "/etc/passwd")),
        "root-is-symlink": _of(False, symlink(".", "/etc")),
        "root-is-file": _of(False, file("./")),
        "root-is-dir": _of(True, directory("./", mode=0o711)),
        "parent-symlink-abs": _of(True, directory("d"), symlink("l", "/d"), file("l/x")),
        "parent-symlink-rel": _of(True, directory("a"), directory("d"), symlink("a/l", "../d"), file("a/l/x")),
        "parent-symlink-climbs": _of(True, symlink("l", "../../../.."), file("l/x")),
        "parent-symlink-out": _aimed(True, lambda canary: (symlink("l", canary), file("l/secret", b"stolen"))),
        "parent-symlink-chain-40": _of(True, *chain, file("l2/x")),
        "parent-symlink-chain-41": _of(False, *chain, file("l1/x")),
        "symlink-loop": _of(False, symlink("a", "b"), symlink("b", "a"), file("a/x")),
        "symlink-then-dir": _aimed(True, lambda canary: (symlink("l", canary), directory("l"), file("l/secret"))),
        "symlink-then-file": _aimed(True, lambda canary: (symlink("l", f"{canary}/secret"), file("l", b"mine"))),
        "file-then-dir": _of(True, file("x"), directory("x"), file("x/y")),
        "dir-then-file": _of(True, directory("x"), file("x/y"), file("x")),
        "dir-then-symlink": _of(True, directory("e"), directory("x"), file("x/y"), symlink("x", "e"), file("x/z")),
        "file-as-parent": _of(False, file("x"), file("x/y")),
        "fifo-as-parent": _of(False, node("x", Kind.FIFO), file("x/y")),
        "hardlink-abs": _of(True, file("x"), hard_link("y", "/x")),
        "hardlink-dotdot": _of(False, hard_link("y", "../outside/secret")),
        "hardlink-to-symlink": _aimed(True, lambda canary: (symlink("s", f"{canary}/secret"), hard_link("h", "s"))),
        "hardlink-through-symlink": _of(True, directory("d"), file("d/x"), symlink("l", "d"), hard_link("y", "l/x")),
        "hardlink-out": _aimed(False, lambda canary: (symlink("l", canary), hard_link("y", "l/secret")), is_noted=True),
        "hardlink-out-absolute": _aimed(False, lambda canary: (hard_link("y", f"{canary}/secret"),), is_noted=True),
        "hardlink-forward-ref": _aimed(False, lambda canary: (hard_link("y", "x2"), file("x2")), is_noted=True),
        "hardlink-to-dir": _of(False, directory("dir"), hard_link("y", "dir")),
        "hardlink-to-root": _of(False, hard_link("y", "/")),
        "hardlink-to-itself": _of(False, file("y"), hard_link("y", "y")),
        "hardlink-over-its-parent": _of(False, directory("e"), file("e/x"), hard_link("e", "e/x")),
        "hardlink-then-overwrite": _of(True, file("x", b"1"), hard_link("y", "x"), file("y", b"2")),
        "hardlink-to-symlink-then-write": _aimed(
            True, lambda canary: (symlink("s", f"{canary}/secret"), hard_link("h", "s"), file("h", b"mine"))
        ),
        "chmod-via-symlink": _aimed(True, lambda canary: (symlink("l", canary), directory("l", mode=0o777))),
        "xattr-via-symlink": _aimed(
            True, lambda canary: (symlink("l", f"{canary}/secret"), file("l", xattrs={b"user.x": b"1"}))
        ),
        "whiteout-via-symlink": _aimed(True, lambda canary: (symlink("l", canary), file("l/.wh.secret", b""))),
        "opaque-via-symlink": _aimed(True, lambda canary: (symlink("l", canary), file("l/.wh..wh..opq", b""))),
        "name-255": _of(True, file("n" * 255)),
        "name-256": _of(False, file("n" * 256)),
        "path-4096": _of(True, file("/".join(["p" * 255] * 15 + ["p" * 200]).ljust(4096, "/")[:4040] + "/p")),
        "path-4097": _of(False, file("/".join(["p" * 200] * 20 + ["p" * 77]).ljust(4097, "p"))),
        "depth-256": _of(True, file("d/" * 255 + "x")),
        "depth-257": _of(False, file("d/" * 256 + "x")),
        "depth-100k": _of(False, file("d/" * 100_000 + "x")),
        "link-4095": _of(True, symlink("l", "t" * 4095)),
        "link-4097": _of(False, symlink("l", "t" * 4097)),
        "name-not-UTF-8": _of(True, file(b"\xff\xfe")),
        "name-with-control-characters": _of(True, file("a\n\x1b[31m\x7f")),
        "name-NFC-and-NFD": _of(True, file("\u00e9", b"1"), file("e\u0301", b"2")),
        "name-case-pair": _of(True, file("case", b"1"), file("CASE", b"2")),
        "many-files": _of(True, directory("m"), *(file(f"m/{n}", b"") for n in range(300))),
        "link-over-itself": _of(True, directory("x"), symlink("x/self", "."), directory("x/self/self")),
    }  # fmt: skip


def _sparse_old(pairs: list[tuple[int, int]], size: int, stored: bytes) -> bytes:
    block = bytearray(header(stored, flag=b"S", magic=b"ustar  \0", name=b"s"))
    block[345:512] = bytes(167)
    for number, pair in enumerate(pairs):
        block[386 + 24 * number : 410 + 24 * number] = b"%011o\0%011o\0" % pair
    block[483:495] = b"\x80" + size.to_bytes(11, "big")
    head = bytearray(block[:512])
    fix_sum(head)
    return bytes(head) + bytes(block[512:])


def _sparse(stored: bytes, **records: str) -> bytes:
    return pax([(b"GNU.sparse." + k.encode(), v.encode()) for k, v in records.items()]) + header(stored)


def _archives() -> Mapping[str, Attack]:
    end, plain = END_OF_ARCHIVE, header(b"12345")
    sizes = pax([(b"size", b"5")])
    return {
        "PAX-size-smaller": _raw(True, sizes + header(b"12345" + bytes(600)) [:1024] + end),
        "PAX-size-larger": _raw(True, sizes + header() + b"12345" + bytes(507) + end),
        "PAX-size-before-L": _raw(True, sizes + _long(b"L", b"name", header()) + b"12345" + bytes(507) + end),
        "PAX-size-of-directory": _raw(False, sizes + header(flag=b"5") + b"12345" + bytes(507) + end),
        "PAX-path-NUL": _raw(False, pax([(b"path", b"a\0b")]) + plain + end),
        "PAX-10MB": _raw(False, pax([(b"comment", b"x" * 10_000_000)]) + plain + end),
        "PAX-twice": _raw(False, pax([(b"path", b"a")]) * 2 + plain + end),
        "PAX-key-twice": _raw(True, pax([(b"path", b"a"), (b"path", b"b")]) + plain + end),
        "PAX-record-too-long": _raw(False, header(b"99 path=y\n", flag=b"x") + plain + end),
        "PAX-record-too-short": _raw(False, header(b"7 path=y\n", flag=b"x") + plain + end),
        "PAX-record-endless-number": _raw(False, header(b"9" * 400, flag=b"x") + plain + end),
        "PAX-negative-size": _raw(False, pax([(b"size", b"-1")]) + plain + end),
        "PAX-size-float": _raw(False, pax([(b"size", b"1e3")]) + plain + end),
        "PAX-size-2^63": _raw(False, pax([(b"size", b"9223372036854775808")]) + plain + end),
        "PAX-size-arabic": _raw(False, pax([(b"size", "\u0665".encode())]) + plain + end),
        "PAX-mtime-nan": _raw(False, pax([(b"mtime", b"nan")]) + plain + end),
        "PAX-without-entry": _raw(False, pax([(b"path", b"a")]) + end),
        "global-path": _raw(False, pax([(b"path", b"a")], b"g") + plain + end),
        "global-size": _raw(False, pax([(b"size", b"1")], b"g") + plain + end),
        "global-comment": _raw(True, pax([(b"comment", b"a")], b"g") + plain + end),
        "L-and-x-agree": _raw(True, pax([(b"path", b"n")]) + _long(b"L", b"n", plain) + end),
        "L-and-x-disagree": _raw(False, pax([(b"path", b"n")]) + _long(b"L", b"m", plain) + end),
        "L-twice": _raw(False, _long(b"L", b"n", _long(b"L", b"m", plain)) + end),
        "L-without-entry": _raw(False, _long(b"L", b"n") + end),
        "L-10MB": _raw(False, _long(b"L", b"n" * 10_000_000, plain) + end),
        "K-of-a-file": _raw(True, _long(b"K", b"n", plain) + end),
        "sparse-old": _raw(True, _sparse_old([(512, 512), (9000, 5), (10_000, 0)], 10_000, b"12345".rjust(517)) + end),
        "sparse-0.0": _raw(True, _sparse(b"12345", size="14", numblocks="1", offset="9", numbytes="5") + end),
        "sparse-0.1": _raw(True, _sparse(b"12345".rjust(517), size="10000", name="s", numblocks="3",
                                         map="0,512,9000,5,10000,0") + end),
        "sparse-without-end": _raw(False, _sparse(b"12345", size="10000", numblocks="1", map="0,5") + end),
        "sparse-without-count": _raw(False, _sparse(b"12345", size="10000", map="0,5") + end),
        "sparse-1.0": _raw(True, _sparse(b"3\n0\n512\n9000\n5\n10000\n0\n".ljust(1024, b"\0") + b"12345", major="1",
                                         minor="0", name="s", realsize="10000") + end),
        "sparse-unaligned": _raw(False, _sparse(b"12345", size="9", numblocks="2", map="0,3,7,2") + end),
        "sparse-huge-map": _raw(False, _sparse(b"999999\n" + b"0\n" * 600_000, major="1", minor="0", name="s",
                                               realsize="9") + end),
        "sparse-overlap": _raw(False, _sparse(b"12345", size="10000", numblocks="2", map="0,3,2,2") + end),
        "sparse-beyond-its-end": _raw(False, _sparse(b"12345", size="4", numblocks="1", map="0,5") + end),
        "sparse-other-bytes": _raw(False, _sparse(b"12345", size="10000", numblocks="1", map="0,4") + end),
        "sparse-8-EiB": _raw(False, _sparse_old([(0, 5)], 2**62, b"12345") + end),
        "negative-size": _raw(False, header(size=b"\xff" * 12) + end),
        "size-2^63": _raw(False, header(size=b"\x80" + bytes(3) + b"\x80" + bytes(7)) + end),
        "size-beyond-the-archive": _raw(False, header(size=b"77777777777\0") + end),
        "size-octal-junk": _raw(False, header(size=b"0000000005x\0") + end),
        "bad-checksum": _raw(False, plain[:148] + b"000000\0 " + plain[156:] + end),
        "truncated-header": _raw(False, plain + plain[:300]),
        "truncated-body": _raw(False, plain[:515]),
        "one-zero-block": _raw(True, plain + end[:512]),
        "no-end": _raw(True, plain),
        "entry-after-a-zero-block": _raw(False, plain + end[:512] + plain + end),
        "garbage-after-the-end": _raw(True, plain + end + os.urandom(1000)),
        "concatenated": _raw(True, plain + end + archive(file("second"))),
        "no-archive": _raw(False, b"this is no archive at all " * 100),
        "nothing": _raw(True, b""),
        "no-name": _raw(False, header(name=b"\0") + end),
        "file-with-a-slash": _raw(False, header(name=b"x/") + end),
        "unknown-type": _raw(False, header(flag=b"s") + end),
        "volume-label": _raw(False, header(flag=b"V") + end),
        "multi-volume": _raw(False, header(flag=b"M") + end),
        "directory-with-content": _raw(False, header(b"12345", flag=b"5") + end),
        "symlink-with-content": _raw(False, header(b"12345", flag=b"2", link=b"y") + end),
        "symlink-to-nothing": _raw(False, header(flag=b"2") + end),
        "star-prefix": _raw(False, header(prefix=b"p" * 140, trailer=b"tar\0") + end),
    }  # fmt: skip


ATTACKS: Mapping[str, Attack] = {**_paths(), **_nodes(), **_archives()}
