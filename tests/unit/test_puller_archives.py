"""Images in one file: what is read is checked, what is written is the same every time, and digests stay."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import os
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from moorage.puller.archives.source import ArchiveSource
from moorage.puller.archives.target import ArchiveKind, ArchiveTarget
from moorage.puller.errors import BadReference, ImageError
from moorage.puller.layout import ImageLayout
from moorage.puller.layout_files import LayoutFiles
from moorage.puller.transfer import Place, Wish, copy_image
from moorage.registry.oci import Digest, DigestInvalid, Platform, RepositoryName, Tag, Unsupported
from moorage.registry.oci.media_types import OCI_LAYER, OCI_LAYER_GZIP
from moorage.registry.store import LocalRegistry
from moorage.storage_backends.memory import MemoryStore

from tests.content import Content, artifact, gallery, image, index, push, read_bytes, repository

_HERE, _ANY = repository("team/app"), RepositoryName("layout")
_LATEST = Tag("latest")
_KEYS = st.sampled_from(["Config", "RepoTags", "Layers", "manifests", "mediaType", "digest", "size", "annotations"])
_Files = dict[str, bytes | str]


async def _holding(content: Content) -> Place:
    registry = await LocalRegistry.open(MemoryStore())
    await push(registry, _HERE, content, "latest")
    return Place(registry, _HERE)


async def _write(
    content: Content, path: Path, kind: ArchiveKind = ArchiveKind.OCI, name: str = "", platform: Platform | None = None
) -> None:
    target = Place(ArchiveTarget(str(path), kind, name), _ANY)
    await copy_image(await _holding(content), Wish(_LATEST, tags=[_LATEST], platform=platform), target)


async def _read_whole(path: Path, content: Content, name: str = "") -> None:
    """Copies out of the archive, and asserts that everything came along."""
    there = Place(await LocalRegistry.open(MemoryStore()), _HERE)
    source = ArchiveSource.open(str(path))
    try:
        wanted = source.choose(name)
        assert wanted.digest == content.digest
        await copy_image(Place(source, _ANY), Wish(wanted.digest, tags=[_LATEST]), there)
    finally:
        source.close()
    for part in content.walk():
        assert (await there.registry.read_manifest(_HERE, part.digest)).content == part.manifest.content
        for blob in part.blobs:
            assert await read_bytes(there.registry, _HERE, blob.digest) == blob.content


def _tar(path: Path, members: list[tuple[str, bytes | str]], mode: str = "w") -> Path:
    """A tar of files; text makes a symbolic link."""
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in members:
            entry = tarfile.TarInfo(name)
            if isinstance(content, str):
                entry.type, entry.linkname = tarfile.SYMTYPE, content
                archive.addfile(entry)
            else:
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    return path


def _layer(seed: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        entry = tarfile.TarInfo(seed)
        entry.size = 2000
        archive.addfile(entry, io.BytesIO(seed.encode().ljust(2000)))
    return out.getvalue()


def _sha(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


_BASE, _TOP = _layer("base"), _layer("top")


def _config(*layers: bytes) -> bytes:
    document = {
        "architecture": "amd64", "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [_sha(layer) for layer in layers]},
    }  # fmt: skip
    return json.dumps(document).encode()


def _saved(**changes: Any) -> list[tuple[str, bytes | str]]:
    """What ``docker save`` wrote before version 25: two layers, and a second name of the first as a link."""
    entry = {"Config": "c.json", "RepoTags": ["app:v1"], "Layers": ["one/layer.tar", "two/layer.tar"], **changes}
    return [
        ("one/layer.tar", _BASE),
        ("two/layer.tar", _TOP),
        ("three/layer.tar", "../one/layer.tar"),
        ("c.json", _config(_BASE, _TOP)),
        ("manifest.json", json.dumps([entry]).encode()),
    ]


@pytest.mark.parametrize("content", [pytest.param(value, id=key) for key, value in gallery().items()])
async def test_every_kind_goes_through_an_oci_archive(content: Content, tmp_path: Path) -> None:
    """Digests and bytes stay."""
    await _write(content, tmp_path / "x.tar", name="v1")
    await _read_whole(tmp_path / "x.tar", content, "v1")
    assert os.listdir(tmp_path) == ["x.tar"]


async def test_a_docker_archive_keeps_digests_too(tmp_path: Path) -> None:
    """It is an OCI archive with a list for docker; docker's names mean what docker means."""
    await _write(image(), tmp_path / "x.tar", ArchiveKind.DOCKER, "app:v1")
    for name in ("", "app:v1", "docker.io/library/app:v1"):
        await _read_whole(tmp_path / "x.tar", image(), name)
    with tarfile.open(tmp_path / "x.tar") as archive:
        member = archive.extractfile("manifest.json")
        assert member is not None
        (listed,) = json.load(member)
        assert listed["RepoTags"] == ["docker.io/library/app:v1"]
        names = set(archive.getnames())
    assert {listed["Config"], *listed["Layers"]} <= names


