"""A blob arrives once, whole, whatever happens on the way; what the registry has is not sent again."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from moorage.puller import uploads
from moorage.puller.credentials import FixedKeychain
from moorage.puller.errors import ImageError, Unreachable
from moorage.puller.file_body import FileBody, FileSpan
from moorage.puller.remote import RemoteRegistry
from moorage.puller.transport import RetryPolicy
from moorage.puller.uploads import Body
from moorage.registry.oci import (
    Denied,
    Descriptor,
    Digest,
    DigestInvalid,
    InternalError,
    OciError,
    SizeInvalid,
    TooManyRequests,
)
from moorage.registry.oci.media_types import OCTET_STREAM
from moorage.registry.testing import Drop, DropUpload, LoopbackRegistry, Refuse

from tests.content import repository
from tests.scripted import Reply, Scripted, Seen, scripted

_HERE, _OTHER = repository("team/app"), repository("team/base")
_FAST = RetryPolicy(attempts=4, first_delay=0.001, longest_delay=0.01)
_SESSION = "/v2/team/app/blobs/uploads/one"


class _Content:
    """A file, and what was told of its upload."""

    def __init__(self, path: Path, size: int) -> None:
        content = random.Random(size).randbytes(size)
        path.write_bytes(content)
        self.path, self.content = path, content
        self.blob = Descriptor(OCTET_STREAM, Digest.of(content), size)
        self.sent = 0
        self.offsets: list[int] = []
        self.failures: list[str] = []

    def body(self, start: int, stop: int) -> Body:
        """The file's bytes, by the kernel."""
        return FileBody(FileSpan(str(self.path), start, stop), self._count)

    def resumed(self, offset: int) -> None:
        """Notes it."""
        self.offsets.append(offset)

    def retried(self, error: str, delay: float) -> None:
        """Notes it."""
        self.failures.append(error)

    def _count(self, size: int) -> None:
        self.sent += size


@pytest.fixture
def content(tmp_path: Path) -> _Content:
    return _Content(tmp_path / "blob", 4_000_000)


@asynccontextmanager
async def _connected(host: str) -> AsyncIterator[RemoteRegistry]:
    async with RemoteRegistry.connect(host, keychain=FixedKeychain(None), retry=_FAST) as registry:
        yield registry


async def _read(registry: RemoteRegistry, digest: Digest) -> bytes:
    async with registry.read_blob(_HERE, digest) as stream:
        return b"".join([chunk async for chunk in stream])


def _methods(registry: LoopbackRegistry) -> list[str]:
    return [request.method for request in registry.requests]


async def test_a_blob_goes_in_two_requests(registry: LoopbackRegistry, content: _Content) -> None:
    """POST and one PUT."""
    async with _connected(registry.host) as remote:
        await remote.upload(_HERE, content.blob).send(content, content)
        assert _methods(registry) == ["POST", "PUT"]
        assert await _read(remote, content.blob.digest) == content.content


@pytest.mark.parametrize("part", range(1, 16))
async def test_a_cut_upload_goes_on_where_it_was_cut(
    registry: LoopbackRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: int
) -> None:
    """At each sixteenth: what the registry has is asked for and not sent again; the rest goes in chunks."""
    monkeypatch.setattr(uploads, "_PIECE", 4_000_000)
    content = _Content(tmp_path / "blob", 17_000_000)
    cut = content.blob.size * part // 16
    registry.inject(DropUpload(after=cut), method="PUT", times=1)
    async with _connected(registry.host) as remote:
        await remote.upload(_HERE, content.blob).send(content, content)
        assert await _read(remote, content.blob.digest) == content.content
    (offset,) = content.offsets
    assert cut - 2**20 < offset <= content.blob.size  # the registry writes a MiB at a time
    ranges = [request.headers["content-range"] for request in registry.requests if request.method == "PATCH"]
    assert ranges == [
        f"{start}-{min(start + 4_000_000, content.blob.size) - 1}"
        for start in range(offset, content.blob.size, 4_000_000)
    ]
    assert _methods(registry)[:3] == ["POST", "PUT", "GET"]
    last = registry.requests[-2]  # behind it is only our own GET
    assert (last.method, last.headers["content-length"]) == ("PUT", "0")


