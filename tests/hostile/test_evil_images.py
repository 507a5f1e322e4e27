"""Rules N7 to N11: what manifests, images, names and logins of a malicious registry can try, and that it is in vain."""

from __future__ import annotations

import asyncio
import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from moorage.puller.credentials.helpers import ask_helper
from moorage.puller.errors import BrokenLayer, CredentialsUnusable
from moorage.puller.pull import pull_image
from moorage.puller.store import Store
from moorage.registry.oci import (
    Digest,
    MoorageError,
    Reference,
    Tag,
)
from moorage.registry.oci.media_types import OCI_CONFIG, OCI_IMAGE, OCI_LAYER_GZIP, OCTET_STREAM

from tests.hostile.evil import BLOB, DEADLINE, HERE, Answering, client, evil
from tests.layers import archive, file, seen
from tests.scripted import Reply, Seen, scripted

# N7: malformed manifests


_LAYER = {"mediaType": OCI_LAYER_GZIP, "digest": str(BLOB.digest), "size": 1}
_NASTY: list[Any] = [
    b"",
    b"\xff\xfe",
    b"null",
    b"[]",
    b'"text"',
    b"1e999",
    b"NaN",
    b"{",
    b"[" * 100_000,
    b'{"a":' * 50_000,
    b'{"schemaVersion":2,"schemaVersion":1}',
    {"config": None, "layers": []},
    {"config": {}, "layers": []},
    {"config": [], "layers": {}},
    {"config": _LAYER, "layers": [None]},
    {"config": _LAYER, "layers": "x"},
    {"config": {**_LAYER, "size": -1}, "layers": []},
    {"config": {**_LAYER, "size": 2**64}, "layers": []},
    {"config": {**_LAYER, "size": 1.5}, "layers": []},
    {"config": {**_LAYER, "size": True}, "layers": []},
    {"config": {**_LAYER, "digest": "sha256:../../etc/passwd"}, "layers": []},
    {"config": {**_LAYER, "digest": "sha256:" + "A" * 64}, "layers": []},
    {"config": {**_LAYER, "digest": "md5:" + "a" * 32}, "layers": []},
    {"config": {**_LAYER, "mediaType": ["x"]}, "layers": []},
    {"config": {**_LAYER, "annotations": {"a": 1}}, "layers": []},
    {"config": _LAYER, "layers": [], "annotations": ["x"]},
    {"config": _LAYER, "layers": [], "subject": "x"},
    {"config": _LAYER, "layers": [_LAYER] * 20_000},
]


@pytest.mark.parametrize("nasty", _NASTY, ids=lambda nasty: str(nasty)[:40])
async def test_n7_a_malformed_manifest_is_an_error(nasty: bytes | dict[str, Any]) -> None:
    """One of ours, not a crash (CVE-2021-21285)."""
    body = nasty if isinstance(nasty, bytes) else json.dumps({"schemaVersion": 2, **nasty}).encode()
    async with evil(lambda seen: Reply(200, body, {"content-type": OCI_IMAGE})) as (_, registry):
        with pytest.raises(MoorageError):
            _ = (await registry.read_manifest(HERE, Tag("v1"))).document


# N8 and N11: images that claim what is not theirs


def _image(
    layer: bytes, *, diff_id: Digest | None = None, annotations: dict[str, str] | None = None
) -> dict[str, bytes]:
    """A registry's content, by the end of its path: manifest ``v1``, config and one layer."""
    packed = gzip.compress(layer, mtime=0)
    diff_ids = [str(diff_id or Digest.of(layer))]
    platform = {"os": "linux", "architecture": "amd64"}
    config = json.dumps({**platform, "rootfs": {"type": "layers", "diff_ids": diff_ids}}).encode()

    def descriptor(media_type: str, content: bytes) -> dict[str, Any]:
        base = {"mediaType": media_type, "digest": str(Digest.of(content)), "size": len(content)}
        return {**base, "annotations": annotations} if annotations else base

    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_IMAGE,
        "config": descriptor(OCI_CONFIG, config),
        "layers": [descriptor(OCI_LAYER_GZIP, packed)],
        **({"annotations": annotations} if annotations else {}),
    }
    content = json.dumps(manifest).encode()
    return {
        "v1": content,
        **{str(Digest.of(each)): each for each in (content, config, packed)},
    }


