"""The rules of unpacking a layer, 1 to 14 of the design's list, as far as other tests do not hold them already.

Named after the rule: ``test_rule_7_...``. What other programs make of the same layers is compared in tests/interop.
"""

from __future__ import annotations

import base64
import errno
import json
import os
from pathlib import Path

import pytest
from moorage.puller.entries import Entry, Kind
from moorage.puller.errors import BrokenLayer, ImageError, UnsafeLayer
from moorage.puller.tar_writer import END_OF_ARCHIVE, encode_entry
from moorage.puller.unpack.apply import unpack_layers
from moorage.puller.unpack.limits import Limits
from moorage.puller.unpack.notes import NOTES, read_notes
from moorage.puller.unpack.owners import ROOTLESS, OwnerMode, decode_owner, encode_owner

from tests.layers import archive, directory, file, fix_sum, hard_link, layer_of, node, pax, seen, symlink, unpack

_NANO = 10**9


def _alone(target: Path, *members, owners: OwnerMode = OwnerMode.KEEP):  # type: ignore[no-untyped-def]
    """Unpacks one layer by itself, as into the store; its notes. What is ours stays ours, for root and for others."""
    unpack_layers([layer_of(archive(*members))], str(target), keep_markers=True, owners=owners)
    return read_notes(str(target))


def _owned(name: str, uid: int, gid: int, kind: Kind = Kind.FILE, mode: int = 0o644):  # type: ignore[no-untyped-def]
    return Entry(os.fsencode(name), kind, mode, uid, gid, 0, link=b"x" if kind is Kind.SYMLINK else b""), b""


@pytest.mark.parametrize(
    "marker",
    [directory(".wh.x"), symlink(".wh.x", "y"), hard_link(".wh.x", "y"), node(".wh.x", Kind.FIFO),
     node(".wh.x", Kind.BLOCK_DEVICE, (7, 0)), file(".wh.x", b"content", mode=0o4777)],
    ids=lambda member: member[0].kind.name.lower(),
)  # fmt: skip
def test_rule_3_markers_are_told_by_their_name(tmp_path: Path, marker) -> None:  # type: ignore[no-untyped-def]
    """Whatever type they have they hide; in the tree of a single layer they are empty files."""
    unpack(tmp_path / "r", (file("x"), file("y")), (marker,))
    assert set(seen(tmp_path / "r")) == {"y"}
    assert _alone(tmp_path / "alone", marker) == [{"implicit": ""}]
    assert seen(tmp_path / "alone")[".wh.x"] == "file 0600 "


def test_rule_3_nested_and_repeated_markers_cost_once(tmp_path: Path) -> None:
    """A tree that this layer wrote is not searched again for every marker above it (CVE-2026-95838)."""
    own = [file("a/" + "d/" * 60 + f"{number}", b"") for number in range(1000)]
    markers = [file("a/" + "d/" * depth + ".wh.d") for depth in range(59, -1, -1)] + [file(".wh.a")] * 3000
    opaque = [file("a/" + "d/" * depth + ".wh..wh..opq") for depth in range(60)] * 20
    calls = _count_lists(lambda: unpack(tmp_path / "r", (file("a/old"),), (*own, *markers, *opaque)))
    assert calls < 1000
    assert len(seen(tmp_path / "r")) == 1061


def _count_lists(work) -> int:  # type: ignore[no-untyped-def]
    counted, real = [0], os.listdir

    def listdir(path: int | str | bytes) -> list[str]:
        counted[0] += 1
        return real(path)  # type: ignore[return-value]

    os.listdir = listdir  # type: ignore[assignment]
    try:
        work()
    finally:
        os.listdir = real
    return counted[0]


@pytest.mark.parametrize("name", [".wh..wh.plnk/1.2", "d/.wh..wh.aufs", ".wh..wh.orph/x/y", ".wh..wh.moorage"])
def test_rule_5_leftovers_of_aufs_are_left_out(tmp_path: Path, name: str) -> None:
    """Files, and what is below such directories; so no layer can bring our own notes."""
    unpack(tmp_path / "r", (directory("d"), file(name)))
    assert set(seen(tmp_path / "r")) == {"d"}
    assert _alone(tmp_path / "alone", directory("./"), directory("d"), file(name)) == []