async def test_every_chunk_may_break_as_long_as_it_gets_on(content: _Content) -> None:
    """More failures than attempts, because each brought some bytes; the last chunk is the rest."""
    held = [number * 500_000 for number in range(1, 8)]
    patches = 0

    def answer(seen: Seen) -> Reply:
        nonlocal patches
        if seen.method == "GET":
            return Reply(204, headers={"location": _SESSION, "range": f"0-{held[patches] - 1}"})
        if seen.method == "PATCH":
            patches += 1
            return Reply(503 if patches < len(held) else 202)
        if seen.method == "PUT":
            return Reply(201 if patches else 503)
        return Reply(202, headers={"location": _SESSION})

    async with scripted(answer) as server, _connected(server.host) as remote:
        await remote.upload(_HERE, content.blob).send(content, content)
    assert content.offsets == held
    assert len(content.failures) == len(held) > _FAST.attempts


async def test_a_lost_answer_is_not_a_lost_blob(content: _Content) -> None:
    """The session is gone because it has become the blob: HEAD says so and nothing is sent again."""
    answers = {"POST": Reply(202, headers={"location": _SESSION}), "PUT": Reply(503), "GET": Reply(404)}
    async with scripted(lambda seen: answers.get(seen.method, Reply(200))) as server, _connected(server.host) as remote:
        await remote.upload(_HERE, content.blob).send(content, content)
    assert [seen.method for seen in server.seen] == ["POST", "PUT", "GET", "HEAD"]


async def test_a_session_that_is_gone_is_begun_anew(registry: LoopbackRegistry, content: _Content) -> None:
    """From the first byte."""
    registry.inject(DropUpload(after=1_000_000), method="PUT", times=1)
    registry.inject(Refuse(404), method="GET", times=1)
    async with _connected(registry.host) as remote:
        await remote.upload(_HERE, content.blob).send(content, content)
        assert await _read(remote, content.blob.digest) == content.content
    assert _methods(registry)[:6] == ["POST", "PUT", "GET", "HEAD", "POST", "PUT"]


async def test_nothing_is_sent_before_it_is_known_where_the_session_stands(
    registry: LoopbackRegistry, content: _Content
) -> None:
    """A status that cannot be had now is asked for again, not guessed."""
    registry.inject(DropUpload(after=2_000_000), method="PUT", times=1)  # the registry writes a MiB at a time
    registry.inject(Drop(), method="GET", times=_FAST.attempts + 1)
    async with _connected(registry.host) as remote:
        await remote.upload(_HERE, content.blob).send(content, content)
        assert await _read(remote, content.blob.digest) == content.content
    assert _methods(registry)[:2] == ["POST", "PUT"]
    assert _methods(registry).index("PATCH") > _methods(registry).index("GET") + _FAST.attempts


@pytest.mark.parametrize("status", [429, 500, 502, 503])
async def test_what_passes_is_waited_for(registry: LoopbackRegistry, content: _Content, status: int) -> None:
    """On the first request as on the last."""
    registry.inject(Refuse(status, retry_after=0), method="POST", times=1)
    registry.inject(Refuse(status, retry_after=0), method="PUT", times=1)
    async with _connected(registry.host) as remote:
        await remote.upload(_HERE, content.blob).send(content, content)
        assert await _read(remote, content.blob.digest) == content.content


@pytest.mark.parametrize(
    ("status", "error"),
    [(403, Denied), (500, InternalError), (429, TooManyRequests)],
)
async def test_patience_ends(registry: LoopbackRegistry, content: _Content, status: int, error: type[OciError]) -> None:
    """With the registry's own words; what will not pass is not tried again."""
    registry.inject(Refuse(status, retry_after=0), method="PUT", times=None)
    async with _connected(registry.host) as remote:
        with pytest.raises(error):
            await remote.upload(_HERE, content.blob).send(content, content)
    assert _methods(registry).count("PUT") == 1 or status != 403


