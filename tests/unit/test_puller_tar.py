"""The archive reader reads what GNU tar and tarfile write, both read what ours writes, and ambiguity is refused."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from moorage.puller.entries import Entry, Kind
from moorage.puller.errors import BrokenLayer, UnsafeLayer
from moorage.puller.tar_writer import END_OF_ARCHIVE, encode_entry
from moorage.puller.unpack.source import TarReader

from tests.demo import Tree, compare
from tests.layers import archive, directory, file, hard_link, symlink, unpack

_TYPES = {
    Kind.FILE: tarfile.REGTYPE,
    Kind.HARD_LINK: tarfile.LNKTYPE,
    Kind.SYMLINK: tarfile.SYMTYPE,
    Kind.DIRECTORY: tarfile.DIRTYPE,
    Kind.FIFO: tarfile.FIFOTYPE,
    Kind.CHARACTER_DEVICE: tarfile.CHRTYPE,
    Kind.BLOCK_DEVICE: tarfile.BLKTYPE,
}
_NANO = 10**9


def _read(raw: bytes, chunk: int = 1 << 20) -> list[tuple[Entry, bytes]]:
    reader = TarReader(iter([raw[start : start + chunk] for start in range(0, len(raw), chunk)]))
    return [(entry, b"".join(bytes(piece) for piece in reader.data())) for entry in reader]


_names = st.lists(
    st.text(st.characters(codec="utf-8", exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=40)
    .filter(lambda part: part not in (".", "..")),
    min_size=1, max_size=6,
).map("/".join)  # fmt: skip
_entries = st.builds(
    lambda name, kind, mode, uid, gid, mtime, link, device, content: (
        Entry(
            name.encode(), kind, mode, uid, gid, mtime,
            len(content) if kind is Kind.FILE else 0,
            link.encode() if kind in (Kind.SYMLINK, Kind.HARD_LINK) else b"",
            device if kind in (Kind.CHARACTER_DEVICE, Kind.BLOCK_DEVICE) else (0, 0),
        ),
        content if kind is Kind.FILE else b"",
    ),
    _names, st.sampled_from(list(Kind)), st.integers(0, 0o7777), st.integers(0, 2**32 - 2), st.integers(0, 2**32 - 2),
    st.integers(-(10**9) * _NANO, 8**11 * _NANO * 2), _names, st.tuples(st.integers(0, 4000), st.integers(0, 99999)),
    st.binary(max_size=1500),
)  # fmt: skip


@given(st.lists(_entries, max_size=6), st.sampled_from([1, 100, 512, 5000]))
@settings(max_examples=150, deadline=None)
def test_the_reader_reads_what_the_writer_writes(members: list[tuple[Entry, bytes]], chunk: int) -> None:
    """Every field of every entry, however the stream is cut."""
    assert _read(archive(*members), chunk) == [
        (Entry(e.name + b"/" if e.kind is Kind.DIRECTORY else e.name, *_fields(e)), content) for e, content in members
    ]


def _fields(entry: Entry) -> tuple[Any, ...]:
    return (
        *(entry.kind, entry.mode, entry.uid, entry.gid, entry.mtime),
        *(entry.size, entry.link, entry.device, entry.xattrs),
    )


@given(st.lists(_entries, max_size=6))
@settings(max_examples=150, deadline=None)
def test_tarfile_reads_what_the_writer_writes(members: list[tuple[Entry, bytes]]) -> None:
    """Names, types, numbers and content; times as far as a float holds them."""
    with tarfile.open(fileobj=io.BytesIO(archive(*members)), encoding="utf-8") as other:
        for info, (entry, content) in zip(other.getmembers(), members, strict=True):
            assert (info.name.encode(), info.type, info.mode) == (entry.name, _TYPES[entry.kind], entry.mode)
            assert (info.uid, info.gid, info.size) == (entry.uid, entry.gid, entry.size)
            assert info.linkname.encode() == entry.link
            assert info.mtime == pytest.approx(entry.mtime / _NANO, rel=1e-9, abs=1e-6)
            extracted = other.extractfile(info) if entry.kind is Kind.FILE else None
            assert (extracted.read() if extracted else b"") == content


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT],
                         ids=["ustar", "gnu", "pax"])  # fmt: skip
@given(data=st.data())
@settings(max_examples=80, deadline=None)
def test_the_reader_reads_what_tarfile_writes(form: int, data: st.DataObject) -> None:
    """In all its formats: long names, huge numbers, fractions and signs of times."""
    members = data.draw(st.lists(_entries, max_size=4))
    buffer, expected = io.BytesIO(), []
    with tarfile.open(fileobj=buffer, mode="w", format=form, encoding="utf-8") as other:
        for entry, content in members:
            info = _info(entry)
            try:
                other.addfile(info, io.BytesIO(content))
            except ValueError:
                continue  # ustar cannot say it
            seconds = int(info.mtime) if form != tarfile.PAX_FORMAT else info.mtime
            expected.append((entry, seconds, content))
    found = _read(buffer.getvalue())
    assert len(found) == len(expected)
    for (entry, content), (wanted, seconds, wanted_content) in zip(found, expected, strict=True):
        assert entry.name.rstrip(b"/") == wanted.name
        assert entry.mtime / _NANO == seconds
        assert (entry.kind, entry.mode, entry.uid, entry.gid, entry.size, entry.link) == (
            *(wanted.kind, wanted.mode, wanted.uid, wanted.gid, wanted.size, wanted.link),
        )
        assert content == wanted_content


def _info(entry: Entry) -> tarfile.TarInfo:
    info = tarfile.TarInfo(entry.name.decode())
    info.type, info.mode, info.uid, info.gid = _TYPES[entry.kind], entry.mode, entry.uid, entry.gid
    info.size, info.linkname, info.mtime = entry.size, entry.link.decode(), entry.mtime * 4 // _NANO / 4
    info.devmajor, info.devminor = entry.device
    return info


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of all the kinds that an unprivileged user can make."""
    root = tmp_path_factory.mktemp("tree")
    deep = root / ("deep " * 20) / ("er" * 100)
    deep.mkdir(parents=True)
    (deep / ("name" * 60)).write_bytes(os.urandom(100_000))
    (root / "empty").write_bytes(b"")
    (root / "exact").write_bytes(bytes(512))
    (root / "twin").hardlink_to(root / "exact")
    (root / "setuid").write_text("x")
    (root / "setuid").chmod(0o4711)
    (root / "link").symlink_to("../" * 60 + "target")
    os.mkfifo(root / "pipe", 0o640)
    (root / "Ναύτης\n").write_text("name")
    os.close(os.open(os.path.join(os.fsencode(root), b"\xff\xfe"), os.O_CREAT))
    os.utime(root / "empty", ns=(0, 1_234_567_890_123_456_789))
    (root / "folder").mkdir(mode=0o1770)
    return root


