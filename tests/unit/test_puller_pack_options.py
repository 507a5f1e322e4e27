"""What packing is told: compression, owners, what to leave out, the time. How many cores there are is no part of it."""

from __future__ import annotations

import gzip
import os

import pytest
import zstandard
from moorage.puller.errors import BadReference, PackError
from moorage.puller.pack import AS_ON_DISK, Compression, Ignore, parse_compression, parse_owner, source_date_epoch
from moorage.puller.pack.gzip_writer import GzipWriter
from moorage.puller.pack.zstd_writer import ZstdWriter


@pytest.mark.parametrize(("raw", "expected"), [("", None), ("0", 0), ("1600000000", 1_600_000_000)])
def test_the_epoch_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch, raw: str, expected: int | None) -> None:
    """As reproducible-builds.org has it."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", raw)
    assert source_date_epoch() == expected


@pytest.mark.parametrize("raw", ["now", "-1", "1.5", "٣", "9" * 20])
def test_an_epoch_that_is_no_number_is_refused(monkeypatch: pytest.MonkeyPatch, raw: str) -> None:
    """Silently packing other times would defeat its purpose."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", raw)
    with pytest.raises(PackError):
        source_date_epoch()


@pytest.mark.parametrize("size", [0, 1, 2**20 - 1, 2**20, 2**20 + 1, 5 * 2**20 + 7])
@pytest.mark.parametrize("workers", [1, 3])
def test_gzip_does_not_depend_on_the_number_of_cores(monkeypatch: pytest.MonkeyPatch, size: int, workers: int) -> None:
    """Nor on how the data was cut."""
    content = (b"some text that compresses " * (size // 26 + 1))[:size]
    outputs = []
    for count, step in ((workers, 70_000), (2, 2**21)):
        monkeypatch.setattr(os, "cpu_count", lambda count=count: count)
        parts: list[bytes] = []
        with GzipWriter(parts.append, level=4) as writer:
            for start in range(0, size, step):
                writer.write(content[start : start + step])
        outputs.append(b"".join(parts))
    assert outputs[0] == outputs[1]
    assert gzip.decompress(outputs[0]) == content


@pytest.mark.parametrize("size", [0, 1, 2**20 + 1, 20 * 2**20 + 7])
def test_zstd_does_not_depend_on_the_number_of_cores(size: int) -> None:
    """Nor on how the data was cut; it is one frame with a checksum."""
    content = (b"some text that compresses " * (size // 26 + 1))[:size]
    outputs = []
    for workers, step in ((1, 70_000), (2, 2**21), (4, 999_999)):
        parts: list[bytes] = []
        with ZstdWriter(parts.append, level=3, workers=workers) as writer:
            for start in range(0, size, step):
                writer.write(content[start : start + step])
        outputs.append(b"".join(parts))
    assert outputs[0] == outputs[1] == outputs[2]
    assert zstandard.get_frame_parameters(outputs[0]).has_checksum
    assert zstandard.ZstdDecompressor().decompressobj().decompress(outputs[0]) == content


@pytest.mark.parametrize(
    ("text", "expected"),
    [("gzip", Compression()), ("zstd", Compression("zstd")), ("gzip:9", Compression("gzip", 9)),
     ("zstd:19", Compression("zstd", 19))],
)  # fmt: skip
def test_compressions_are_named(text: str, expected: Compression) -> None:
    """With or without a level."""
    assert parse_compression(text) == expected


@pytest.mark.parametrize("text", ["", "xz", "gzip:", "gzip:0", "gzip:10", "zstd:20", "zstd:-1", "gzip:٣", "gzip:x"])
def test_what_is_no_compression(text: str) -> None:
    """Is wrong usage."""
    with pytest.raises(BadReference):
        parse_compression(text)


@pytest.mark.parametrize(("text", "expected"), [("0:0", (0, 0)), ("1000:4294967294", (1000, 2**32 - 2))])
def test_owners_are_numbers(text: str, expected: tuple[int, int]) -> None:
    """As the image has them."""
    assert parse_owner(text) == expected
    assert parse_owner("keep") is AS_ON_DISK


@pytest.mark.parametrize("text", ["", "0", "root:root", "0:", "-1:0", "4294967295:0", "1:2:3"])
def test_what_is_no_owner(text: str) -> None:
    """Is wrong usage."""
    with pytest.raises(BadReference):
        parse_owner(text)


@pytest.mark.parametrize(
    ("rules", "out", "kept"),
    [
        pytest.param("*.log", ["a.log"], ["x/a.log", "log"], id="star stays in a component"),
        pytest.param("**/*.log", ["a.log", "x/y/a.log"], ["a.logs"], id="two stars cross components"),
        pytest.param("x/**", ["x/a", "x/y/a"], ["x", "ax/a"], id="all below"),
        pytest.param("a/**/z", ["a/z", "a/b/c/z"], ["az", "a/zz"], id="stars in the middle"),
        pytest.param("/x", ["x", "x/y"], ["y/x"], id="a slash in front means nothing"),
        pytest.param("./x/../y/", ["y", "y/z"], ["x"], id="cleaned"),
        pytest.param("?at", ["cat"], ["at", "x/cat", "/at"], id="question mark"),
        pytest.param("[a-c]x", ["ax", "cx"], ["dx"], id="class"),
        pytest.param("[^a-c]x", ["dx"], ["ax", "/x"], id="negated class"),
        pytest.param("a\\*b", ["a*b"], ["axb"], id="escape"),
        pytest.param("a.b", ["a.b"], ["axb"], id="a dot is a dot"),
        pytest.param("# x\n\n  y  \n", ["y"], ["# x", "x"], id="comments and blanks"),
        pytest.param("*\n!a\na/b", ["b", "a/b"], ["a", "a/c"], id="the last line that matches decides"),
        pytest.param("d\n!d/keep", ["d", "d/x"], ["d/keep", "d/keep/all"], id="taken back below"),
        pytest.param(".", [], ["a"], id="the root cannot be left out"),
        pytest.param("\ufeffä", ["ä"], ["a"], id="byte order mark, letters"),
    ],
)
def test_ignore_rules(rules: str, out: list[str], kept: list[str]) -> None:
    """As docker has them."""
    ignore = Ignore.parse(rules.encode(), name="ignore")
    assert [name for name in (*out, *kept) if ignore.leaves_out(name.encode())] == out


@pytest.mark.parametrize("rules", ["[a", "ok\n!", "a\\", "[]a]", "[z-a]"])
def test_a_rule_that_cannot_be_understood_is_refused(rules: str) -> None:
    """Packing what was meant to stay out would be worse; the message says which line."""
    with pytest.raises(PackError, match=rf"^ignore:{rules.count(chr(10)) + 1}: "):
        Ignore.parse(rules.encode(), name="ignore")