async def test_nobody_there(content: _Content) -> None:
    """Is said after the attempts."""
    async with _connected("127.0.0.1:1") as remote:
        with pytest.raises(Unreachable):
            await remote.upload(_HERE, content.blob).send(content, content)


async def test_a_damaged_file_is_refused_and_its_session_dropped(registry: LoopbackRegistry, content: _Content) -> None:
    """The registry verifies; what it refuses is gone."""
    content.path.write_bytes(b"x" + content.content[1:])
    async with _connected(registry.host) as remote:
        with pytest.raises(DigestInvalid):
            await remote.upload(_HERE, content.blob).send(content, content)
    content.path.write_bytes(content.content[:1000])
    registry.forget_requests()
    async with _connected(registry.host) as remote:
        with pytest.raises(SizeInvalid, match="are missing"):
            await remote.upload(_HERE, content.blob).send(content, content)
    assert _methods(registry)[-1] == "DELETE"


async def test_a_file_that_is_gone_is_no_broken_connection(registry: LoopbackRegistry, content: _Content) -> None:
    """It is said at once, and the session dropped."""
    content.path.unlink()
    async with _connected(registry.host) as remote:
        with pytest.raises(ImageError, match="No such file"):
            await remote.upload(_HERE, content.blob).send(content, content)
    assert content.failures == []
    assert _methods(registry)[-1] == "DELETE"


async def test_a_mount_moves_nothing(registry: LoopbackRegistry, content: _Content) -> None:
    """From a repository that is named, or from wherever the registry finds it."""
    async with _connected(registry.host) as remote:
        await remote.upload(_OTHER, content.blob).send(content, content)
        registry.forget_requests()
        mount = await remote.upload(_HERE, content.blob).mount([repository("no/such"), _OTHER])
        assert (mount.done, mount.source) == (True, _OTHER)
        assert _methods(registry) == ["POST", "DELETE", "POST"]
        mount = await remote.upload(repository("third"), content.blob).mount([])
        assert (mount.done, mount.source) == (True, None)


async def test_the_session_of_a_failed_mount_is_used(registry: LoopbackRegistry, content: _Content) -> None:
    """One request less."""
    async with _connected(registry.host) as remote:
        upload = remote.upload(_HERE, content.blob)
        assert not (await upload.mount([_OTHER])).done
        await upload.send(content, content)
    assert _methods(registry) == ["POST", "PUT"]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405])
async def test_a_refused_mount_is_no_refused_push(registry: LoopbackRegistry, content: _Content, status: int) -> None:
    """Registries that do not know mounts answer with anything."""
    registry.inject(Refuse(status), method="POST", times=1)
    async with _connected(registry.host) as remote:
        upload = remote.upload(_HERE, content.blob)
        assert not (await upload.mount([_OTHER])).done
        await upload.send(content, content)


def _resumable(patch: Callable[[Seen, int], Reply], *, held: int, least: int = 0) -> Callable[[Seen], Reply]:
    """A registry that breaks the first PUT when it holds ``held`` bytes; ``patch`` answers the n-th PATCH."""
    puts, patches = 0, 0

    def answer(seen: Seen) -> Reply:
        nonlocal puts, patches
        least_chunk = {"oci-chunk-min-length": str(least)} if least else {}
        match seen.method:
            case "POST":
                return Reply(202, headers={"location": f"{_SESSION}?n=0", **least_chunk})
            case "PUT":
                puts += 1
                return Reply(503) if puts == 1 else Reply(201)
            case "PATCH":
                patches += 1
                return patch(seen, patches)
            case "GET":
                return Reply(204, headers={"location": f"{_SESSION}?n={puts + patches}", "range": f"0-{held - 1}"})
        return Reply(204)

    return answer