@pytest.mark.parametrize("target", [".wh.x", ".wh..wh.moorage", ".wh..wh..opq"])
def test_rule_5_no_link_leads_to_a_reserved_name(tmp_path: Path, target: str) -> None:
    """A directory of such a name cannot be made through a link's target either."""
    with pytest.raises(UnsafeLayer, match="a whiteout has no children"):
        unpack(tmp_path / "r", (symlink("l", target), file("l/x")))


def test_rule_7_implied_directories_do_not_change_what_is_below(tmp_path: Path) -> None:
    """Merged, they keep the attributes that a lower layer gave; alone, they are noted."""
    unpack(tmp_path / "r", (directory("d", mode=0o1777),), (file("d/x"),))
    assert seen(tmp_path / "r")["d"] == "dir 1777"
    assert _alone(tmp_path / "alone", file("d/e/x"), directory("f")) == [
        {"implicit": ""}, {"implicit": "d"}, {"implicit": "d/e"},
    ]  # fmt: skip


def test_rule_7_a_directory_that_is_described_later_is_not_implied(tmp_path: Path) -> None:
    """The note follows the last word."""
    assert _alone(tmp_path / "alone", file("d/x"), directory("d"), directory("./")) == []


def test_rule_7_implied_directories_count(tmp_path: Path) -> None:
    """Names of 4 KiB that share nothing imply hundreds each."""
    members = [file(f"{number}/" + "d/" * 200 + "x") for number in range(6)]
    with pytest.raises(UnsafeLayer, match="directories that no entry describes"):
        unpack(tmp_path / "r", tuple(members), limits=Limits(entries=1000))
    unpack(tmp_path / "s", tuple(members[:4]), limits=Limits(entries=1000))


def test_rule_8_a_layer_alone_keeps_its_markers(tmp_path: Path) -> None:
    """As files beside what it writes, so that merging is exact."""
    _alone(tmp_path / "r", directory("d"), file("d/.wh..wh..opq"), file("d/.wh.x"), file("d/x"))
    assert set(seen(tmp_path / "r")) == {"d", "d/.wh..wh..opq", "d/.wh.x", "d/x", os.fsdecode(NOTES)}


def test_rule_9_a_link_into_a_lower_layer_is_noted(tmp_path: Path) -> None:
    """Alone, there is nothing to link to; the note says what it is a name of, also through another such link."""
    notes = _alone(
        tmp_path / "r", directory("./"), directory("d"), hard_link("d/l", "/usr/f"), hard_link("m", "d/l"), file("own"),
        hard_link("n", "own"),
    )  # fmt: skip
    assert notes == [{"link": "m", "to": "usr/f"}, {"link": "d/l", "to": "usr/f"}]
    assert set(seen(tmp_path / "r")) == {"d", "own", "n", os.fsdecode(NOTES)}


@pytest.mark.parametrize(
    "members",
    [
        pytest.param((hard_link("d/l", "f"), file("d/l")), id="a file"),
        pytest.param((hard_link("d/l", "f"), directory("d/l")), id="a directory"),
        pytest.param((hard_link("d/l", "f"), file("d/l/x")), id="an implied directory, refused as merged"),
        pytest.param((hard_link("d/l", "f"), file("d"), directory("d")), id="what it was in"),
        pytest.param((hard_link("d/l", "f"), file("own"), hard_link("d/l", "own")), id="another link"),
    ],
)
def test_rule_9_a_noted_link_that_is_replaced_is_forgotten(tmp_path: Path, members) -> None:  # type: ignore[no-untyped-def]
    """By whatever comes later in the archive."""
    try:
        notes = _alone(tmp_path / "r", directory("./"), directory("d"), *members)
    except UnsafeLayer:
        with pytest.raises(UnsafeLayer):
            unpack(tmp_path / "merged", (file("f"), directory("d")), members)
    else:
        assert [note for note in notes if "link" in note] == []