def _serve(content: dict[str, bytes]) -> Answering:
    def answer(seen: Seen) -> Reply:
        body = content.get(seen.target.rpartition("/")[2].partition("?")[0])
        if body is None:
            return Reply(404)
        is_manifest = "/manifests/" in seen.target
        return Reply(200, body, {"content-type": OCI_IMAGE if is_manifest else OCTET_STREAM})

    return answer


async def _pull(store: Store, content: dict[str, bytes]) -> str:
    """Pulls ``team/app:v1``; returns the registry's name."""
    failure: MoorageError | None = None
    async with scripted(_serve(content)) as server, client(server.host) as registry:
        try:
            async with asyncio.timeout(DEADLINE):
                await pull_image(registry, Reference.parse(f"{server.host}/team/app:v1"), store)
        except MoorageError as exc:
            failure = exc
    if failure is not None:
        raise failure  # out here, where the server's task group does not wrap it
    return server.host


async def test_n8_annotations_are_inert(tmp_path: Path) -> None:
    """Named like our own keys, or anybody's: the one tag changes that the user named."""
    store = Store(str(tmp_path / "store"))
    host = await _pull(
        store,
        _image(
            archive(file("a", b"1")),
            annotations={
                "org.opencontainers.image.ref.name": "docker.io/library/alpine:latest",
                "dev.moorage.resolved": "sha256:" + "0" * 64,
                "io.containerd.image.name": "docker.io/library/debian:latest",
                "run.oci.handler": "krun",
            },
        ),
    )
    assert [image.name for image in store.images()] == [f"{host}/team/app:v1"]


async def test_n11_a_layer_is_what_its_bytes_are(tmp_path: Path) -> None:
    """An image that claims the diffID of another's layer brings its own bytes: refused, and nothing is poisoned."""
    good, bad = archive(file("bin/sh", b"good")), archive(file("bin/sh", b"bad"))
    store, claimed = Store(str(tmp_path / "store")), Digest.of(good)
    tree = Path(store.tree_path(claimed))
    with pytest.raises(BrokenLayer):
        await _pull(store, _image(bad, diff_id=claimed))
    assert not tree.exists()  # noqa: ASYNC240
    await _pull(store, _image(good))
    before = seen(tree)
    await _pull(store, _image(bad, diff_id=claimed))  # the tree that the diffID names is there, and is used
    assert seen(tree) == before
    assert (tree / "bin/sh").read_bytes() == b"good"


# N9: terminals


async def test_n9_a_registry_does_not_draw_on_the_terminal() -> None:
    """Escape sequences and text that runs backwards are shown as what they are."""
    nasty = "\x1b]0;owned\x07\x1b[2J\u202e\u2066gnp.exe\r\nmoorage: all is well"
    body = json.dumps({"errors": [{"code": "DENIED", "message": nasty, "detail": {nasty: nasty}}]}).encode()
    async with scripted(lambda seen: Reply(403, body)) as server:
        command = [str(Path(sys.executable).with_name("moorage")), "tags", f"{server.host}/team/app"]
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, timeout=60)
    assert done.returncode == 1
    shown = (done.stdout + done.stderr).decode()
    assert shown.count("\n") == 1
    assert not any(ord(character) < 32 and character != "\n" for character in shown)
    assert not {"\u202e", "\u2066", "\x7f", "\x9b"} & set(shown)


# N10: credential helpers


@pytest.mark.parametrize("name", ["../evil", "/bin/sh", "a b", "", "x;y", "-h", "a\nb"])
def test_n10_a_helper_is_a_name(name: str) -> None:
    """It cannot lead to another program than ``docker-credential-NAME`` of PATH."""
    with pytest.raises(CredentialsUnusable):
        ask_helper(name, ("registry.example",))


@pytest.mark.parametrize("server", ["a\nb", "a\rb", "a\0b", "registry.example\nServerURL=other"])
def test_n10_a_helper_is_told_one_line(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No control character reaches its line protocol; it is not even started."""
    helper = tmp_path / "docker-credential-spy"
    helper.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CredentialsUnusable):
        ask_helper("spy", (server,))
    assert not (tmp_path / "ran").exists()
