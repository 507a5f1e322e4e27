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
from moorage.puller.entries import Entry, Kind
from moorage.puller.errors import PackError
from moorage.puller.image import read_config, read_layers
from moorage.puller.layout_files import LayoutFiles
from moorage.puller.pack import AS_ON_DISK, Compression, Ignore, Packed, PackOptions, pack_directory
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
