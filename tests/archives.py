"""Archives at random: as programs write them, in every dialect, and then damaged or made ambiguous.

Rule: headers keep right checksums, so that what was changed is read and not only refused.
"""

from __future__ import annotations

from random import Random

from moorage.puller.entries import BLOCK, Entry, Kind, padding
from moorage.puller.tar_writer import END_OF_ARCHIVE, encode_entry

from tests.layers import fix_sum, pax

__all__ = ["random_archive", "repair_sums"]

_MAGICS = (b"ustar\x0000", b"ustar  \0", bytes(8))
_FIELDS = {"mode": (100, 8), "uid": (108, 8), "gid": (116, 8), "size": (124, 12), "mtime": (136, 12),
           "flag": (156, 1), "magic": (257, 8), "name": (0, 100), "link": (157, 100), "prefix": (345, 155),
           "device": (329, 16)}  # fmt: skip
_CONTENTS = (b"", b"x", b"content" * 9, bytes(512), b"y" * 1000)


def random_archive(chance: Random) -> bytes:
    """One to five entries with unlike names; one in two archives is changed somewhere."""
    parts = [_member(chance, number) for number in range(chance.randint(1, 5))]
    raw = b"".join(parts) + chance.choice((END_OF_ARCHIVE, END_OF_ARCHIVE, b"", bytes(512), bytes(10240)))
    if chance.random() < 0.5:
        raw = _change(chance, raw)
    return raw


def _member(chance: Random, number: int) -> bytes:
    name = (
        chance.choice((b"n%d", b"d%d/x", b"long%d" + b"l" * 120, b"p%d/" + b"q" * 90 + b"/r", b"\xc3\xa9%d")) % number
    )
    kind = chance.choice((Kind.FILE, Kind.FILE, Kind.FILE, Kind.DIRECTORY, Kind.SYMLINK, Kind.FIFO))
    content = chance.choice(_CONTENTS) if kind is Kind.FILE else b""
    entry = Entry(
        name, kind, chance.choice((0o644, 0o755, 0o4711, 0o600)), chance.choice((0, 5, 70_000)), chance.choice((0, 6)),
        chance.choice((0, 1_600_000_000, 2**33 + 5)) * 10**9, len(content),
        b"target" * chance.choice((1, 30)) if kind is Kind.SYMLINK else b"",
    )  # fmt: skip
    stored = content + bytes(padding(len(content)))
    dialect = chance.randrange(5)
    if dialect == 0:
        return encode_entry(entry) + stored
    if dialect == 1:
        return _gnu(entry) + stored
    if dialect == 2 and kind is Kind.FILE:
        return _sparse(chance, entry)
    return _posix(chance, entry) + stored


def _block(entry: Entry, **raw: bytes) -> bytes:
    """The header alone, names cut to their fields, with raw fields put over it."""
    cut = Entry(entry.name[:90], entry.kind, entry.mode, 0, 0, 0, entry.size, entry.link[:100])
    block = bytearray(encode_entry(cut)[-BLOCK:])
    for key, value in raw.items():
        start, length = _FIELDS[key]
        block[start : start + length] = value.ljust(length, b"\0")[:length]
    fix_sum(block)
    return bytes(block)


def _gnu(entry: Entry) -> bytes:
    """Long names in headers of their own, numbers in binary."""
    before = b"".join(
        _block(Entry(b"././@LongLink", Kind.FILE, size=len(text) + 1), flag=flag, magic=_MAGICS[1])
        + text + b"\0" + bytes(padding(len(text) + 1))
        for flag, text in ((b"L", entry.name), (b"K", entry.link)) if len(text) > 90
    )  # fmt: skip
    seconds = (entry.mtime // 10**9).to_bytes(11, "big")
    numbers = {"uid": b"\x80" + entry.uid.to_bytes(7, "big"), "mtime": b"\x80" + seconds}
    return before + _block(entry, magic=_MAGICS[1], gid=b"%07o\0" % entry.gid, **numbers)


def _posix(chance: Random, entry: Entry) -> bytes:
    """Records, some of them needless, in any order; the size may stand in them alone."""
    records = [(b"path", entry.name), (b"uid", b"%d" % entry.uid), (b"gid", b"%d" % entry.gid),
               (b"mtime", b"%d.%09d" % divmod(entry.mtime, 10**9)), (b"comment", b"c"), (b"atime", b"1.5")]  # fmt: skip
    fields = {}
    if entry.link:
        records.append((b"linkpath", entry.link))
    if entry.kind is Kind.FILE:
        records += [(b"SCHILY.xattr.user.a", b"\0\xff=\n")] * chance.randrange(2)
        if chance.random() < 0.4:
            records.append((b"size", b"%d" % entry.size))
            fields["size"] = b"%011o\0" % chance.choice((0, entry.size, 7))
    chance.shuffle(records)
    return pax(records) + _block(entry, **fields)


def _sparse(chance: Random, entry: Entry) -> bytes:
    first, second = b"a" * chance.choice((512, 1024)), b"b" * chance.choice((512, 3))
    offset, size = 512 * chance.randint(2, 60), 512 * 64
    data, pairs = first + second, ((0, len(first)), (offset, len(second)), (size, 0))
    mapped = [b"%d" % number for pair in pairs for number in pair]
    head = [(b"GNU.sparse.name", entry.name)]
    if chance.random() < 0.5:
        data = (b"3\n" + b"\n".join(mapped) + b"\n").ljust(BLOCK, b"\0") + data
        head += [(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.realsize", b"%d" % size)]
    else:
        head += [(b"GNU.sparse.size", b"%d" % size), (b"GNU.sparse.numblocks", b"3"),
                 (b"GNU.sparse.map", b",".join(mapped))]  # fmt: skip
    plain = Entry(entry.name, Kind.FILE, entry.mode, 0, 0, 0, len(data))
    return pax(head) + _block(plain) + data + bytes(padding(len(data)))


def _change(chance: Random, raw: bytes) -> bytes:
    """Something else somewhere."""
    changed = bytearray(raw)
    block = BLOCK * chance.randrange(max(1, len(raw) // BLOCK))
    what = chance.randrange(7)
    if what <= 2:
        start, length = _FIELDS[chance.choice(list(_FIELDS))]
        text = chance.choice(
            (b"0", b"1", b"7", b" ", b"\0", b"\x80", b"\xff", b"a", b"/", b"00000001000\0", b"5", b"x", b"L")
        )
        where = block + start + chance.randrange(length)
        changed[where : where + len(text)] = text
    elif what == 3:
        changed[block:block] = bytes(BLOCK)
    elif what == 4:
        del changed[block : block + BLOCK]
    elif what == 5:
        del changed[chance.randrange(len(raw) + 1) :]
    else:
        where = chance.randrange(max(1, len(raw)))
        changed[where : where + 1] = bytes((chance.randrange(256),))
    return repair_sums(bytes(changed))


def repair_sums(raw: bytes) -> bytes:
    """The archive with right checksums in what stands where headers are expected."""
    fixed, start = bytearray(raw), 0
    while start + BLOCK <= len(fixed):
        block = fixed[start : start + BLOCK]
        if any(block):
            fix_sum(block)
            fixed[start : start + BLOCK] = block
        digits = bytes(block[124:135]).strip(b" \0")
        size = int(digits, 8) if digits.isdigit() and not set(digits) & set(b"89") else 0
        start += BLOCK + (size + padding(size) if size < len(raw) else 0)
    return bytes(fixed)
