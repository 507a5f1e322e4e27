"""The same directory gives the same digest, anywhere and any time; and everything in it comes back."""

from __future__ import annotations

import gzip
import json
import os
import socket
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from moorage.puller.entries import Entry, Kind
from moorage.puller.errors import BadReference, PackError
from moorage.puller.image import read_config, read_layers
from moorage.puller.layout_files import LayoutFiles
from moorage.puller.pack import (
    AS_ON_DISK,
    Compression,
    Ignore,
    Packed,
    PackOptions,
    pack_directory,
    parse_compression,
    parse_owner,
    source_date_epoch,
)
from moorage.puller.pack.gzip_writer import GzipWriter
from moorage.puller.pack.zstd_writer import ZstdWriter
from moorage.puller.tar_writer import encode_entry
from moorage.puller.unpack.apply import unpack_layers
from moorage.puller.unpack.owners import ROOTLESS, encode_owner
from moorage.puller.unpack.source import TarReader
from moorage.registry.oci import Digest, ImageManifest, Platform

from tests.demo import Tree, compare

_AMD64 = Platform("linux", "amd64")


def _fill(root: Path) -> Path:
    (root / "folder" / "sub").mkdir(parents=True)
    (root / "folder" / "file").write_bytes(b"content" * 1000)
    (root / "folder" / "twin").hardlink_to(root / "folder" / "file")
    (root / "folder" / "empty").touch(0o600)
    (root / "setuid").write_bytes(b"x")
    (root / "setuid").chmod(0o4755)
    (root / "link").symlink_to("/absolute/../target")
    (root / "Ναύτης").write_text("name")
    os.mkfifo(root / "pipe")
    os.close(os.open(os.path.join(os.fsencode(root), b"\xff"), os.O_CREAT))
    (root / "folder" / "sub").chmod(0o1770)
    for number, path in enumerate(sorted(root.rglob("*"), key=os.fsencode)):
        os.utime(path, ns=(0, 1_600_000_000_000_000_000 + number * 1_000_000_001), follow_symlinks=False)
    return root


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    return _fill(tmp_path / "source")


@pytest.fixture
def pack(tmp_path: Path, source: Path) -> Callable[..., tuple[Packed, LayoutFiles]]:
    def pack(
        root: Path = source, *, name: str = "layout", epoch: int | None = None, **options: Any
    ) -> tuple[Packed, LayoutFiles]:
        files = LayoutFiles(str(tmp_path / name), create=True)
        wanted = PackOptions(**options)
        return pack_directory(str(root), files, platform=_AMD64, epoch=epoch, options=wanted), files

    return pack


Pack = Callable[..., tuple[Packed, LayoutFiles]]


def _entries(files: LayoutFiles, packed: Packed) -> dict[str, Entry]:
    """What is in the layer, by name."""
    raw = gzip.decompress(_layer(files, packed))
    return {os.fsdecode(entry.name.rstrip(b"/")): entry for entry in TarReader(iter([raw]))}


def _layer(files: LayoutFiles, packed: Packed) -> bytes:
    with files.open_blob(packed.layer.digest) as file:
        return file.read()


def test_what_was_packed_comes_back(pack: Pack, source: Path, tmp_path: Path) -> None:
    """Names, content, modes, owners, times to the nanosecond, links of both kinds."""
    packed, files = pack()
    unpack_layers(read_layers(files, packed.manifest), str(tmp_path / "out"))
    assert list(compare(Tree.read(source), Tree.read(tmp_path / "out"))) == []
    assert packed.entries == len(list(source.rglob("*")))


def test_attributes_come_back(pack: Pack, source: Path, tmp_path: Path) -> None:
    """Those of the user's own name space."""
    os.setxattr(source / "setuid", "user.note", b"\x00bytes")
    packed, files = pack()
    unpack_layers(read_layers(files, packed.manifest), str(tmp_path / "out"))
    assert os.getxattr(tmp_path / "out" / "setuid", "user.note") == b"\x00bytes"


def test_packing_twice_gives_the_same_bytes(pack: Pack) -> None:
    """Layer, config and manifest."""
    assert pack(name="one")[0] == pack(name="two")[0]


