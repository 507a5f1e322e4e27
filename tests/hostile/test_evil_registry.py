"""Rules N1 to N11: what a malicious registry can send, and that it gains nothing by it.

Law of these tests: no secret leaves its origin, nothing wrong is stored, and every case ends, soon, with one error.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from moorage.puller.credentials import Credentials, FixedKeychain
from moorage.puller.credentials.helpers import ask_helper
from moorage.puller.errors import BadAnswer, BrokenLayer, CredentialsUnusable, Unreachable
from moorage.puller.fetch.engine import Fetcher
from moorage.puller.foreign import ask_elsewhere
from moorage.puller.hosts import HostConfig
from moorage.puller.layout_files import LayoutFiles
from moorage.puller.messages import Answer, Request, RetryPolicy, Timeouts
from moorage.puller.origins import Origin
from moorage.puller.pull import pull_image
from moorage.puller.remote import RemoteRegistry
from moorage.puller.store import Store
from moorage.puller.transport import Transport
from moorage.registry.oci import (
    Descriptor,
    Digest,
    DigestMismatch,
    MoorageError,
    Reference,
    RepositoryName,
    SizeInvalid,
    Tag,
)
from moorage.registry.oci.media_types import OCI_CONFIG, OCI_IMAGE, OCI_LAYER_GZIP, OCTET_STREAM

from tests.layers import archive, file, seen
from tests.scripted import Reply, Scripted, Seen, scripted

_HERE = RepositoryName("team/app")
_ALICE = Credentials("alice", "s3cret")
_BASIC = {"www-authenticate": 'Basic realm="x"'}
_FAST = RetryPolicy(attempts=2, first_delay=0.001, longest_delay=0.01)
_SHORT = Timeouts(connect=2.0, answer=1.0, stall=0.5)
_DEADLINE = 10.0
_BYTES = bytes(range(256)) * 40
_BLOB = Descriptor(OCTET_STREAM, Digest.of(_BYTES), len(_BYTES))

Answering = Callable[[Seen], Reply]


@asynccontextmanager
async def _evil(answer: Answering) -> AsyncIterator[tuple[Scripted, RemoteRegistry]]:
    """A client that knows a password, and its registry."""
    async with scripted(answer) as server, _client(server.host) as registry:
        yield server, registry


def _client(host: str) -> Any:
    return RemoteRegistry.connect(
        host, keychain=FixedKeychain(_ALICE), hosts=HostConfig.empty(), retry=_FAST, timeouts=_SHORT
    )


@pytest.fixture
def files(tmp_path: Path) -> LayoutFiles:
    return LayoutFiles(str(tmp_path / "layout"), create=True)


async def _fetch(registry: RemoteRegistry, files: LayoutFiles, blob: Descriptor = _BLOB) -> None:
    async with asyncio.timeout(_DEADLINE), Fetcher(registry, _HERE, files, retry=_FAST) as fetcher:
        await fetcher.fetch(blob)


async def _ask(asking: AbstractAsyncContextManager[Answer]) -> None:
    async with asking as answer:
        await answer.read_body(1000)


async def _read(registry: RemoteRegistry, what: str, files: LayoutFiles) -> None:
    match what:
        case "blob":
            await _fetch(registry, files)
        case "tags":
            [tag async for tag in registry.list_tags(_HERE)]
        case "head":
            await registry.resolve_manifest(_HERE, Tag("v1"))
        case _:
            await registry.read_manifest(_HERE, Tag("v1"))


def _login_first(answer: Answering) -> Answering:
    """The registry wants Basic before it answers, so that every request after the first carries the secret."""
    return lambda seen: answer(seen) if "authorization" in seen.headers else Reply(401, headers=_BASIC)


def _secrets(server: Scripted) -> list[str]:
    return [seen.target for seen in server.seen if {"authorization", "cookie"} & set(seen.headers)]


# N1: descriptor urls


def _foreign(*urls: str) -> Descriptor:
    return Descriptor(OCTET_STREAM, _BLOB.digest, _BLOB.size, urls=urls)


async def test_n1_urls_are_not_asked_for_what_the_registry_has(files: LayoutFiles) -> None:
    """A layer's ``urls`` alone move nobody."""
    async with scripted(lambda seen: Reply(200, _BYTES)) as elsewhere:
        async with _evil(lambda seen: Reply(200, _BYTES)) as (_, registry):
            await _fetch(registry, files, _foreign(f"{elsewhere.url}/layer"))
        assert elsewhere.seen == []