@pytest.mark.parametrize("marker", [".wh.usr", "usr/.wh.f", "usr/.wh..wh..opq", ".wh..wh..opq"])
def test_rule_9_a_link_to_what_the_layer_removed_is_refused(tmp_path: Path, marker: str) -> None:
    """Merged and alone alike."""
    upper = (file(marker), hard_link("l", "usr/f"))
    with pytest.raises(BrokenLayer, match="does not exist"):
        unpack(tmp_path / "r", (file("usr/f"),), upper)
    with pytest.raises(BrokenLayer, match="does not exist"):
        _alone(tmp_path / "alone", *upper)


def test_rule_9_a_link_over_the_directory_of_its_target(tmp_path: Path) -> None:
    """The target goes with it, so there is nothing to link to."""
    with pytest.raises(BrokenLayer, match="does not exist"):
        unpack(tmp_path / "r", (file("d/x"), hard_link("d", "d/x")))


@pytest.mark.parametrize("seconds", [-(2**40), 0, 2**33, 2**62, 99_999_999_999])
def test_rule_12_any_time_is_taken(tmp_path: Path, seconds: int) -> None:
    """What the file system cannot hold it clamps."""
    raw = bytearray(encode_entry(Entry(b"x", Kind.FILE)))
    raw[136:148] = seconds.to_bytes(12, "big", signed=True) if seconds < 0 else b"\x80" + seconds.to_bytes(11, "big")
    fix_sum(raw)
    unpack(tmp_path / "r", bytes(raw) + END_OF_ARCHIVE)
    if abs(seconds) < 2**33 and seconds >= 0:
        assert (tmp_path / "r" / "x").stat().st_mtime_ns == seconds * _NANO


def _supported(path: Path) -> dict[str, bytes]:
    return {name: os.getxattr(path, name) for name in os.listxattr(path) if name != "security.selinux"}


def test_rule_13_attributes_come_in_two_spellings(tmp_path: Path) -> None:
    """star's, raw, and libarchive's, in base64; both together may say the same, and values are bytes."""
    value = b"\x00\xff=\n"
    encoded = base64.b64encode(value).rstrip(b"=")
    both = [(b"SCHILY.xattr.user.a", value), (b"LIBARCHIVE.xattr.user.a", encoded), (b"LIBARCHIVE.xattr.user.%62", b"")]
    raw = pax(both) + archive(file("f"))
    unpack(tmp_path / "r", raw)
    assert _supported(tmp_path / "r" / "f") == {"user.a": value, "user.b": b""}


@pytest.mark.parametrize(
    "records",
    [
        [(b"SCHILY.xattr.user.a", b"1"), (b"LIBARCHIVE.xattr.user.a", b"Mg")],
        [(b"LIBARCHIVE.xattr.user.a", b"!")],
        [(b"LIBARCHIVE.xattr.user.%00", b"Mg")],
        [(b"SCHILY.xattr.", b"x")],
        [(b"SCHILY.xattr.user." + b"a" * 256, b"x")],
        [(b"SCHILY.xattr.security.capability", b"\0\0\0\1" + bytes(8))],
        [(b"SCHILY.xattr.security.capability", b"short")],
        [(b"SCHILY.xattr.security.capability", b"\1\0\0\2" + bytes(17))],
    ],
    ids=["two values", "no base64", "NUL", "no name", "long name", "capabilities v1", "no capabilities", "v2 too long"],
)
def test_rule_13_damaged_attributes_are_refused(tmp_path: Path, records: list[tuple[bytes, bytes]]) -> None:
    """As root and as everyone else."""
    with pytest.raises(ImageError):
        unpack(tmp_path / "r", pax(records) + archive(file("f")))