async def test_chunks_are_not_below_the_registrys_least(content: _Content, monkeypatch: pytest.MonkeyPatch) -> None:
    """``OCI-Chunk-Min-Length``; and each request goes to the newest Location."""
    monkeypatch.setattr(uploads, "_PIECE", 100_000)

    def patch(seen: Seen, number: int) -> Reply:
        return Reply(202, headers={"location": f"{_SESSION}?n=p{number}"})

    async with (
        scripted(_resumable(patch, held=1_000_000, least=1_400_000)) as server,
        _connected(server.host) as remote,
    ):
        await remote.upload(_HERE, content.blob).send(content, content)
    sent = [(seen.headers["content-range"], len(seen.body)) for seen in _only(server, "PATCH")]
    assert sent == [("1000000-2399999", 1_400_000), ("2400000-3799999", 1_400_000), ("3800000-3999999", 200_000)]
    assert [seen.target.partition("?")[2] for seen in _only(server, "PATCH")] == ["n=1", "n=p1", "n=p2"]
    assert _only(server, "PUT")[-1].target.startswith(f"{_SESSION}?n=p3&digest=sha256:")


async def test_a_refused_range_is_asked_about(content: _Content) -> None:
    """416: the registry says where it stands, and that is where the upload goes on."""
    held = [1_000_000, 2_500_000]

    def patch(seen: Seen, number: int) -> Reply:
        return Reply(416) if number == 1 else Reply(202)

    answer = _resumable(patch, held=held[0])

    def moving(seen: Seen) -> Reply:
        reply = answer(seen)
        if seen.method == "GET":
            return Reply(204, headers={"location": _SESSION, "range": f"0-{held.pop(0) - 1}"})
        return reply

    async with scripted(moving) as server, _connected(server.host) as remote:
        await remote.upload(_HERE, content.blob).send(content, content)
    assert [seen.headers["content-range"] for seen in _only(server, "PATCH")] == ["1000000-3999999", "2500000-3999999"]
    assert _only(server, "PATCH")[-1].body == content.content[2_500_000:]


async def test_a_session_that_does_not_move_is_left(content: _Content) -> None:
    """The same refusal at the same place: cancelled, and begun anew with all the bytes."""

    def patch(seen: Seen, number: int) -> Reply:
        return Reply(416)

    async with scripted(_resumable(patch, held=1_000_000)) as server, _connected(server.host) as remote:
        await remote.upload(_HERE, content.blob).send(content, content)
    assert [seen.method for seen in server.seen] == ["POST", "PUT", "GET", "PATCH", "GET", "DELETE", "POST", "PUT"]
    assert server.seen[-1].body == content.content


async def test_parts_that_do_not_fit_are_sent_whole(content: _Content) -> None:
    """A registry that lost bytes between the parts notices at the end."""
    puts = 0

    def answer(seen: Seen) -> Reply:
        nonlocal puts
        if seen.method == "PUT":
            puts += 1
            return {1: Reply(503), 2: Reply(400, b'{"errors":[{"code":"DIGEST_INVALID"}]}')}.get(puts, Reply(201))
        return _resumable(lambda *_: Reply(202), held=1_000_000)(seen)

    async with scripted(answer) as server, _connected(server.host) as remote:
        await remote.upload(_HERE, content.blob).send(content, content)
    assert [len(seen.body) for seen in _only(server, "PUT")] == [4_000_000, 0, 4_000_000]


async def test_an_empty_blob(registry: LoopbackRegistry, tmp_path: Path) -> None:
    """Is a blob."""
    empty = _Content(tmp_path / "empty", 0)
    async with _connected(registry.host) as remote:
        await remote.upload(_HERE, empty.blob).send(empty, empty)
        assert await _read(remote, empty.blob.digest) == b""


def _only(server: Scripted, method: str) -> list[Seen]:
    return [seen for seen in server.seen if seen.method == method]
