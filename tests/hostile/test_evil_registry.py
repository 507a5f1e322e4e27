"""Rules N1 to N6: what a malicious registry can send, and that it gains nothing by it.

Law of these tests: no secret leaves its origin, nothing wrong is stored, and every case ends, soon, with one error.
Rules N7 to N11 are in ``test_evil_images``.
"""

from __future__ import annotations

import base64
import gzip
import json
import os
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from moorage.puller.errors import BadAnswer, Unreachable
from moorage.puller.foreign import ask_elsewhere
from moorage.puller.layout_files import LayoutFiles
from moorage.puller.messages import Request
from moorage.puller.origins import Origin
from moorage.puller.transport import Transport
from moorage.registry.oci import (
    Descriptor,
    Digest,
    DigestMismatch,
    MoorageError,
    SizeInvalid,
    Tag,
)
from moorage.registry.oci.media_types import OCI_IMAGE, OCTET_STREAM

from tests.hostile.evil import (
    BASIC,
    BLOB,
    BYTES,
    DEADLINE,
    FAST,
    HERE,
    SHORT,
    ask,
    client,
    evil,
    fetch,
    login_first,
    read,
    secrets,
)
from tests.scripted import Reply, Seen, scripted


@pytest.fixture
def files(tmp_path: Path) -> LayoutFiles:
    return LayoutFiles(str(tmp_path / "layout"), create=True)


# N1: descriptor urls


def _foreign(*urls: str) -> Descriptor:
    return Descriptor(OCTET_STREAM, BLOB.digest, BLOB.size, urls=urls)


async def test_n1_urls_are_not_asked_for_what_the_registry_has(files: LayoutFiles) -> None:
    """A layer's ``urls`` alone move nobody."""
    async with scripted(lambda seen: Reply(200, BYTES)) as elsewhere:
        async with evil(lambda seen: Reply(200, BYTES)) as (_, registry):
            await fetch(registry, files, _foreign(f"{elsewhere.url}/layer"))
        assert elsewhere.seen == []


async def test_n1_urls_get_no_credentials(files: LayoutFiles) -> None:
    """What the registry does not have is fetched from there, and nothing of ours goes along."""
    async with scripted(lambda seen: Reply(200, BYTES)) as elsewhere:
        async with evil(login_first(lambda seen: Reply(404))) as (home, registry):
            await fetch(registry, files, _foreign("ftp://nowhere/", f"{elsewhere.url}/layer"))
        assert secrets(home)
        assert [seen.target for seen in elsewhere.seen] == ["/layer"]
        assert secrets(elsewhere) == []
    assert files.has_blob(BLOB.digest)


async def test_n1_a_challenge_at_urls_is_not_answered(files: LayoutFiles) -> None:
    """CVE-2020-15157: a foreign host that asks for a login learns nothing."""
    async with scripted(lambda seen: Reply(401, headers=BASIC)) as elsewhere:
        async with evil(login_first(lambda seen: Reply(404))) as (_, registry):
            with pytest.raises(MoorageError):
                await fetch(registry, files, _foreign(f"{elsewhere.url}/layer"))
        assert secrets(elsewhere) == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "10.1.2.3", "192.168.0.9", "169.254.169.254"])
async def test_n1_urls_of_an_outside_registry_do_not_lead_inside(host: str) -> None:
    """By address."""
    outside = Origin.of("https://registry.example")
    async with Transport(retry=FAST) as transport:
        with pytest.raises(BadAnswer, match="address of this network"):
            await ask(ask_elsewhere(transport, [f"http://{host}:1/"], registry=outside, headers={}))