@pytest.mark.parametrize("kind", list(ArchiveKind))
async def test_the_same_image_is_the_same_archive(kind: ArchiveKind, tmp_path: Path) -> None:
    """Byte for byte, whoever writes it when."""
    for name in ("one.tar", "two.tar"):
        await _write(image(layers=5, size=50_000), tmp_path / name, kind, "app:v1")
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()


async def test_a_docker_archive_holds_one_platform(tmp_path: Path) -> None:
    """An index needs a choice, and names must be docker's."""
    content = index([image("one"), image("two")])
    with pytest.raises(ImageError, match="one platform"):
        await _write(content, tmp_path / "x.tar", ArchiveKind.DOCKER)
    await _write(content, tmp_path / "x.tar", ArchiveKind.DOCKER, platform=Platform("linux", "amd64"))
    await _read_whole(tmp_path / "x.tar", content.children[0])
    with pytest.raises(BadReference, match="docker names"):
        ArchiveTarget("x", ArchiveKind.DOCKER, "Not A Name")


async def test_a_failed_copy_leaves_what_was_there(tmp_path: Path) -> None:
    """Nothing half written, under no name."""
    path = tmp_path / "x.tar"
    path.write_bytes(b"old")
    layout = ImageLayout.of_registry(LayoutFiles(str(tmp_path / "layout"), create=True), "localhost")
    await push(layout, _HERE, image(), "latest")
    blob = image().blobs[-1]
    _damage(Path(layout.files.blob_path(blob.digest)))
    target = Place(ArchiveTarget(str(path), ArchiveKind.OCI, ""), _ANY)
    with pytest.raises(DigestInvalid):
        await copy_image(Place(layout, _HERE), Wish(_LATEST), target)
    assert sorted(os.listdir(tmp_path)) == ["layout", "x.tar"]
    assert path.read_bytes() == b"old"


def _damage(path: Path) -> None:
    path.write_bytes(b"damage" + path.read_bytes()[6:])


@pytest.mark.parametrize("name", ["v1", ""], ids=["named", "nameless"])
async def test_referrers_travel_in_an_oci_archive(tmp_path: Path, name: str) -> None:
    """Beside the image, and out again."""
    content = image()
    source = await _holding(content)
    signature, tag = artifact(subject=content.descriptor), Tag(f"sha256-{content.digest.hex}.sig")
    await push(source.registry, _HERE, signature)
    await push(source.registry, _HERE, image("of cosign"), str(tag))
    target = Place(ArchiveTarget(str(tmp_path / "x.tar"), ArchiveKind.OCI, name), _ANY)
    await copy_image(source, Wish(_LATEST, referrers=True), target)
    there = Place(await LocalRegistry.open(MemoryStore()), _HERE)
    archive = ArchiveSource.open(str(tmp_path / "x.tar"))
    assert archive.choose("").digest == content.digest  # what only belongs to it is no choice
    await copy_image(Place(archive, _ANY), Wish(archive.choose(name).digest, referrers=True), there)
    archive.close()
    found = [referrer.digest async for referrer in there.registry.list_referrers(_HERE, content.digest)]
    assert found == [signature.digest]
    assert (await there.registry.resolve_manifest(_HERE, tag)).digest == image("of cosign").digest


