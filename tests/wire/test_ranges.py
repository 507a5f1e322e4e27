"""Byte ranges of blobs (RFC 9110 section 14; conformance "range requests"; podman's zstd:chunked)."""

from __future__ import annotations

import email.parser
import email.policy

import httpx
import pytest
import pytest_asyncio
from moorage.registry.oci import Registry

from tests.content import blob, empty_blob, push_blobs, repository
from tests.stage import ON_STAGE
from tests.wire.talk import NAME, assert_error

pytestmark = ON_STAGE

_HERE = repository(NAME)
_BLOB = blob("ranged", 2048)
_PATH = f"/v2/{NAME}/blobs/{_BLOB.digest}"
_DATA = _BLOB.content


@pytest_asyncio.fixture(autouse=True, loop_scope="session")
async def _stored(local: Registry) -> None:
    await push_blobs(local, _HERE, [_BLOB, empty_blob()])


@pytest.mark.parametrize(
    ("value", "first", "last"),
    [
        pytest.param("bytes=500-1499", 500, 1499, id="middle"),
        pytest.param("bytes=500-", 500, 2047, id="open end: containerd"),
        pytest.param("bytes=0-", 0, 2047, id="all of it: containerd"),
        pytest.param("bytes=-500", 1548, 2047, id="suffix"),
        pytest.param("bytes=-5000", 0, 2047, id="suffix longer than the blob"),
        pytest.param("bytes=2000-5000", 2000, 2047, id="clamped"),
        pytest.param("bytes=0-0", 0, 0, id="first byte"),
        pytest.param("bytes=2047-2047", 2047, 2047, id="last byte"),
        pytest.param("bytes=-1", 2047, 2047, id="last byte as suffix"),
        pytest.param("BYTES=1-2", 1, 2, id="unit in upper case"),
        pytest.param("bytes= 1-2", 1, 2, id="space after the equals sign"),
        pytest.param("bytes=1-99999999999999999999999", 1, 2047, id="end beyond 64 bits"),
    ],
)
async def test_a_single_range_is_206(wire: httpx.AsyncClient, value: str, first: int, last: int) -> None:
    """Content-Range names the real last byte, as docker and skopeo insist."""
    response = await wire.get(_PATH, headers={"range": value})
    assert response.status_code == 206
    assert response.content == _DATA[first : last + 1]
    assert response.headers["content-length"] == str(last + 1 - first)
    assert response.headers["content-range"] == f"bytes {first}-{last}/2048"
    assert response.headers["content-type"] == "application/octet-stream"
    assert response.headers["docker-content-digest"] == str(_BLOB.digest)


@pytest.mark.parametrize(
    "value",
    ["bytes=500-0", "bytes=5000-10000", "bytes=2048-", "bytes=-0", "bytes=9999-,8888-", "bytes=99999999999999999999-"],
)
async def test_a_range_without_bytes_is_416(wire: httpx.AsyncClient, value: str) -> None:
    """With the size, so that the client can ask better."""
    response = await wire.get(_PATH, headers={"range": value})
    assert_error(response, 416, "RANGE_INVALID")
    assert response.headers["content-range"] == "bytes */2048"


@pytest.mark.parametrize(
    "value",
    ["", "bytes", "bytes=", "bytes=-", "bytes=a-b", "bytes=1", "bytes=1-2-3", "bytes=+1-2", "bytes=1_0-20",
     "octets=1-2", "bytes=\u0663-5", "bytes=1-2;3-4", "bytes:1-2", "bytes==1-2", "bytes=0x1-2"],
)  # fmt: skip
async def test_a_range_nobody_understands_is_ignored(wire: httpx.AsyncClient, value: str) -> None:
    """RFC 9110 section 14.2: the whole is sent."""
    response = await wire.get(_PATH, headers={b"range": value.encode()})
    assert (response.status_code, response.content) == (200, _DATA)


