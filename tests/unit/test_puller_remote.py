"""What a registry says wrongly becomes an error, never a wrong result; and credentials go where they belong."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from urllib.parse import parse_qsl, urlsplit

import pytest
from moorage.puller.credentials import Credentials, FixedKeychain
from moorage.puller.errors import BadAnswer, Unreachable
from moorage.puller.hosts import HostConfig
from moorage.puller.origins import Origin
from moorage.puller.remote import RemoteRegistry
from moorage.puller.sessions import location_of_session, session_of_location
from moorage.puller.transport import RetryPolicy
from moorage.registry.oci import (
    MANIFEST_LIMIT,
    BlobUnknown,
    BlobUploadUnknown,
    Denied,
    Digest,
    DigestInvalid,
    ManifestUnknown,
    NameUnknown,
    OciError,
    SizeInvalid,
    StorageFull,
    Tag,
    TooManyRequests,
    Unauthorized,
    Unsupported,
)
from moorage.registry.oci.media_types import OCI_IMAGE, OCI_INDEX, SCHEMA1_TYPES

from tests.content import artifact, blob, chunked, image, index, read_bytes, repository
from tests.scripted import Reply, Scripted, Seen, scripted

_HERE = repository("team/app")
_BLOB = blob("remote", 1000)
_IMAGE = image()
_FAST = RetryPolicy(attempts=2, first_delay=0.001, longest_delay=0.01)
_ALICE = Credentials("alice", "s3cret")


@asynccontextmanager
async def _connected(
    answer: Callable[[Seen], Reply], credentials: Credentials | None = _ALICE
) -> AsyncIterator[tuple[Scripted, RemoteRegistry]]:
    async with (
        scripted(answer) as server,
        RemoteRegistry.connect(
            server.host, keychain=FixedKeychain(credentials), hosts=HostConfig.empty(), retry=_FAST
        ) as registry,
    ):
        yield server, registry


def _always(status: int = 200, body: bytes = b"", repeat: int = 1, **headers: str) -> Callable[[Seen], Reply]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda seen: Reply(status, body, named, repeat)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        pytest.param(_always(200, b"{}", content_type=OCI_IMAGE), BadAnswer, id="other bytes"),
        pytest.param(_always(200, b"", content_type=OCI_IMAGE), BadAnswer, id="nothing"),
        pytest.param(_always(200, bytes(2**20), 6, content_length=""), BadAnswer, id="more than a manifest"),
        pytest.param(_always(404, b"<html>"), ManifestUnknown, id="not found, by a proxy"),
        pytest.param(_always(200, b"{}", content_type=OCI_IMAGE, docker_content_digest="sha256:xyz"), BadAnswer,
                     id="a digest that is none"),
    ],
)  # fmt: skip
async def test_a_manifest_is_what_was_asked_for(answer: Callable[[Seen], Reply], error: type[OciError]) -> None:
    """By digest it is hashed, and never longer than the limit (rules N4, N5)."""
    async with _connected(answer) as (_, registry):
        with pytest.raises(error):
            await registry.read_manifest(_HERE, _IMAGE.digest)


@pytest.mark.parametrize(
    ("body", "media_type", "said"),
    [
        pytest.param(b"hello", OCI_IMAGE, "not JSON", id="no JSON"),
        pytest.param(b'{"schemaVersion":1}', min(SCHEMA1_TYPES), "docker schema 1 is not supported", id="schema 1"),
    ],
)
async def test_a_manifest_of_no_use_is_told_with_its_place(body: bytes, media_type: str, said: str) -> None:
    """The registry, the repository and the tag: it is not the caller who wrote it."""
    async with _connected(_always(200, body, content_type=media_type)) as (server, registry):
        with pytest.raises(BadAnswer, match=f"{server.url}: manifest v1 of {_HERE}: {said}"):
            await registry.read_manifest(_HERE, Tag("v1"))


async def test_a_manifest_by_tag_has_the_digest_that_was_said() -> None:
    """Where the registry names one."""
    content, other = _IMAGE.manifest.content, str(Digest.of(b"other"))
    async with _connected(_always(200, content, content_type=OCI_IMAGE, docker_content_digest=other)) as (_, registry):
        with pytest.raises(BadAnswer, match="does not have the digest"):
            await registry.read_manifest(_HERE, Tag("latest"))


@pytest.mark.parametrize("content_type", ["", "application/json", "text/plain; charset=utf-8", f"{OCI_IMAGE}; x=y"])
async def test_a_vague_type_is_read_from_the_document(content_type: str) -> None:
    """And parameters of a type are dropped."""
    answer = _always(200, _IMAGE.manifest.content, content_type=content_type)
    async with _connected(answer) as (_, registry):
        assert (await registry.read_manifest(_HERE, Tag("latest"))).media_type == OCI_IMAGE


@pytest.mark.parametrize("missing", ["docker-content-digest", "content-type"])
async def test_a_head_that_says_too_little_is_followed_by_a_get(missing: str) -> None:
    """Old registries leave things out."""

    def answer(seen: Seen) -> Reply:
        headers = {"docker-content-digest": str(_IMAGE.digest), "content-type": OCI_IMAGE}
        return Reply(200, _IMAGE.manifest.content, {**headers, missing: ""})

    async with _connected(answer) as (server, registry):
        assert await registry.resolve_manifest(_HERE, Tag("latest")) == _IMAGE.descriptor
        assert [seen.method for seen in server.seen] == ["HEAD", "GET"]


@pytest.mark.parametrize(
    ("body", "headers", "error"),
    [
        pytest.param(bytes(1000), {}, DigestInvalid, id="other bytes"),
        pytest.param(_BLOB.content, {"content-length": ""}, BadAnswer, id="no length"),
        pytest.param(_BLOB.content, {"content-length": "99999999999999999999999"}, OciError, id="absurd length"),
        pytest.param(_BLOB.content[:500], {"content-length": "1000"}, Unreachable, id="cut short"),
    ],
)
async def test_a_blob_read_whole_is_checked(body: bytes, headers: dict[str, str], error: type[OciError]) -> None:
    """Before its last chunk is released."""
    received = bytearray()

    async def receive(registry: RemoteRegistry) -> None:
        async with registry.read_blob(_HERE, _BLOB.digest) as stream:
            async for chunk in stream:
                received.extend(chunk)

    async with _connected(lambda seen: Reply(200, body, headers, cut=error is Unreachable)) as (_, registry):
        with pytest.raises(error):
            await receive(registry)
    assert len(received) < 1000


async def test_a_registry_without_ranges_is_read_past() -> None:
    """It sends the whole; we take our part."""
    async with _connected(_always(200, _BLOB.content)) as (_, registry):
        assert await read_bytes(registry, _HERE, _BLOB.digest, start=10, stop=20) == _BLOB.content[10:20]


@pytest.mark.parametrize("content_range", ["bytes 0-9/1000", "bytes 10-20/1000", "", "items 10-19/1000"])
async def test_another_range_than_asked_is_refused(content_range: str) -> None:
    """Taking it for ours would give wrong bytes."""

    def answer(seen: Seen) -> Reply:
        if seen.method == "HEAD":
            return Reply(200, _BLOB.content)
        return Reply(206, bytes(10), {"content-range": content_range})

    async with _connected(answer) as (_, registry):
        with pytest.raises(BadAnswer):
            await read_bytes(registry, _HERE, _BLOB.digest, start=10, stop=20)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        pytest.param(_always(body=b'{"tags":["a","b"]}', link='</v2/team/app/tags/list?n=2>; rel="next"'), BadAnswer,
                     id="a circle"),
        pytest.param(lambda s: Reply(body=b'{"tags":["a"]}', headers={"link": f'<{s.target}1>; rel="next"'}), BadAnswer,
                     id="standing still"),
        pytest.param(_always(body=b'{"tags":["a"]}', link='<http://other.example/>; rel="next"'), BadAnswer,
                     id="elsewhere"),
        pytest.param(_always(body=b'{"tags":"a"}'), BadAnswer, id="no list"),
        pytest.param(_always(body=b'{"tags":[1]}'), BadAnswer, id="no names"),
        pytest.param(_always(body=b'{"tags":["a b"]}'), BadAnswer, id="no tags"),
        pytest.param(_always(body=b"[]"), BadAnswer, id="no object"),
        pytest.param(_always(body=b"["*100_000), BadAnswer, id="too deep"),
        pytest.param(_always(404), NameUnknown, id="no repository"),
    ],
)  # fmt: skip
async def test_a_list_must_advance_and_be_one(answer: Callable[[Seen], Reply], error: type[OciError]) -> None:
    """It ends, one way or the other (rule N5)."""
    async with _connected(answer) as (server, registry):
        with pytest.raises(error):
            _ = [tag async for tag in registry.list_tags(_HERE)]
        assert len(server.seen) <= 3


@pytest.mark.parametrize("body", [b'{"tags":null}', b'{"tags":[]}', b'{"name":"team/app"}'])
async def test_no_tags_are_no_error(body: bytes) -> None:
    """However a registry writes it."""
    async with _connected(_always(body=body)) as (_, registry):
        assert [tag async for tag in registry.list_tags(_HERE)] == []


async def test_referrers_fall_back_to_the_tag() -> None:
    """Where a registry has no such API (spec "Referrers Tag Schema"); filters are applied here."""
    found = [artifact(n, subject=_IMAGE.descriptor, artifact_type=f"application/vnd.t{n % 2}") for n in range(4)]
    entries = [content.manifest.as_referrer() for content in found]
    document = {"schemaVersion": 2, "manifests": [entry.to_json() for entry in entries]}

    def answer(seen: Seen) -> Reply:
        if seen.target.endswith(f"/manifests/{_IMAGE.digest.algorithm}-{_IMAGE.digest.hex}"):
            return Reply(body=json.dumps(document).encode(), headers={"content-type": OCI_INDEX})
        return Reply(404)

    async with _connected(answer) as (_, registry):
        listed = registry.list_referrers(_HERE, _IMAGE.digest, artifact_type="application/vnd.t1")
        assert {entry.digest async for entry in listed} == {found[1].digest, found[3].digest}
    async with _connected(_always(404)) as (_, registry):
        assert [entry async for entry in registry.list_referrers(_HERE, _IMAGE.digest)] == []


async def test_referrers_are_recorded_where_the_registry_does_not() -> None:
    """A registry that does not confirm the subject gets the list under the tag; entries are added once."""
    stored: dict[str, bytes] = {}

    def answer(seen: Seen) -> Reply:
        name = seen.target.rpartition("/")[2]
        if seen.method == "PUT":
            stored[name] = seen.body
            return Reply(201)
        return Reply(200, stored[name], {"content-type": OCI_INDEX}) if name in stored else Reply(404)

    found = [artifact(number, subject=_IMAGE.descriptor) for number in range(2)]
    async with _connected(answer) as (_, registry):
        for content in (*found, found[0]):
            await registry.push_manifest(_HERE, content.manifest)
        listed = [entry async for entry in registry.list_referrers(_HERE, _IMAGE.digest)]
    assert listed == [content.manifest.as_referrer() for content in found]
    assert set(stored) == {str(_IMAGE.digest).replace(":", "-"), *(str(content.digest) for content in found)}


async def test_nothing_is_recorded_where_the_registry_does() -> None:
    """It says OCI-Subject."""
    content = artifact(subject=_IMAGE.descriptor)
    async with _connected(_always(201, oci_subject=str(_IMAGE.digest))) as (server, registry):
        await registry.push_manifest(_HERE, content.manifest)
        assert len(server.seen) == 1


def _error(code: object, message: object = "m") -> bytes:
    return json.dumps({"errors": [{"code": code, "message": message, "detail": {"a": 1}}]}).encode()


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        pytest.param(404, _error("NAME_UNKNOWN"), BlobUnknown, id="another code for the same"),
        pytest.param(403, _error("DENIED"), Denied, id="denied"),
        pytest.param(401, b"", Unauthorized, id="no body"),
        pytest.param(429, _error("TOOMANYREQUESTS"), TooManyRequests, id="too many"),
        pytest.param(507, b"full", StorageFull, id="text"),
        pytest.param(405, _error("UNSUPPORTED"), Unsupported, id="switched off"),
        pytest.param(400, _error(None, None), OciError, id="nulls"),
        pytest.param(400, _error(["x"], {"y": 1}), OciError, id="other types"),
        pytest.param(418, b'{"errors":[]}', OciError, id="no errors"),
        pytest.param(500, b"[" * 60_000, OciError, id="deep"),
        pytest.param(500, b"x" * 70_000, BadAnswer, id="endless"),
        pytest.param(302, b"", BadAnswer, id="redirect to nowhere"),
    ],
)
async def test_errors_become_their_class(status: int, body: bytes, error: type[OciError]) -> None:
    """Whatever shape they come in."""
    async with _connected(_always(status, body)) as (_, registry):
        with pytest.raises(error) as caught:
            async with registry.read_blob(_HERE, _BLOB.digest):
                pytest.fail("the block was entered")
        assert len(caught.value.message) < 300


async def test_an_upload_elsewhere_gets_no_secret() -> None:
    """A Location on another origin is used, without our credentials (CVE-2026-50151)."""
    async with scripted(_always(201)) as other:

        def answer(seen: Seen) -> Reply:
            if "authorization" not in seen.headers:
                return Reply(401, headers={"www-authenticate": 'Basic realm="r"'})
            return Reply(202, headers={"location": f"{other.url}/upload?state=1"})

        async with _connected(answer) as (server, registry):
            await registry.push_blob(_HERE, _BLOB.descriptor, chunked(_BLOB.content))
        assert [seen.method for seen in server.seen] == ["POST", "POST"]
        put = other.seen[0]
        assert (put.method, put.body) == ("PUT", _BLOB.content)
        assert dict(parse_qsl(urlsplit(put.target).query)) == {"state": "1", "digest": str(_BLOB.digest)}
        assert "authorization" not in put.headers


async def test_a_failed_push_cancels_its_session() -> None:
    """And the caller hears of his own failure."""

    def answer(seen: Seen) -> Reply:
        return Reply(202, headers={"location": "/v2/team/app/blobs/uploads/x"}) if seen.method == "POST" else Reply(204)

    async with _connected(answer) as (server, registry):
        with pytest.raises(SizeInvalid):
            await registry.push_blob(_HERE, _BLOB.descriptor, chunked(_BLOB.content[:-1]))
        assert [seen.method for seen in server.seen][-1] == "DELETE"


@pytest.mark.parametrize("location", ["", "http://other.example/x/y", "https://[", "http://169.254.169.254/latest"])
async def test_a_session_must_have_a_place(location: str) -> None:
    """That can be handed on, and is not this machine's cloud."""
    async with _connected(_always(202, location=location)) as (_, registry):
        with pytest.raises((BadAnswer, Unsupported)):
            await registry.start_upload(_HERE)