def test_rule_13_labels_of_this_machine_are_left_out(tmp_path: Path) -> None:
    """SELinux's and NFS's mean nothing elsewhere; what is overlayfs's stays in a merged tree, whose content it is."""
    given = {b"user.overlay.opaque": b"y", b"security.selinux": b"label\0", b"system.nfs4_acl": b"acl"}
    done = unpack(tmp_path / "r", (file("f", xattrs=given),))
    assert _supported(tmp_path / "r" / "f") == {"user.overlay.opaque": b"y"}
    assert done.skipped == ()


def test_rule_13_what_overlayfs_obeys_is_escaped_in_a_layer(tmp_path: Path) -> None:
    """The tree of a layer may be mounted; there an attribute of the image must not open or hide anything."""
    _alone(tmp_path / "r", file("f", xattrs={b"user.overlay.opaque": b"y", b"user.overlay": b"n"}))
    assert _supported(tmp_path / "r" / "f") == {"user.overlay.overlay.opaque": b"y", "user.overlay": b"n"}


def test_rule_13_links_and_nodes_have_no_attributes_of_users(tmp_path: Path) -> None:
    """The kernel has none for them, whoever asks; that is said, and no error (xattr(7))."""
    link = Entry(b"l", Kind.SYMLINK, 0o777, link=b"x", xattrs={b"user.x": b"1"})
    pipe = Entry(b"p", Kind.FIFO, 0o600, xattrs={b"user.x": b"1"})
    done = unpack_layers([layer_of(archive((link, b""), (pipe, b"")))], str(tmp_path / "r"), owners=OwnerMode.SQUASH)
    assert done.skipped == ("'l' and 1 more: left out: the attribute 'user.x' is not supported here",)


def test_rule_13_what_is_not_supported_is_said_once(tmp_path: Path) -> None:
    """However many files ask for it."""
    given = {b"nonsense": b"1", b"user.fine": b"2"}
    done = unpack(tmp_path / "r", tuple(file(f"f{number}", xattrs=given) for number in range(3)))
    assert done.skipped == ("'f0' and 2 more: left out: the attribute 'nonsense' is not supported here",)
    assert _supported(tmp_path / "r" / "f2") == {"user.fine": b"2"}


@pytest.mark.root
def test_rule_13_root_keeps_all_attributes(tmp_path: Path) -> None:
    """Capabilities survive owner and mode; trusted ones, ACLs, and those of links are set."""
    capability = b"\1\0\0\2" + b"\0\4\0\0" + bytes(12)
    acl = b"\2\0\0\0" + b"".join(
        tag.to_bytes(2, "little") + permission.to_bytes(2, "little") + name.to_bytes(4, "little")
        for tag, permission, name in [(1, 6, 2**32 - 1), (2, 4, 1234), (4, 4, 2**32 - 1), (16, 4, 2**32 - 1),
                                      (32, 0, 2**32 - 1)]
    )  # fmt: skip
    owned = Entry(b"f", Kind.FILE, 0o4640, 7, 8, 0, 1, xattrs={
        b"security.capability": capability, b"trusted.x": b"1", b"system.posix_acl_access": acl})  # fmt: skip
    link = Entry(b"l", Kind.SYMLINK, 0o777, 7, 8, 5 * _NANO, link=b"f", xattrs={b"trusted.of-link": b"2"})
    folder = Entry(b"d", Kind.DIRECTORY, 0o755, xattrs={b"system.posix_acl_default": acl, b"trusted.overlay.x": b"3"})
    unpack(tmp_path / "r", ((owned, b"x"), (link, b""), (folder, b""), file("d/in")))
    root = tmp_path / "r"
    assert _supported(root / "f") == {
        "security.capability": capability, "trusted.x": b"1", "system.posix_acl_access": acl,
    }  # fmt: skip
    assert (root / "f").stat().st_mode & 0o7777 == 0o4640
    assert os.getxattr(root / "l", "trusted.of-link", follow_symlinks=False) == b"2"
    assert os.lstat(root / "l").st_mtime_ns == 5 * _NANO
    assert _supported(root / "d") == {"system.posix_acl_default": acl, "trusted.overlay.x": b"3"}
    assert _supported(root / "d" / "in") == {}, "made before the directory got its default ACL"