def _parts(response: httpx.Response) -> list[tuple[str, bytes]]:
    """Content-Range and content of each part."""
    head = f"Content-Type: {response.headers['content-type']}\r\n\r\n".encode()
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + response.content)
    assert message.is_multipart()
    parts: list[tuple[str, bytes]] = []
    for part in message.iter_parts():
        assert part.get_content_type() == "application/octet-stream"
        start, end = part["Content-Range"].removeprefix("bytes ").partition("/")[0].split("-")
        # The message parser may change line ends inside random bytes, so the part is cut out by its own numbers.
        parts.append((part["Content-Range"], _DATA[int(start) : int(end) + 1]))
        assert parts[-1][1] in response.content
    return parts


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param("bytes=0-99,200-299", [(0, 99), (200, 299)], id="podman: two parts"),
        pytest.param("bytes=0-0,2-2,4-4,-1", [(0, 0), (2, 2), (4, 4), (2047, 2047)], id="four single bytes"),
        pytest.param("bytes=1000-1099, 0-99", [(1000, 1099), (0, 99)], id="out of order, with a space"),
        pytest.param("bytes=0-99,5000-6000,300-", [(0, 99), (300, 2047)], id="one of them beyond the end"),
        pytest.param("bytes=,0-9,,20-29,", [(0, 9), (20, 29)], id="empty elements"),
    ],
)
async def test_several_ranges_are_multipart(
    wire: httpx.AsyncClient, value: str, expected: list[tuple[int, int]]
) -> None:
    """multipart/byteranges, each part with its Content-Range, and a true Content-Length."""
    response = await wire.get(_PATH, headers={"range": value})
    assert response.status_code == 206
    assert response.headers["content-type"].startswith("multipart/byteranges; boundary=")
    assert "content-range" not in response.headers
    assert len(response.content) == int(response.headers["content-length"])
    wanted = [(f"bytes {first}-{last}/2048", _DATA[first : last + 1]) for first, last in expected]
    assert _parts(response) == wanted


async def test_several_ranges_of_which_one_remains_are_one(wire: httpx.AsyncClient) -> None:
    """No multipart around a single part."""
    response = await wire.get(_PATH, headers={"range": "bytes=0-9,9000-"})
    assert (response.status_code, response.content) == (206, _DATA[:10])
    assert response.headers["content-range"] == "bytes 0-9/2048"


@pytest.mark.parametrize("value", ["bytes=0-99,50-149", "bytes=0-,0-", "bytes=5-5,5-5", "bytes=-2000,-2000"])
async def test_overlapping_ranges_bring_no_more_than_the_blob(wire: httpx.AsyncClient, value: str) -> None:
    """An answer never carries more than the content (rule A10)."""
    response = await wire.get(_PATH, headers={"range": value})
    assert response.status_code in (200, 416)
    assert len(response.content) <= len(_DATA)


@pytest.mark.parametrize("value", ["bytes=0-0", "bytes=0-", "bytes=-1", "bytes=5-"])
async def test_the_empty_blob_has_no_ranges(wire: httpx.AsyncClient, value: str) -> None:
    """A plain 200 of nothing."""
    response = await wire.get(f"/v2/{NAME}/blobs/{empty_blob().digest}", headers={"range": value})
    assert (response.status_code, response.content) == (200, b"")


@pytest.mark.parametrize(
    ("condition", "status"),
    [
        (f'"{_BLOB.digest}"', 206),
        ('"sha256:other"', 200),
        (f'W/"{_BLOB.digest}"', 200),
        ("Sat, 1 Jan 2000 00:00:00 GMT", 200),
    ],
)
async def test_if_range_needs_the_strong_etag(wire: httpx.AsyncClient, condition: str, status: int) -> None:
    """RFC 9110 section 13.1.5: otherwise the whole comes."""
    response = await wire.get(_PATH, headers={"range": "bytes=0-9", "if-range": condition})
    assert response.status_code == status
    assert response.content == (_DATA[:10] if status == 206 else _DATA)


async def test_head_with_a_range_describes_the_whole_or_the_part(wire: httpx.AsyncClient) -> None:
    """RFC 9110 defines ranges for GET only: HEAD says 200 and the size of the blob."""
    response = await wire.head(_PATH, headers={"range": "bytes=0-9"})
    assert (response.status_code, response.headers["content-length"]) == (200, "2048")


async def test_ranges_of_an_absent_blob_are_404(wire: httpx.AsyncClient) -> None:
    """Not 416."""
    response = await wire.get(f"/v2/{NAME}/blobs/{blob('no').digest}", headers={"range": "bytes=0-9"})
    assert_error(response, 404, "BLOB_UNKNOWN")


@pytest.mark.parametrize("length", [8 * 1024 - 1, 8 * 1024, 8 * 1024 + 1])
async def test_a10_a_long_range_header_is_bounded(wire: httpx.AsyncClient, length: int) -> None:
    """Rule A10, limit of 8 KiB: at most a hundred ranges are honoured, and the answer is never an error."""
    value = "bytes=" + "0-," * (length // 3)
    value = value[: length - 3] + "0-1" if length % 3 else value[:length]
    response = await wire.get(_PATH, headers={"range": value})
    assert response.status_code in (200, 206, 416)
    assert len(response.content) <= len(_DATA)


@pytest.mark.parametrize(("count", "status"), [(99, 206), (100, 206), (101, 200)])
async def test_a10_the_number_of_ranges_is_bounded(wire: httpx.AsyncClient, count: int, status: int) -> None:
    """Rule A10: a hundred parts, beyond that the whole."""
    value = "bytes=" + ",".join(f"{2 * number}-{2 * number}" for number in range(count))
    response = await wire.get(_PATH, headers={"range": value})
    assert response.status_code == status