async def test_n1_urls_get_no_credentials(files: LayoutFiles) -> None:
    """What the registry does not have is fetched from there, and nothing of ours goes along."""
    async with scripted(lambda seen: Reply(200, _BYTES)) as elsewhere:
        async with _evil(_login_first(lambda seen: Reply(404))) as (home, registry):
            await _fetch(registry, files, _foreign("ftp://nowhere/", f"{elsewhere.url}/layer"))
        assert _secrets(home)
        assert [seen.target for seen in elsewhere.seen] == ["/layer"]
        assert _secrets(elsewhere) == []
    assert files.has_blob(_BLOB.digest)


async def test_n1_a_challenge_at_urls_is_not_answered(files: LayoutFiles) -> None:
    """CVE-2020-15157: a foreign host that asks for a login learns nothing."""
    async with scripted(lambda seen: Reply(401, headers=_BASIC)) as elsewhere:
        async with _evil(_login_first(lambda seen: Reply(404))) as (_, registry):
            with pytest.raises(MoorageError):
                await _fetch(registry, files, _foreign(f"{elsewhere.url}/layer"))
        assert _secrets(elsewhere) == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "10.1.2.3", "192.168.0.9", "169.254.169.254"])
async def test_n1_urls_of_an_outside_registry_do_not_lead_inside(host: str) -> None:
    """By address."""
    outside = Origin.of("https://registry.example")
    async with Transport(retry=_FAST) as transport:
        with pytest.raises(BadAnswer, match="address of this network"):
            await _ask(ask_elsewhere(transport, [f"http://{host}:1/"], registry=outside, headers={}))