@pytest.mark.root
def test_rule_13_root_is_told_of_a_refusal(tmp_path: Path) -> None:
    """With all rights, what the kernel refuses is an error and no remark."""
    with pytest.raises((UnsafeLayer, OSError)):
        unpack(tmp_path / "r", (file("f", xattrs={b"system.posix_acl_access": b"\2\0\0\0" + b"\xff" * 8}),))
    assert list(tmp_path.iterdir()) == []


def test_rule_13_the_place_hands_down_no_acl(tmp_path: Path) -> None:
    """A default ACL where the tree is unpacked to is not the image's."""
    default = b"\2\0\0\0" + b"".join(
        tag.to_bytes(2, "little") + b"\7\0" + b"\xff" * 4 for tag in (1, 4, 32)
    )  # fmt: skip
    try:
        os.setxattr(tmp_path, "system.posix_acl_default", default)
    except OSError as exc:
        assert exc.errno == errno.ENOTSUP  # noqa: PT017  # a file system without ACLs hands none down
    unpack(tmp_path / "r", (directory("d"), file("d/f", mode=0o600)))
    assert [_supported(path) for path in (tmp_path / "r", tmp_path / "r/d", tmp_path / "r/d/f")] == [{}, {}, {}]


def test_rule_14_owners_are_squashed(tmp_path: Path) -> None:
    """Everything is the caller's, root or not, and nothing is said about it."""
    done = unpack_layers([layer_of(archive(_owned("f", 1234, 5)))], str(tmp_path / "r"), owners=OwnerMode.SQUASH)
    assert (tmp_path / "r" / "f").stat().st_uid == os.geteuid()
    assert done.skipped == ()


@pytest.mark.parametrize(
    ("uid", "gid", "value"),
    [
        (1000, 0, "08e80710ffffffff0f"),
        (0, 5, "08ffffffff0f1005"),
        (1000, 1000, "08e80710e807"),
        (2**32 - 2, 1, "08feffffff0f1001"),
    ],
)
def test_rule_14_owners_are_recorded_as_umoci_does(tmp_path: Path, uid: int, gid: int, value: str) -> None:
    """A protobuf message; root's own files have none, and one that the layer brings is not believed."""
    assert encode_owner(uid, gid).hex() == value
    assert decode_owner(encode_owner(uid, gid)) == (uid, gid)
    members = (
        _owned("f", uid, gid),
        _owned("d", uid, gid, Kind.DIRECTORY, 0o755),
        (Entry(b"root", Kind.FILE, xattrs={ROOTLESS: b"\x08\x01"}), b""),
    )
    unpack_layers([layer_of(archive(*members))], str(tmp_path / "r"), owners=OwnerMode.RECORD)
    found = [_supported(tmp_path / "r" / name).get(os.fsdecode(ROOTLESS)) for name in ("f", "d", "root")]
    assert found == [bytes.fromhex(value)] * 2 + [None]


def test_rule_14_a_layer_alone_notes_owners(tmp_path: Path) -> None:
    """Where the files are the caller's; of files that are still there."""
    members = (_owned("a", 1, 2), _owned("b", 3, 4), file("b"), _owned("d", 5, 6, Kind.DIRECTORY, 0o755),
               _owned("d/gone", 7, 8), file("d"), (Entry(b"zero", Kind.FILE), b""))  # fmt: skip
    notes = _alone(tmp_path / "r", directory("./"), *members, owners=OwnerMode.SQUASH)
    mine = [{"owner": name, "uid": os.geteuid(), "gid": os.getegid()} for name in ("", "b", "d") if os.geteuid()]
    assert sorted(notes, key=json.dumps) == sorted([{"owner": "a", "uid": 1, "gid": 2}, *mine], key=json.dumps)


@pytest.mark.parametrize("value", [b"\x08", b"\x08\x80", b"\x18\x01", b"\x09\x01", b"\x08" + b"\xff" * 12, b"text"])
def test_rule_14_what_is_no_record_is_no_owner(value: bytes) -> None:
    """Any program may write such an attribute."""
    assert decode_owner(value) is None