@pytest.mark.parametrize("compress", [None, gzip.compress], ids=["plain", "gzip"])
async def test_an_old_docker_archive_becomes_an_image(
    tmp_path: Path, compress: Callable[[bytes], bytes] | None
) -> None:
    """Layers byte for byte under their diffIDs; the manifest is the same each time."""
    path = _tar(tmp_path / "saved.tar", _saved(Layers=["three/layer.tar", "two/layer.tar"]))
    if compress:
        path.write_bytes(compress(path.read_bytes()))
    registry = await LocalRegistry.open(MemoryStore())
    source = ArchiveSource.open(str(path))
    assert source.is_converted
    for _ in range(2):
        result = await copy_image(
            Place(source, _ANY), Wish(source.choose("app:v1").digest, tags=[_LATEST]), Place(registry, _HERE)
        )
    source.close()
    manifest = await registry.read_manifest(_HERE, _LATEST)
    document = json.loads(manifest.content)
    assert [(layer["digest"], layer["mediaType"]) for layer in document["layers"]] == [
        (_sha(_BASE), OCI_LAYER), (_sha(_TOP), OCI_LAYER),
    ]  # fmt: skip
    assert await read_bytes(registry, _HERE, Digest.parse(_sha(_BASE))) == _BASE
    assert result.moved == 0
    assert manifest.digest.hex == "0a94846419f9402dcafcb39edf4fe03127393f3dce930cffe982ef244fe42f72"


async def test_compressed_layers_stay_compressed(tmp_path: Path) -> None:
    """Their digest is that of the compressed bytes, whatever the file is called."""
    packed = gzip.compress(_BASE, mtime=0)
    members: list[tuple[str, bytes | str]] = [
        ("layer.tar", packed), ("c.json", _config(_BASE)),
        ("manifest.json", json.dumps([{"Config": "c.json", "RepoTags": None, "Layers": ["layer.tar"]}]).encode()),
    ]  # fmt: skip
    source = ArchiveSource.open(str(_tar(tmp_path / "x.tar", members)))
    manifest = await source.read_manifest(_ANY, source.choose("").digest)
    source.close()
    (layer,) = json.loads(manifest.content)["layers"]
    assert (layer["digest"], layer["mediaType"], layer["size"]) == (_sha(packed), OCI_LAYER_GZIP, len(packed))


async def test_a_layer_that_is_not_its_diff_id_is_refused(tmp_path: Path) -> None:
    """By whoever takes it."""
    members = [(name, b"x" * len(_BASE) if name == "one/layer.tar" else data) for name, data in _saved()]
    source = ArchiveSource.open(str(_tar(tmp_path / "x.tar", members)))
    with pytest.raises(DigestInvalid):
        await copy_image(
            Place(source, _ANY),
            Wish(source.choose("").digest, tags=[_LATEST]),
            Place(await LocalRegistry.open(MemoryStore()), _HERE),
        )
    source.close()