@pytest.mark.parametrize("form", ["gnu", "pax", "ustar", "v7", "oldgnu"])
def test_what_gnu_tar_packs_is_unpacked_alike(tree: Path, tmp_path: Path, form: str) -> None:
    """Its archives, unpacked by it and by us, give the same tree."""
    made = subprocess.run(
        ["tar", "-C", tree, f"--format={form}", "-c", "."], capture_output=True, check=False, timeout=60
    )
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    subprocess.run(["tar", "-C", theirs, "-xp"], input=made.stdout, check=True, timeout=60)
    unpack(tmp_path / "ours", made.stdout)
    assert list(compare(Tree.read(theirs), Tree.read(tmp_path / "ours"))) == []


def test_gnu_tar_unpacks_what_we_write(tmp_path: Path) -> None:
    """And gets the same tree as we do."""
    members = (
        directory("d", mode=0o750),
        *(directory("d/" + "/".join("l" * number)) for number in range(1, 121)),
        file("d/" + "l/" * 120 + "deep", b"x"),
        file("d/" + "long" * 60, b"content"),
        file(b"\xff\xfe", b"bytes"),
        symlink("s", "t" * 300),
        hard_link("h", "d/" + "long" * 60),
    )
    raw = archive(*members)
    (tmp_path / "theirs").mkdir()
    subprocess.run(["tar", "-C", tmp_path / "theirs", "-xp"], input=raw, check=True, timeout=60)
    unpack(tmp_path / "ours", raw)
    assert list(compare(Tree.read(tmp_path / "theirs"), Tree.read(tmp_path / "ours"))) == []