def test_a_copy_in_another_place_gives_the_same_bytes(pack: Pack, source: Path, tmp_path: Path) -> None:
    """Inode numbers, order of creation, path and time of day do not matter."""
    again = tmp_path / "another" / "place"
    again.mkdir(parents=True)
    for path in sorted(source.rglob("*"), key=os.fsencode, reverse=True):
        if path.is_dir():
            (again / path.relative_to(source)).mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "-a", f"{source}/.", str(again)], check=True)
    assert pack(again, name="two")[0] == pack(name="one")[0]


def test_another_process_gives_the_same_bytes(pack: Pack, source: Path, tmp_path: Path) -> None:
    """With another hash seed, time zone, locale and umask."""
    program = (
        "import os, sys; os.umask(0o077); from moorage.puller.pack import *; from moorage.puller.layout_files import *;"
        "from moorage.registry.oci import Platform;"
        "files = LayoutFiles(sys.argv[2], create=True);"
        "print(pack_directory(sys.argv[1], files, platform=Platform('linux', 'amd64')).manifest.digest)"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7", "TZ": "Asia/Kathmandu", "LC_ALL": "C", "LANG": "C"}
    done = subprocess.run(
        [sys.executable, "-c", program, str(source), str(tmp_path / "other")],
        env=environment, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert Digest.parse(done.stdout.strip()) == pack()[0].manifest.digest


def test_known_entries_have_known_bytes() -> None:
    """A change of format shows here: it changes what everybody's pushes are called."""
    entries = [
        Entry(b"d", Kind.DIRECTORY, 0o1755, 0, 0, 1_600_000_000 * 10**9),
        Entry(b"d/hello", Kind.FILE, 0o644, 1000, 2**31, 1_600_000_000_500_000_000, 6, xattrs={b"user.a": b"b"}),
        Entry(b"l" * 150, Kind.SYMLINK, 0o777, link=b"t" * 150),
        Entry(b"null", Kind.CHARACTER_DEVICE, 0o666, device=(1, 3)),
    ]
    assert Digest.of(b"".join(map(encode_entry, entries))) == Digest.parse(
        "sha256:33272fc76abde2c05b5b88cce7ec4ce102dd990cfd3aee48fff68068ad25e03b"
    )


@pytest.mark.parametrize("change", ["content", "mode", "mtime", "name", "target"])
def test_every_change_shows(pack: Pack, source: Path, change: str) -> None:
    """Nothing that we keep is ignored."""
    before = pack(name="one")[0]
    victim = source / "setuid"
    stamp = victim.stat().st_mtime_ns
    match change:
        case "content":
            victim.write_bytes(b"y")
        case "mode":
            victim.chmod(0o755)
        case "name":
            victim.rename(source / "renamed")
        case "target":
            (source / "link").unlink()
            (source / "link").symlink_to("elsewhere")
    if change in ("content", "mode"):
        os.utime(victim, ns=(0, stamp))
    if change == "mtime":
        os.utime(victim, ns=(0, stamp + 1))
    assert pack(name="two")[0].manifest.digest != before.manifest.digest


def test_newer_files_are_clamped(pack: Pack, source: Path) -> None:
    """To SOURCE_DATE_EPOCH; older ones keep their time, and the config says the newest."""
    packed, files = pack(epoch=1_600_000_003)
    times = {entry.mtime for entry in TarReader(iter([gzip.decompress(_layer(files, packed))]))}
    assert max(times) == 1_600_000_003 * 10**9
    assert min(times) == 1_600_000_000 * 10**9
    document = packed.manifest.document
    assert isinstance(document, ImageManifest)
    assert read_config(files, document)["created"] == "2020-09-13T12:26:43Z"


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


def test_the_config_describes_a_container(pack: Pack) -> None:
    """Platform, diffID, history; and the descriptor is right."""
    packed, files = pack()
    document = packed.manifest.document
    assert isinstance(document, ImageManifest)
    config = read_config(files, document)
    assert (config["os"], config["architecture"]) == ("linux", "amd64")
    assert config["rootfs"] == {"type": "layers", "diff_ids": [str(packed.diff_id)]}
    assert len(config["history"]) == 1
    assert files.stat_blob(packed.layer.digest) == packed.layer.size


def test_names_are_sorted_and_parents_come_first(pack: Pack) -> None:
    """Bytewise, component by component."""
    packed, files = pack()
    raw = gzip.decompress(_layer(files, packed))
    names = [entry.name.rstrip(b"/").split(b"/") for entry in TarReader(iter([raw]))]
    assert names == sorted(names)


def test_the_gzip_header_says_nothing(pack: Pack) -> None:
    """No time, no name, no system; and the content is one ordinary member."""
    packed, files = pack()
    blob = _layer(files, packed)
    assert blob[:10] == b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
    assert Digest.of(gzip.decompress(blob)) == packed.diff_id


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


def test_sockets_are_left_out_and_said(pack: Pack, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They mean nothing elsewhere."""
    monkeypatch.chdir(source)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        assert pack()[0].skipped == ("socket",)


def test_a_whiteout_name_cannot_be_packed(pack: Pack, source: Path) -> None:
    """It would delete in the image."""
    (source / "folder" / ".wh.file").touch()
    with pytest.raises(PackError, match=r"\.wh\."):
        pack()
    assert not list((source.parent / "layout" / "staging").iterdir())


def test_what_is_no_directory_cannot_be_packed(pack: Pack, source: Path) -> None:
    """Nor what is not there."""
    for path in (source / "setuid", source / "none"):
        with pytest.raises(PackError, match="not a directory"):
            pack(path)


def test_the_store_is_not_packed_into_itself(tmp_path: Path, source: Path) -> None:
    """Unless it is left out."""
    files = LayoutFiles(str(source / "folder" / "store"), create=True)
    with pytest.raises(PackError, match="holds the store itself"):
        pack_directory(str(source), files, platform=_AMD64)
    options = PackOptions(ignore=Ignore.parse(b"folder/store", name="ignore"))
    packed = pack_directory(str(source), files, platform=_AMD64, options=options)
    assert "folder/store" not in _entries(files, packed)


def test_an_empty_directory_is_an_image(pack: Pack, tmp_path: Path) -> None:
    """Of a layer without entries."""
    (tmp_path / "nothing").mkdir()
    packed, files = pack(tmp_path / "nothing")
    unpack_layers(read_layers(files, packed.manifest), str(tmp_path / "out"))
    assert list((tmp_path / "out").iterdir()) == []
    assert json.loads(packed.manifest.content)["layers"][0]["digest"] == str(packed.layer.digest)


_FIXTURE_TIME = 1_600_000_000 * 10**9


@pytest.fixture
def fixture_tree(tmp_path: Path) -> Path:
    """A tree that is the same on every machine and for every user."""
    root = tmp_path / "fixture"
    (root / "bin").mkdir(parents=True)
    (root / "bin" / "tool").write_bytes(bytes(range(256)) * 20_000)
    (root / "bin" / "tool").chmod(0o755)
    (root / "bin" / "again").hardlink_to(root / "bin" / "tool")
    (root / "bin" / "link").symlink_to("tool")
    (root / "etc").mkdir(mode=0o700)
    (root / "etc" / "motd").write_text("Ναύτης\n" * 1000, encoding="utf-8")
    (root / "etc" / "motd").chmod(0o644)
    for path in (root / "bin", root / "etc", root):
        path.chmod(0o755)
    for path in root.rglob("*"):
        os.utime(path, ns=(0, _FIXTURE_TIME), follow_symlinks=False)
    return root


_PINNED = {
    "diffID": "sha256:69f031837c9b3de1013879fe2aa5e802e97678e74a1c7cc6d17edfe0565347ad",
    "gzip": "sha256:621454b4236ec642ac1ecb8dbbf7ce4ad533ee92cfa11cef0260fb42bd641028",
    "zstd": "sha256:de9573c65568e785e3b5a1e1ec4fff8c029df9bedb51904da8281703c2260d01",
}


def test_a_known_tree_has_a_known_diff_id(pack: Pack, fixture_tree: Path) -> None:
    """Whatever the machine, the user and the compressor: a change here changes what everybody's layers are called."""
    assert str(pack(fixture_tree)[0].diff_id) == _PINNED["diffID"]
    assert str(pack(fixture_tree, name="other", compression=Compression("zstd"))[0].diff_id) == _PINNED["diffID"]


@pytest.mark.skipif(zlib.ZLIB_RUNTIME_VERSION.endswith("zlib-ng"), reason="zlib-ng writes other bytes (rule 29)")
def test_a_known_tree_has_a_known_digest_in_gzip(pack: Pack, fixture_tree: Path) -> None:
    """With the zlib that most systems have."""
    assert str(pack(fixture_tree)[0].manifest.digest) == _PINNED["gzip"]


def test_a_known_tree_has_a_known_digest_in_zstd(pack: Pack, fixture_tree: Path) -> None:
    """With the zstd that the `zstandard` package brings."""
    packed = pack(fixture_tree, compression=Compression("zstd"))[0]
    assert str(packed.manifest.digest) == _PINNED["zstd"]


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


def test_what_was_packed_with_zstd_comes_back(pack: Pack, source: Path, tmp_path: Path) -> None:
    """The layer has its own media type."""
    packed, files = pack(compression=Compression("zstd", 5))
    assert packed.layer.media_type.endswith("tar+zstd")
    unpack_layers(read_layers(files, packed.manifest), str(tmp_path / "out"))
    assert list(compare(Tree.read(source), Tree.read(tmp_path / "out"))) == []


def test_levels_differ(pack: Pack) -> None:
    """They reach the compressor."""
    sizes = {level: pack(name=f"l{level}", compression=Compression("gzip", level))[0].layer.size for level in (1, 9)}
    assert sizes[9] < sizes[1]


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


def test_it_does_not_matter_who_owns_the_files(pack: Pack) -> None:
    """All belongs to root in the image, whoever packs."""
    packed, files = pack()
    assert {(entry.uid, entry.gid) for entry in _entries(files, packed).values()} == {(0, 0)}


def test_owners_as_asked_for(pack: Pack, source: Path) -> None:
    """One for all, or those of the files."""
    packed, files = pack(name="one", owner=(1000, 2**31))
    assert {(entry.uid, entry.gid) for entry in _entries(files, packed).values()} == {(1000, 2**31)}
    packed, files = pack(name="two", owner=AS_ON_DISK)
    assert {(entry.uid, entry.gid) for entry in _entries(files, packed).values()} == {(os.getuid(), os.getgid())}


@pytest.mark.parametrize("owner", [None, AS_ON_DISK])
def test_noted_owners_come_back(pack: Pack, source: Path, owner: object) -> None:
    """What `unpack --owner record` noted; the note itself does not go into the image."""
    os.setxattr(source / "setuid", ROOTLESS, encode_owner(42, 300))
    packed, files = pack(owner=owner)
    entry = _entries(files, packed)["setuid"]
    assert (entry.uid, entry.gid) == (42, 300)
    assert entry.xattrs == {}


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


def test_holes_cost_no_room(pack: Pack, source: Path) -> None:
    """They are zeros in the archive, and compress to nothing."""
    with open(source / "sparse", "wb") as file:
        file.truncate(50 * 2**20)
    packed = pack(compression=Compression("zstd"))[0]
    assert packed.size > 50 * 2**20
    assert packed.layer.size < 2**16


def test_a_file_that_changes_is_not_packed(pack: Pack, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its header would lie."""
    real = os.lstat

    def swap(path: bytes | str) -> os.stat_result:
        info = real(path)
        if os.fsencode(path).endswith(b"setuid"):
            os.replace(source / "folder" / "empty", path)
        return info

    monkeypatch.setattr(os, "lstat", swap)
    with pytest.raises(PackError, match="changed while it was read"):
        pack()


def test_a_hard_link_whose_first_name_is_left_out(pack: Pack, source: Path) -> None:
    """The first name that is packed is the file."""
    packed, files = pack(ignore=Ignore.parse(b"folder/file", name="ignore"))
    assert _entries(files, packed)["folder/twin"].kind is Kind.FILE


def test_what_is_taken_back_brings_its_directories(pack: Pack, source: Path) -> None:
    """With their attributes, and nothing else of them."""
    packed, files = pack(ignore=Ignore.parse(b"*\n!folder/sub/\n!link", name="ignore"))
    found = _entries(files, packed)
    assert list(found) == ["folder", "folder/sub", "link"]
    assert found["folder/sub"].mode == 0o1770


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