@pytest.mark.parametrize(
    ("members", "said"),
    [
        pytest.param([("x", b"")], "neither an OCI archive nor a docker archive", id="something else"),
        pytest.param(_saved(Layers=["one/layer.tar"]), "1 layers, but c.json names 2", id="a layer too few"),
        pytest.param(_saved(Layers=["one/layer.tar", "no"]), "holds no file no", id="no such layer"),
        pytest.param(_saved(Config="../c.json"), "holds no file", id="config outside"),
        pytest.param(_saved(Config=5), "not described", id="config is a number"),
        pytest.param([*_saved(), ("one/layer.tar", _TOP)], "more than once", id="a layer twice"),
        pytest.param([*_saved(), ("./c.json", b"{}")], "more than once", id="a config twice, spelled otherwise"),
        pytest.param([("manifest.json", b"{}")], "not a list", id="no list"),
        pytest.param([("manifest.json", b"[")], "not JSON", id="no JSON"),
        pytest.param([("index.json", b"[]")], "not a list", id="no index"),
        pytest.param([*_saved(Layers=["a", "b"]), ("a", "b"), ("b", "a")], "holds no file", id="links in a ring"),
        pytest.param([*_saved(Layers=["e", "e"]), ("e", "../../../../etc/hostname")], "holds no file", id="a link out"),
        pytest.param([*_saved(Layers=["e", "e"]), ("e", "/etc/hostname")], "holds no file", id="an absolute link"),
        pytest.param([("c.json", b"[]"), *_saved()[:3], _saved()[-1]], "no config of an image", id="config is a list"),
    ],
)
def test_a_strangers_archive_is_refused(members: list[tuple[str, bytes | str]], said: str, tmp_path: Path) -> None:
    """With one line that names it; nothing outside of it is looked at."""
    path = _tar(tmp_path / "x.tar", members)
    with pytest.raises(ImageError, match=said) as caught:
        ArchiveSource.open(str(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [0, 100, 511, 700, 5000])
def test_an_archive_cut_short_is_no_archive(size: int, tmp_path: Path) -> None:
    """Wherever it is cut."""
    path = _tar(tmp_path / "x.tar", _saved())
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ImageError):
        ArchiveSource.open(str(path))


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_a_damaged_archive_is_refused_or_read(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whatever bytes are wrong: an error of ours, or the images that are still there."""
    path = tmp_path_factory.mktemp("damaged") / "x.tar"
    content = bytearray(_tar(path, _saved()).read_bytes())
    for position in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=6)):
        content[position] = data.draw(st.integers(0, 255))
    path.write_bytes(data.draw(st.sampled_from([bytes, lambda raw: gzip.compress(raw)[:-1]]))(content))
    with contextlib.suppress(ImageError):
        ArchiveSource.open(str(path)).close()


_ANYTHING = st.recursive(
    st.none() | st.integers() | st.text(max_size=5) | st.sampled_from(["c", OCI_LAYER, _sha(_config())]),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(_KEYS, values, max_size=4),
    max_leaves=8,
)


@settings(deadline=None, max_examples=100)
@given(entries=st.lists(st.dictionaries(_KEYS, _ANYTHING, max_size=5), max_size=2))
def test_a_list_of_anything_is_refused_or_read(entries: list[object]) -> None:
    """``manifest.json`` and ``index.json`` as a stranger may write them."""
    for name, document in (("manifest.json", entries), ("index.json", {"manifests": entries})):
        with tempfile.TemporaryDirectory() as folder:
            path = _tar(Path(folder) / "x.tar", [(name, json.dumps(document).encode()), ("c", _config())])
            with contextlib.suppress(ImageError):
                ArchiveSource.open(str(path)).close()


def test_several_images_need_a_name(tmp_path: Path) -> None:
    """The message says which there are."""
    config = _config()
    path = _tar(tmp_path / "x.tar", [("c.json", config), ("d.json", config + b" "), _two(config)])
    source = ArchiveSource.open(str(path))
    with pytest.raises(ImageError, match=r"say which image \(it holds app:one, app:two\)"):
        source.choose("")
    with pytest.raises(ImageError, match="no image app:three"):
        source.choose("app:three")
    assert source.choose("docker.io/library/app:one") != source.choose("app:two")
    source.close()


def _two(config: bytes) -> tuple[str, bytes]:
    listed = [{"Config": f"{c}.json", "RepoTags": [f"app:{n}"], "Layers": []} for c, n in (("c", "one"), ("d", "two"))]
    return "manifest.json", json.dumps(listed).encode()


async def test_an_archive_cannot_be_changed(tmp_path: Path) -> None:
    """It says so."""
    source = ArchiveSource.open(str(_tar(tmp_path / "x.tar", _saved())))
    with pytest.raises(Unsupported, match="an archive cannot do this"):
        await source.delete_tag(_ANY, _LATEST)
    source.close()