def _header(**fields: bytes) -> bytes:
    """A header block with raw fields changed and the checksum made right."""
    offsets = {"mode": 100, "uid": 108, "size": 124, "mtime": 136, "flag": 156, "magic": 257, "name": 0, "link": 157}
    block = bytearray(encode_entry(Entry(b"x", Kind.FILE)))
    for key, value in fields.items():
        block[offsets[key] : offsets[key] + len(value)] = value
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def _extended(flag: bytes, body: bytes) -> bytes:
    return _header(flag=flag, size=b"%011o\0" % len(body)) + body + bytes(-len(body) % 512)


def _record(key: str, value: str) -> bytes:
    rest = f" {key}={value}\n"
    length = len(rest) + len(str(len(rest) + 3)) if len(rest) + 3 < 100 else len(rest) + 3
    while len(f"{length}{rest}") != length:
        length += 1
    return f"{length}{rest}".encode()


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(_header()[:100], id="half a header"),
        pytest.param(_header(size=b"00000001000\0") + b"short", id="content cut short"),
        pytest.param(_header().replace(b"ustar", b"USTAR"), id="wrong checksum"),
        pytest.param(_header(size=b"0000000000z\0"), id="size is no number"),
        pytest.param(_header(size=b"-0000000001\0"), id="size with a sign"),
        pytest.param(_header(size=b"\xff" * 12), id="negative size in binary"),
        pytest.param(_header(size=b"\x80" + b"\xff" * 11), id="size of 2 to the 88th"),
        pytest.param(_header(flag=b"S"), id="sparse, but not of GNU's format"),
        pytest.param(_header(flag=b"V"), id="volume label"),
        pytest.param(_header(flag=b"Q"), id="unknown type"),
        pytest.param(_header(flag=b"5", size=b"00000000001\0") + bytes(512), id="directory with content"),
        pytest.param(_header(flag=b"1", link=b"y", size=b"00000000001\0") + bytes(512), id="link with content"),
        pytest.param(_header(flag=b"2"), id="link to nothing"),
        pytest.param(_header(name=b"\0"), id="no name"),
        pytest.param(_header(name=b"x/"), id="file with a slash"),
        pytest.param(_extended(b"x", _record("path", "y")), id="extended header of nothing"),
        pytest.param(_extended(b"L", b"y"), id="long name of nothing"),
        pytest.param(_extended(b"x", b"") * 2 + _header(), id="two extended headers"),
        pytest.param(_extended(b"L", b"y") * 2 + _header(), id="two long names"),
        pytest.param(_extended(b"L", b"y") + _extended(b"x", _record("path", "z")) + _header(), id="two names"),
        pytest.param(_extended(b"g", _record("path", "y")) + _header(), id="global name"),
        pytest.param(_extended(b"g", _record("size", "1")) + _header(), id="global size"),
        pytest.param(_extended(b"x", _record("GNU.sparse.major", "2")) + _header(), id="sparse of an unknown form"),
        pytest.param(_extended(b"x", b"99 path=y\n") + _header(), id="record longer than it is"),
        pytest.param(_extended(b"x", b"7 path=y\n") + _header(), id="record shorter than it is"),
        pytest.param(_extended(b"x", b"10 path:y\n") + _header(), id="record without equals"),
        pytest.param(_extended(b"x", b"-1 path=y\n") + _header(), id="negative record"),
        pytest.param(_extended(b"x", _record("size", "-1")) + _header(), id="negative size in pax"),
        pytest.param(_extended(b"x", _record("size", "1e3")) + _header(), id="size as a float"),
        pytest.param(_extended(b"x", _record("mtime", "now")) + _header(), id="time is no number"),
        pytest.param(_extended(b"x", _record("path", "a\0b")) + _header(), id="NUL in a name"),
        pytest.param(_header() + bytes(512) + _header(), id="entry after a zero block"),
        pytest.param(b"not an archive at all" * 100, id="no archive"),
    ],
)
def test_what_two_tools_could_read_differently_is_refused(raw: bytes) -> None:
    """A scanner and an unpacker that disagree are a way to smuggle (rule U8)."""
    with pytest.raises(BrokenLayer):
        _read(raw)