async def test_n1_a_name_that_means_this_machine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name looks public; what it resolves to decides, before a byte is sent."""
    resolve = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, *rest, **more: resolve("127.0.0.1" if "." in host else host, *rest, **more)
    )
    async with scripted(lambda seen: Reply(200, _BYTES)) as inside, Transport(retry=_FAST) as transport:
        url = inside.url.replace("127.0.0.1", "mirror.example")
        outside = Origin.of("https://registry.example")
        with pytest.raises(BadAnswer, match="address of this network"):
            await _ask(ask_elsewhere(transport, [url], registry=outside, headers={}))
        assert inside.seen == []


# N2: secrets stay at their origin


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("ask", ["blob", "manifest", "tags"])
async def test_n2_a_redirect_takes_no_secret_along(files: LayoutFiles, status: int, ask: str) -> None:
    """Another port is another origin, whatever is asked for."""
    async with scripted(lambda seen: Reply(401, headers=_BASIC)) as other:
        away = Reply(status, headers={"location": f"{other.url}/taken", "set-cookie": "id=1"})
        async with _evil(_login_first(lambda seen: away)) as (home, registry):
            with pytest.raises(MoorageError):
                await _read(registry, ask, files)
        assert _secrets(home)
        assert other.seen
        assert _secrets(other) == []


@pytest.mark.parametrize("location", ["http://{}/v2/team/app/blobs/uploads/1", "//{}/v2/team/app/blobs/uploads/1"])
async def test_n2_an_upload_location_takes_no_secret_along(location: str) -> None:
    """CVE-2026-50151: the bytes may go where the registry says, the password may not."""

    async def content() -> AsyncIterator[bytes]:
        yield _BYTES

    async with scripted(lambda seen: Reply(201)) as other:
        opened = Reply(202, headers={"location": location.format(other.host)})
        async with _evil(_login_first(lambda seen: opened)) as (_, registry):
            await registry.push_blob(_HERE, _BLOB, content())
        assert other.seen
        assert _secrets(other) == []


@pytest.mark.parametrize("realm", ["http://{}/token", "http://registry.example/token", "http://127.0.0.1:1/token"])
async def test_n2_a_realm_elsewhere_gets_no_secret(realm: str) -> None:
    """Challenges of a redirect target are not even read; plain http elsewhere is refused."""
    async with scripted(lambda seen: Reply(200, b'{"token":"t"}')) as other:
        challenge = f'Bearer realm="{realm.format(other.host)}",service="s"'
        async with (
            scripted(lambda seen: Reply(401, headers={"www-authenticate": challenge})) as target,
            _evil(lambda seen: Reply(307, headers={"location": f"{target.url}/"})) as (_, registry),
        ):
            with pytest.raises(MoorageError):
                await registry.read_manifest(_HERE, Tag("v1"))
        assert other.seen == []


# N3: no way back from TLS


async def test_n3_nothing_falls_back_to_plain_http() -> None:
    """A registry that should speak TLS and does not is unreachable; it never sees a request."""
    with _raw(lambda connection: None) as (port, heard):
        async with Transport(retry=_FAST, timeouts=_SHORT) as transport:
            with pytest.raises(Unreachable):
                await _ask(transport.exchange(Request("GET", f"https://127.0.0.1:{port}/v2/")))
    assert heard
    assert not any(b"HTTP" in piece or b"/v2/" in piece for piece in heard)


# N4: what is asked for by digest is hashed


async def test_n4_another_manifest_than_asked_is_refused() -> None:
    """The answer may say what digest it likes."""
    other = b'{"schemaVersion":2}'
    wanted = Digest.of(b"another")
    headers = {"content-type": OCI_IMAGE, "docker-content-digest": str(wanted)}
    async with _evil(lambda seen: Reply(200, other, headers)) as (_, registry):
        with pytest.raises(BadAnswer):
            await registry.read_manifest(_HERE, wanted)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        pytest.param(bytes(len(_BYTES)), DigestMismatch, id="other bytes"),
        pytest.param(_BYTES[:-1], SizeInvalid, id="truncated"),
        pytest.param(_BYTES + b"!", SizeInvalid, id="longer"),
    ],
)
async def test_n4_another_blob_than_asked_is_refused(
    files: LayoutFiles, body: bytes, error: type[MoorageError]
) -> None:
    """And never appears in the layout."""
    async with _evil(lambda seen: Reply(200, body, {"docker-content-digest": str(_BLOB.digest)})) as (_, registry):
        with pytest.raises(error):
            await _fetch(registry, files)
    assert not files.has_blob(_BLOB.digest)


# N5: endless data


_ENDLESS = {"content-length": ""}  # chunked, for ever


@pytest.mark.parametrize("what", ["manifest", "head", "blob", "error", "token", "tags", "redirects"])
async def test_n5_nothing_goes_on_for_ever(files: LayoutFiles, what: str) -> None:
    """Every body has a cap, every list and every chain of redirects an end."""
    pages = iter(range(1_000_000))

    def answer(seen: Seen) -> Reply:
        match what:
            case "error":
                return Reply(500, bytes(65536), _ENDLESS, repeat=10_000)
            case "token" if "/token" not in seen.target:
                return Reply(401, headers={"www-authenticate": f'Bearer realm="http://{seen.headers["host"]}/token"'})
            case "tags":
                names, here = [f"t{next(pages)}"] * 1000, next(pages)
                body = json.dumps({"name": "team/app", "tags": names}).encode()
                return Reply(200, body, {"link": f'</v2/team/app/tags/list?last={here % 3}>; rel="next"'})
            case "redirects":
                return Reply(307, headers={"location": f"/v2/{next(pages)}"})
            case _:
                return Reply(200, bytes(65536), {**_ENDLESS, "content-type": OCI_IMAGE}, repeat=10_000)

    async with _evil(answer) as (_, registry):
        began = time.monotonic()
        with pytest.raises(MoorageError):
            await _read(registry, what, files)
    assert time.monotonic() - began < _DEADLINE


def _headers_for_ever() -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\n"
    while True:
        yield b"X-More: " + b"x" * 1000 + b"\r\n"


def _one_header_for_ever() -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nX-Long: "
    while True:
        yield b"x" * 4096


def _headers_by_the_byte() -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\n"
    while True:
        time.sleep(0.05)
        yield b"x"


def _continue_for_ever() -> Iterator[bytes]:
    while True:
        time.sleep(0.001)
        yield b"HTTP/1.1 100 Continue\r\n\r\n"


def _silence() -> Iterator[bytes]:
    time.sleep(_DEADLINE)
    yield b""


@pytest.mark.parametrize(
    "head", [_headers_for_ever, _one_header_for_ever, _headers_by_the_byte, _continue_for_ever, _silence]
)
async def test_n5_headers_have_an_end(head: Callable[[], Iterator[bytes]]) -> None:
    """In number, in length and in time."""

    def serve(connection: socket.socket) -> None:
        for piece in head():
            connection.sendall(piece)

    with _raw(serve) as (port, _):
        began = time.monotonic()
        async with _client(f"127.0.0.1:{port}") as registry:
            with pytest.raises(Unreachable):
                await registry.read_manifest(_HERE, Tag("v1"))
    assert time.monotonic() - began < _DEADLINE


@contextmanager
def _raw(serve: Callable[[socket.socket], None]) -> Iterator[tuple[int, list[bytes]]]:
    """A server that speaks no protocol but what ``serve`` says; the port, and the first thing each client said."""
    heard: list[bytes] = []

    def handle(connection: socket.socket) -> None:
        with connection:
            connection.settimeout(_DEADLINE)
            try:
                heard.append(connection.recv(65536))
                serve(connection)
            except OSError:
                pass  # the client has left, which is what we want

    def accept() -> None:
        while True:
            try:
                connection = listener.accept()[0]
            except OSError:
                return
            threading.Thread(target=handle, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1], heard
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


# N6: content encodings


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "identity, gzip"])
@pytest.mark.parametrize("what", ["manifest", "blob", "token"])
async def test_n6_a_bomb_is_not_opened(files: LayoutFiles, what: str, encoding: str) -> None:
    """We ask for identity, and take nothing else."""
    bomb = gzip.compress(bytes(2**20))

    def answer(seen: Seen) -> Reply:
        assert seen.headers["accept-encoding"] == "identity"
        if what == "token" and "/token" not in seen.target:
            return Reply(401, headers={"www-authenticate": f'Bearer realm="http://{seen.headers["host"]}/token"'})
        return Reply(200, bomb, {"content-encoding": encoding, "content-type": OCI_IMAGE})

    async with _evil(answer) as (_, registry):
        with pytest.raises(BadAnswer, match="Content-Encoding"):
            await (_fetch(registry, files) if what == "blob" else registry.read_manifest(_HERE, Tag("v1")))


# N7: malformed manifests


_LAYER = {"mediaType": OCI_LAYER_GZIP, "digest": str(_BLOB.digest), "size": 1}
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
    async with _evil(lambda seen: Reply(200, body, {"content-type": OCI_IMAGE})) as (_, registry):
        with pytest.raises(MoorageError):
            _ = (await registry.read_manifest(_HERE, Tag("v1"))).document


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
    async with scripted(_serve(content)) as server, _client(server.host) as registry:
        try:
            async with asyncio.timeout(_DEADLINE):
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


async def test_embedded_data_counts_only_if_it_is_the_blob(files: LayoutFiles) -> None:
    """A descriptor's ``data`` saves the request where it verifies, and is ignored where it does not."""
    raw = {"mediaType": OCTET_STREAM, "digest": str(_BLOB.digest), "size": _BLOB.size}
    wrong = Descriptor.from_json({**raw, "data": base64.b64encode(bytes(_BLOB.size)).decode()}, field="x")
    right = Descriptor.from_json({**raw, "data": base64.b64encode(_BYTES).decode()}, field="x")
    async with _evil(lambda seen: Reply(200, _BYTES)) as (server, registry):
        await _fetch(registry, files, wrong)
        assert len(server.seen) == 1
        files.delete_blob(_BLOB.digest)
        await _fetch(registry, files, right)
        assert len(server.seen) == 1
    assert files.has_blob(_BLOB.digest)
