"""Rules 15 to 17 of unpacking a layer: what archives hold, and what programs must not read differently."""

from __future__ import annotations

import gzip
import io
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from moorage.puller.entries import BLOCK, Entry, Kind, padding
from moorage.puller.errors import BrokenLayer, ImageError, UnsafeLayer
from moorage.puller.tar_writer import END_OF_ARCHIVE, encode_entry
from moorage.puller.unpack.apply import unpack_layers
from moorage.puller.unpack.inflate import inflate
from moorage.puller.unpack.source import TarReader

from tests.layers import archive, file, fix_sum, layer_of, pax, seen, unpack


def _gnu_sparse(form: str, holes: Path, *names: str) -> bytes:
    flags = ["--format=gnu"] if form == "old" else ["--format=pax", f"--sparse-version={form}"]
    return subprocess.run(
        ["tar", "-C", holes, *flags, "-S", "-c", *names], capture_output=True, check=True, timeout=60
    ).stdout


@pytest.fixture(scope="module")
def holes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files with holes: at the end, at the start, many of them (a map of several blocks), nothing else, and none."""
    root = tmp_path_factory.mktemp("holes")
    for name, places, size in (
        ("end", [0], 10_000_000),
        ("start", [9_000_000], 9_000_003),
        ("many", range(0, 3_000_000, 30_000), 3_000_000),
        ("empty", [], 5_000_000),
        ("middle", [0, 1_000_000], 1_000_003),
    ):
        with (root / name).open("wb") as out:
            for place in places:
                out.seek(place)
                out.write(b"abc")
            out.truncate(size)
    return root


@pytest.mark.parametrize("form", ["old", "0.0", "0.1", "1.0"])
@pytest.mark.parametrize("name", ["end", "start", "many", "empty", "middle"])
def test_rule_15_sparse_files_of_gnu_tar(tmp_path: Path, holes: Path, form: str, name: str) -> None:
    """All four forms, with their holes."""
    unpack(tmp_path / "r", _gnu_sparse(form, holes, name))
    assert set(seen(tmp_path / "r")) == {name}
    assert (tmp_path / "r" / name).read_bytes() == (holes / name).read_bytes()
    assert (tmp_path / "r" / name).stat().st_blocks * 512 < (holes / name).stat().st_size


@pytest.mark.parametrize("form", ["old", "0.0", "0.1", "1.0"])
def test_rule_15_a_sparse_file_may_be_passed_over(holes: Path, form: str) -> None:
    """What follows it is found."""
    reader = TarReader(iter([_gnu_sparse(form, holes, "many", "middle")]))
    assert [(entry.name, entry.size) for entry in reader] == [(b"many", 3_000_000), (b"middle", 1_000_003)]


def _old_sparse(
    pairs: list[tuple[int, int]], size: int, stored: int, *, extended: int = 0, magic: bytes = b""
) -> bytes:
    block = bytearray(encode_entry(Entry(b"s", Kind.FILE, size=stored)))
    block[156:157], block[257:265], block[345:] = b"S", magic or b"ustar  \0", bytes(167)
    for number, (offset, length) in enumerate(pairs):
        start = 386 + 24 * number
        block[start : start + 24] = b"%011o\0%011o\0" % (offset, length)
    block[482], block[483:495] = extended, b"%011o\0" % size
    fix_sum(block)
    return bytes(block) + bytes(stored + padding(stored))


def _new_sparse(records: list[tuple[str, str]], stored: bytes, kind: Kind = Kind.FILE) -> bytes:
    head = pax([(f"GNU.sparse.{key}".encode(), value.encode()) for key, value in records])
    return head + encode_entry(Entry(b"s", kind, size=len(stored))) + stored + bytes(padding(len(stored)))


_V1 = [("major", "1"), ("minor", "0"), ("name", "real")]


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(_old_sparse([(0, 10)], 5, 10), id="old: beyond the end"),
        pytest.param(_old_sparse([(10, 5), (0, 5)], 20, 10), id="old: without order"),
        pytest.param(_old_sparse([(0, 10), (5, 10)], 20, 20), id="old: overlapping"),
        pytest.param(_old_sparse([(0, 10)], 20, 12), id="old: more stored than mapped"),
        pytest.param(_old_sparse([(0, 10)], 20, 8), id="old: less stored than mapped"),
        pytest.param(_old_sparse([(0, 1)], 20, 1, extended=1), id="old: ends and goes on"),
        pytest.param(_old_sparse([(0, 1)], 20, 1, magic=b"ustar\x0000"), id="old: in a POSIX archive"),
        pytest.param(pax([(b"size", b"5")]) + _old_sparse([(0, 1)], 20, 1), id="old: resized"),
        pytest.param(_new_sparse([("size", "9"), ("numblocks", "1"), ("map", "0,1,2")], b"x"), id="0.1: half a pair"),
        pytest.param(_new_sparse([("size", "9"), ("numblocks", "1"), ("map", "0,x")], b"x"), id="0.1: no number"),
        pytest.param(_new_sparse([("size", "9"), ("numblocks", "2"), ("map", "0,1")], b"x"), id="0.1: other count"),
        pytest.param(_new_sparse([("size", "9"), ("numblocks", "1"), ("map", "0,2")], b"x"), id="0.1: less stored"),
        pytest.param(_new_sparse([("numblocks", "1"), ("map", "0,1")], b"x"), id="0.1: no size"),
        pytest.param(_new_sparse([("size", "9"), ("numbytes", "0"), ("offset", "1")], b"x"), id="0.0: order of a pair"),
        pytest.param(_new_sparse([("size", "9"), ("offset", "0"), ("numbytes", "1"), ("map", "0,1")], b"x"),
                     id="0.0 and 0.1"),
        pytest.param(_new_sparse([*_V1, ("realsize", "9")], b"1\n0\nx\n"), id="1.0: no number"),
        pytest.param(_new_sparse([*_V1, ("realsize", "9")], b"9999999\n".ljust(512, b"0")), id="1.0: endless number"),
        pytest.param(_new_sparse([*_V1, ("realsize", "9")], b"1\n0\n1\n".ljust(512, b"\1") + b"x"), id="1.0: goes on"),
        pytest.param(_new_sparse([*_V1, ("realsize", "9")], b"1\n0\n1\n"), id="1.0: nothing stored"),
        pytest.param(_new_sparse(_V1, b"0\n".ljust(512, b"\0")), id="1.0: no size"),
        pytest.param(_new_sparse([("major", "1"), ("minor", "1"), ("realsize", "9")], b""), id="1.1"),
        pytest.param(_new_sparse([("size", "0"), ("map", ""), ("other", "1")], b""), id="an unknown record"),
        pytest.param(_new_sparse([("size", "0"), ("map", "")], b"", Kind.DIRECTORY), id="a directory"),
    ],
)  # fmt: skip
def test_rule_16_a_doubtful_sparse_map_is_refused(raw: bytes) -> None:
    """Programs that tolerate it give different files."""
    with pytest.raises(ImageError):
        list(TarReader(iter([raw + END_OF_ARCHIVE])))


def test_rule_16_a_huge_map_is_refused() -> None:
    """Its length is what the map itself says."""

    def blocks() -> Iterator[bytes]:
        yield pax([(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.realsize", b"9")])
        yield encode_entry(Entry(b"s", Kind.FILE, size=8**11 - 1))
        yield b"999999999\n" + b"0\n" * ((BLOCK - 10) // 2)
        while True:
            yield b"0\n" * (BLOCK // 2)

    with pytest.raises(UnsafeLayer, match="a sparse map of more than"):
        list(TarReader(blocks()))


@pytest.mark.parametrize(
    ("between", "name"),
    [(b"", b"x"), (b"L", b"long"), (b"K", b"x")],
)
def test_rule_16_a_size_belongs_to_the_next_file(between: bytes, name: bytes) -> None:
    """Never to a header in between, which has its own (CVE-2025-62518, CVE-2026-53655)."""
    raw = pax([(b"size", b"5")])
    if between:
        block = bytearray(encode_entry(Entry(b"long", Kind.FILE, size=5)))
        block[156:157] = between
        fix_sum(block)
        raw += bytes(block) + b"long\0" + bytes(507)
    for size in (0, 5, 512):
        reader = TarReader(iter([raw + encode_entry(Entry(b"x", Kind.FILE, size=size)) + b"12345" + bytes(507)]))
        assert [(entry.name, bytes(b"".join(reader.data()))) for entry in reader] == [(name, b"12345")]


def test_rule_16_a_size_is_not_a_directorys() -> None:
    """What would be skipped by one program is an entry to another."""
    raw = pax([(b"size", b"512")]) + encode_entry(Entry(b"d", Kind.DIRECTORY)) + encode_entry(Entry(b"x", Kind.FILE))
    with pytest.raises(BrokenLayer, match="content after an entry that has none"):
        list(TarReader(iter([raw])))


def test_rule_16_a_star_prefix_that_runs_on_is_refused() -> None:
    """Where star has times, others read on in the name."""
    block = bytearray(encode_entry(Entry(b"x", Kind.FILE)))
    block[345:500], block[508:512] = b"d" * 131 + b"00000000000 " * 2, b"tar\0"
    fix_sum(block)
    with pytest.raises(BrokenLayer, match="star"):
        list(TarReader(iter([bytes(block)])))


@pytest.mark.parametrize("tail", [b"x", b"\0" * 511, os.urandom(3000), archive(file("second"))],
                         ids=["a byte", "less than a block", "noise", "an archive"])  # fmt: skip
@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_rule_17_bytes_after_the_end_belong_to_the_layer(tmp_path: Path, tail: bytes, compression: str) -> None:
    """They count for the diffID and mean nothing."""
    raw = archive(file("x")) + tail
    done = unpack_layers([layer_of(raw, compression)], str(tmp_path / "r"))
    assert set(seen(tmp_path / "r")) == {"x"}
    assert done.size == len(raw)
    lying = layer_of(archive(file("x")) + b"other" + tail, compression)
    with pytest.raises(BrokenLayer, match="not the layer"):
        unpack_layers([type(lying)(lying.descriptor, layer_of(raw).diff_id, lying.open)], str(tmp_path / "s"))


def test_rule_17_members_are_not_counted() -> None:
    """eStargz has one for every file."""
    blob = gzip.compress(b"x") * 20_000
    assert b"".join(inflate(io.BytesIO(blob))) == b"x" * 20_000