@pytest.mark.parametrize("key", ["uid", "gid"])
@pytest.mark.parametrize(("value", "is_fine"), [(2**32 - 2, True), (2**32 - 1, False), (2**32, False), (2**63, False)])
def test_owners_are_what_the_kernel_takes(key: str, value: int, is_fine: bool) -> None:
    """2^32-1 means no change, and beyond it wraps (CVE-2024-40635)."""
    raw = _extended(b"x", _record(key, str(value))) + _header() + END_OF_ARCHIVE
    if is_fine:
        assert getattr(_read(raw)[0][0], key) == value
    else:
        with pytest.raises((UnsafeLayer, BrokenLayer)):
            _read(raw)


def test_a_pax_size_belongs_to_the_file_behind_other_headers() -> None:
    """CVE-2025-62518: a long-name header in between keeps its own size."""
    raw = _extended(b"x", _record("size", "5")) + _extended(b"L", b"name\0") + _header() + b"12345" + bytes(507)
    assert [(e.name, content) for e, content in _read(raw + END_OF_ARCHIVE)] == [(b"name", b"12345")]


@pytest.mark.parametrize("end", [b"", bytes(512), bytes(1024), bytes(10240)], ids=["none", "one", "two", "twenty"])
def test_an_archive_may_end_in_zero_blocks(end: bytes) -> None:
    """None, one or many, as writers do; that all is there is what the diffID says."""
    assert len(_read(_header() + end)) == 1


@pytest.mark.parametrize(("flag", "kind"), [(b"\0", Kind.FILE), (b"7", Kind.FILE), (b"0", Kind.FILE)])
def test_old_types_are_files(flag: bytes, kind: Kind) -> None:
    """NUL of the seventh edition, and contiguous files."""
    assert _read(_header(flag=flag))[0][0].kind is kind


def test_the_oldest_archives_mark_directories_by_a_slash() -> None:
    """They have no type for them."""
    assert _read(_header(flag=b"\0", name=b"d/", magic=bytes(8)))[0][0].kind is Kind.DIRECTORY


def test_global_comments_are_ignored() -> None:
    """``git archive`` writes one."""
    assert len(_read(_extended(b"g", _record("comment", "abc")) + _header())) == 1


def test_type_bits_in_a_mode_are_dropped() -> None:
    """Old docker wrote them."""
    assert _read(_header(mode=b"0104755\0"))[0][0].mode == 0o4755


def test_unread_content_is_passed_over() -> None:
    """Whoever iterates need not read the data."""
    raw = archive(file("a", bytes(100_000)), file("b", b"b"))
    assert [entry.name for entry in TarReader(iter([raw]))] == [b"a", b"b"]


def test_nothing_is_allocated_because_a_header_says_so() -> None:
    """A file of 8 GiB that is not there is noticed, not waited for in memory."""
    raw = _header(size=b"77777777777\0") + b"x" * 512

    def chunks() -> Iterator[bytes]:
        yield raw

    reader = TarReader(chunks())
    entry = next(iter(reader))
    assert entry.size == 8**11 - 1
    with pytest.raises(BrokenLayer):
        _ = [len(piece) for piece in reader.data()]