async def test_n1_a_name_that_means_this_machine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name looks public; what it resolves to decides, before a byte is sent."""
    resolve = socket.getaddrinfo

    def resolve_inside(host: str | bytes, *rest: Any, **more: Any) -> Any:
        return resolve("127.0.0.1" if "." in os.fsdecode(host) else host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", resolve_inside)
    async with scripted(lambda seen: Reply(200, BYTES)) as inside, Transport(retry=FAST) as transport:
        url = inside.url.replace("127.0.0.1", "mirror.example")
        outside = Origin.of("https://registry.example")
        with pytest.raises(BadAnswer, match="address of this network"):
            await ask(ask_elsewhere(transport, [url], registry=outside, headers={}))
        assert inside.seen == []


# N2: secrets stay at their origin


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("ask", ["blob", "manifest", "tags"])
async def test_n2_a_redirect_takes_no_secret_along(files: LayoutFiles, status: int, ask: str) -> None:
    """Another port is another origin, whatever is asked for."""
    async with scripted(lambda seen: Reply(401, headers=BASIC)) as other:
        away = Reply(status, headers={"location": f"{other.url}/taken", "set-cookie": "id=1"})
        async with evil(login_first(lambda seen: away)) as (home, registry):
            with pytest.raises(MoorageError):
                await read(registry, ask, files)
        assert secrets(home)
        assert other.seen
        assert secrets(other) == []


@pytest.mark.parametrize("location", ["http://{}/v2/team/app/blobs/uploads/1", "//{}/v2/team/app/blobs/uploads/1"])
async def test_n2_an_upload_location_takes_no_secret_along(location: str) -> None:
    """CVE-2026-50151: the bytes may go where the registry says, the password may not."""

    async def content() -> AsyncIterator[bytes]:
        yield BYTES

    async with scripted(lambda seen: Reply(201)) as other:
        opened = Reply(202, headers={"location": location.format(other.host)})
        async with evil(login_first(lambda seen: opened)) as (_, registry):
            await registry.push_blob(HERE, BLOB, content())
        assert other.seen
        assert secrets(other) == []


@pytest.mark.parametrize("realm", ["http://{}/token", "http://registry.example/token", "http://127.0.0.1:1/token"])
async def test_n2_a_realm_elsewhere_gets_no_secret(realm: str) -> None:
    """Challenges of a redirect target are not even read; plain http elsewhere is refused."""
    async with scripted(lambda seen: Reply(200, b'{"token":"t"}')) as other:
        challenge = f'Bearer realm="{realm.format(other.host)}",service="s"'
        async with (
            scripted(lambda seen: Reply(401, headers={"www-authenticate": challenge})) as target,
            evil(lambda seen: Reply(307, headers={"location": f"{target.url}/"})) as (_, registry),
        ):
            with pytest.raises(MoorageError):
                await registry.read_manifest(HERE, Tag("v1"))
        assert other.seen == []


# N3: no way back from TLS


async def test_n3_nothing_falls_back_to_plain_http() -> None:
    """A registry that should speak TLS and does not is unreachable; it never sees a request."""
    with _raw(lambda connection: None) as (port, heard):
        async with Transport(retry=FAST, timeouts=SHORT) as transport:
            with pytest.raises(Unreachable):
                await ask(transport.exchange(Request("GET", f"https://127.0.0.1:{port}/v2/")))
    assert heard
    assert not any(b"HTTP" in piece or b"/v2/" in piece for piece in heard)


# N4: what is asked for by digest is hashed


async def test_n4_another_manifest_than_asked_is_refused() -> None:
    """The answer may say what digest it likes."""
    other = b'{"schemaVersion":2}'
    wanted = Digest.of(b"another")
    headers = {"content-type": OCI_IMAGE, "docker-content-digest": str(wanted)}
    async with evil(lambda seen: Reply(200, other, headers)) as (_, registry):
        with pytest.raises(BadAnswer):
            await registry.read_manifest(HERE, wanted)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        pytest.param(bytes(len(BYTES)), DigestMismatch, id="other bytes"),
        pytest.param(BYTES[:-1], SizeInvalid, id="truncated"),
        pytest.param(BYTES + b"!", SizeInvalid, id="longer"),
    ],
)
async def test_n4_another_blob_than_asked_is_refused(
    files: LayoutFiles, body: bytes, error: type[MoorageError]
) -> None:
    """And never appears in the layout."""
    async with evil(lambda seen: Reply(200, body, {"docker-content-digest": str(BLOB.digest)})) as (_, registry):
        with pytest.raises(error):
            await fetch(registry, files)
    assert not files.has_blob(BLOB.digest)


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

    async with evil(answer) as (_, registry):
        began = time.monotonic()
        with pytest.raises(MoorageError):
            await read(registry, what, files)
    assert time.monotonic() - began < DEADLINE


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
    time.sleep(DEADLINE)
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
        async with client(f"127.0.0.1:{port}") as registry:
            with pytest.raises(Unreachable):
                await registry.read_manifest(HERE, Tag("v1"))
    assert time.monotonic() - began < DEADLINE


@contextmanager
def _raw(serve: Callable[[socket.socket], None]) -> Iterator[tuple[int, list[bytes]]]:
    """A server that speaks no protocol but what ``serve`` says; the port, and the first thing each client said."""
    heard: list[bytes] = []

    def handle(connection: socket.socket) -> None:
        with connection:
            connection.settimeout(DEADLINE)
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

    async with evil(answer) as (_, registry):
        with pytest.raises(BadAnswer, match="Content-Encoding"):
            await (fetch(registry, files) if what == "blob" else registry.read_manifest(HERE, Tag("v1")))


async def test_embedded_data_counts_only_if_it_is_the_blob(files: LayoutFiles) -> None:
    """A descriptor's ``data`` saves the request where it verifies, and is ignored where it does not."""
    raw = {"mediaType": OCTET_STREAM, "digest": str(BLOB.digest), "size": BLOB.size}
    wrong = Descriptor.from_json({**raw, "data": base64.b64encode(bytes(BLOB.size)).decode()}, field="x")
    right = Descriptor.from_json({**raw, "data": base64.b64encode(BYTES).decode()}, field="x")
    async with evil(lambda seen: Reply(200, BYTES)) as (server, registry):
        await fetch(registry, files, wrong)
        assert len(server.seen) == 1
        files.delete_blob(BLOB.digest)
        await fetch(registry, files, right)
        assert len(server.seen) == 1
    assert files.has_blob(BLOB.digest)
