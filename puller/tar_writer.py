"""Writes entries as a ustar archive, with PAX records only where ustar cannot say it.

Rule: the bytes depend on the entry alone: owners are numbers, there is no access or change time, and no program's name.
"""

from __future__ import annotations

from moorage.puller.entries import BLOCK, Entry, Kind, padding

__all__ = ["END_OF_ARCHIVE", "encode_entry"]

END_OF_ARCHIVE = bytes(2 * BLOCK)
_NANO = 1_000_000_000
_MAX_SECONDS = 8**11 - 1
_MAX_ID = 8**7 - 1
_PAX = b"x"


def encode_entry(entry: Entry) -> bytes:
    """The header blocks of an entry; its data and the padding follow."""
    name = entry.name + b"/" if entry.kind is Kind.DIRECTORY else entry.name
    records = _pax_records(entry, name)
    extra = b""
    if records:
        body = b"".join(_encode_record(key, value) for key, value in records.items())
        title = b"PaxHeaders/" + entry.name.rpartition(b"/")[2][:80]
        extra = _header(title, b"", _PAX, Entry(title, Kind.FILE, size=len(body))) + body + bytes(padding(len(body)))
    return extra + _header(name, entry.link, entry.kind.value, entry)


def _pax_records(entry: Entry, name: bytes) -> dict[bytes, bytes]:
    records: dict[bytes, bytes] = {}
    if _split(name) is None:
        records[b"path"] = name
    if len(entry.link) > 100:
        records[b"linkpath"] = entry.link
    for key, value, limit in (
        (b"uid", entry.uid, _MAX_ID),
        (b"gid", entry.gid, _MAX_ID),
        (b"size", entry.size, _MAX_SECONDS),
    ):
        if value > limit:
            records[key] = b"%d" % value
    if entry.mtime % _NANO or not 0 <= entry.mtime // _NANO <= _MAX_SECONDS:
        records[b"mtime"] = _decimal(entry.mtime)
    records.update((b"SCHILY.xattr." + key, value) for key, value in sorted(entry.xattrs.items()))
    return records


def _decimal(nanoseconds: int) -> bytes:
    """Seconds as a decimal number without trailing zeros."""
    whole, fraction = divmod(abs(nanoseconds), _NANO)
    sign = b"-" if nanoseconds < 0 else b""
    return sign + (b"%d.%09d" % (whole, fraction)).rstrip(b"0").rstrip(b".")


def _encode_record(key: bytes, value: bytes) -> bytes:
    """``length key=value``, where the length counts its own digits."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)


def _split(name: bytes) -> tuple[bytes, bytes] | None:
    """Prefix and name as ustar's two fields; None if they do not fit."""
    if len(name) <= 100:
        return b"", name
    cut = name.rfind(b"/", 0, min(156, len(name) - 1))
    return (name[:cut], name[cut + 1 :]) if cut > 0 and len(name) - cut - 1 <= 100 else None


def _header(name: bytes, link: bytes, flag: bytes, entry: Entry) -> bytes:
    prefix, short = _split(name) or (b"", name[-100:])
    seconds = entry.mtime // _NANO
    fields = (
        short.ljust(100, b"\0"),
        b"%07o\0" % entry.mode,
        b"%07o\0" % min(entry.uid, _MAX_ID),
        b"%07o\0" % min(entry.gid, _MAX_ID),
        b"%011o\0" % min(entry.size, _MAX_SECONDS),
        b"%011o\0" % (seconds if 0 <= seconds <= _MAX_SECONDS else 0),
        b"        ",
        flag,
        link[:100].ljust(100, b"\0"),
        b"ustar\x0000",
        bytes(64),
        b"%07o\0" % entry.device[0],
        b"%07o\0" % entry.device[1],
        prefix.ljust(155, b"\0"),
        bytes(12),
    )
    block = b"".join(fields)
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]