_ORIGIN = Origin("https", "registry.example", 443)


@pytest.mark.parametrize("tail", ["abc", "6f1e-22?_state=a%2Fb%3D&x=1", "a.b~c=", "x?digest=sha256:1"])
def test_sessions_stand_for_their_location(tail: str) -> None:
    """There and back."""
    location = f"https://registry.example/v2/team/app/blobs/uploads/{tail}"
    session = session_of_location(_HERE, location)
    assert location_of_session(_ORIGIN, _HERE, session) == location


@pytest.mark.parametrize(
    "tail", ["", "..", ".", "../../../other/blobs/uploads/x", "a/b", "%2e%2e", "a b", "a#b", "x\r\ny", "ü", "?x"]
)
def test_no_session_climbs_out(tail: str) -> None:
    """An id made up by somebody stays within the uploads of its repository, or is unknown."""
    session = base64.urlsafe_b64encode(tail.encode()).decode().rstrip("=")
    with pytest.raises(BlobUploadUnknown):
        location_of_session(_ORIGIN, _HERE, session)
    for raw in ("!", "a===", "ü", "A" * 5):
        with pytest.raises(BlobUploadUnknown):
            location_of_session(_ORIGIN, _HERE, raw)


async def test_several_tags_take_one_request_where_they_can() -> None:
    """``?tag=`` where the registry confirms it, one request each for the rest."""
    content = index([_IMAGE])

    def answer(seen: Seen) -> Reply:
        confirmed = "a" if "tag=a" in seen.target else ""
        return Reply(201, headers={"oci-tag": confirmed, "docker-content-digest": str(content.digest)})

    async with _connected(answer) as (server, registry):
        await registry.push_manifest(_HERE, content.manifest, tags=[Tag("a"), Tag("b")])
        assert [seen.target.rpartition("/")[2] for seen in server.seen] == [f"{content.digest}?tag=a&tag=b", "b"]


async def test_a_manifest_stored_as_another_is_noticed() -> None:
    """The registry's digest must be ours."""
    async with _connected(_always(201, docker_content_digest=str(Digest.of(b"x")))) as (_, registry):
        with pytest.raises(BadAnswer):
            await registry.push_manifest(_HERE, _IMAGE.manifest, tags=[Tag("a")])
    assert len(_IMAGE.manifest.content) < MANIFEST_LIMIT
