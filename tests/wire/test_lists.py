"""Lists over the wire: tags, catalog, referrers; pages, links, filters (spec "Content discovery")."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from moorage.registry.oci import Digest, Registry
from moorage.registry.oci.media_types import OCI_INDEX

from tests.content import EXAMPLE_TYPE, Content, artifact, image, index, push, repository
from tests.stage import ON_STAGE
from tests.wire.talk import NAME, assert_error

pytestmark = ON_STAGE

_HERE = repository(NAME)
_TAGS = f"/v2/{NAME}/tags/list"
_NAMES = ["A", "a", "a-b", "a.b", "aa", "b", "latest", "v1.10", "v1.2"]
_LINK = re.compile(r'<(?P<target>[^<>]+)>; rel="next"')
_SUBJECT = image("subject")


def next_page(response: httpx.Response) -> str | None:
    """The target of the Link header: relative, percent-encoded."""
    if "link" not in response.headers:
        return None
    match = _LINK.fullmatch(response.headers["link"])
    assert match is not None, response.headers["link"]
    assert match["target"].startswith("/v2/")
    return match["target"]


async def walk(wire: httpx.AsyncClient, path: str, key: str) -> tuple[list[Any], int]:
    """All entries of a paged list, and how many pages it had."""
    found: list[Any] = []
    pages = 0
    target: str | None = path
    while target is not None:
        response = await wire.get(target)
        assert response.status_code == 200, response.text
        found += response.json()[key]
        pages += 1
        assert pages < 100
        target = next_page(response)
    return found, pages


async def test_tags_in_byte_order(wire: httpx.AsyncClient, local: Registry) -> None:
    """One page, no Link."""
    await push(local, _HERE, image(), *_NAMES)
    response = await wire.get(_TAGS)
    assert response.json() == {"name": NAME, "tags": sorted(_NAMES)}
    assert response.headers["content-type"] == "application/json"
    assert "link" not in response.headers


@pytest.mark.parametrize("size", [1, 2, 3, len(_NAMES) - 1, len(_NAMES), len(_NAMES) + 1, 1000])
async def test_tags_by_pages(wire: httpx.AsyncClient, local: Registry, size: int) -> None:
    """Every page but the last is full and links to the next; nothing repeats or is missing."""
    await push(local, _HERE, image(), *_NAMES)
    found, pages = await walk(wire, f"{_TAGS}?n={size}", "tags")
    assert found == sorted(_NAMES)
    assert pages == -(-len(_NAMES) // size)


async def test_n_zero_is_an_empty_page(wire: httpx.AsyncClient, local: Registry) -> None:
    """200, no tags, no Link (spec main)."""
    await push(local, _HERE, image(), *_NAMES)
    response = await wire.get(f"{_TAGS}?n=0")
    assert response.json() == {"name": NAME, "tags": []}
    assert "link" not in response.headers


@pytest.mark.parametrize("last", ["", "0", "A", "a", "a-", "a-b", "a.b", "aa", "latest", "zzz"])
async def test_last_need_not_exist(wire: httpx.AsyncClient, local: Registry, last: str) -> None:
    """What follows it in byte order."""
    await push(local, _HERE, image(), *_NAMES)
    response = await wire.get(_TAGS, params={"last": last})
    assert response.json()["tags"] == [name for name in sorted(_NAMES) if name > last]


async def test_last_and_n_together(wire: httpx.AsyncClient, local: Registry) -> None:
    """A page from the middle."""
    await push(local, _HERE, image(), *_NAMES)
    response = await wire.get(f"{_TAGS}?n=2&last=a")
    assert response.json()["tags"] == ["a-b", "a.b"]
    assert next_page(response) == f"{_TAGS}?n=2&last=a.b"


async def test_a_page_survives_what_happens_meanwhile(wire: httpx.AsyncClient, local: Registry) -> None:
    """Promise M8: deleting the last tag of a page hides nothing of the next."""
    await push(local, _HERE, image(), *_NAMES)
    first = await wire.get(f"{_TAGS}?n=3")
    await wire.delete(f"/v2/{NAME}/manifests/{first.json()['tags'][-1]}")
    rest = await wire.get(next_page(first) or "")
    assert first.json()["tags"] + rest.json()["tags"] == sorted(_NAMES)[:6]


async def test_more_than_a_thousand_is_clamped(wire: httpx.AsyncClient, local: Registry) -> None:
    """ggcr asks for 1,000, others for more: a page never has more, and the Link goes on."""
    names = [f"t{number:04}" for number in range(1001)]
    await push(local, _HERE, image(), *names)
    for query in ("", "?n=1000", "?n=1001", "?n=999999999"):
        response = await wire.get(f"{_TAGS}{query}")
        assert len(response.json()["tags"]) == 1000
        assert (await wire.get(next_page(response) or "")).json()["tags"] == ["t1000"]


@pytest.mark.parametrize("path", [_TAGS, "/v2/_catalog", f"/v2/{NAME}/referrers/{_SUBJECT.digest}"])
@pytest.mark.parametrize("value", ["-1", "", "x", "1_0", "+1", "٣", " 1", "1.0", "9" * 30])
async def test_a2_a_page_size_that_is_no_number(wire: httpx.AsyncClient, path: str, value: str) -> None:
    """Rule A2: 400, and nothing is allocated by it."""
    assert_error(await wire.get(path, params={"n": value}), 400, "PAGINATION_NUMBER_INVALID")


async def test_tags_of_no_repository(wire: httpx.AsyncClient) -> None:
    """404 NAME_UNKNOWN, also for a page."""
    for query in ("", "?n=0", "?n=5", "?last=x"):
        assert_error(await wire.get(f"/v2/no/where/tags/list{query}"), 404, "NAME_UNKNOWN")


async def test_tags_of_a_repository_without_tags(wire: httpx.AsyncClient, local: Registry) -> None:
    """``[]``, never null."""
    await push(local, _HERE, image())
    assert (await wire.get(_TAGS)).json() == {"name": NAME, "tags": []}


async def test_catalog_by_pages(wire: httpx.AsyncClient, local: Registry) -> None:
    """Every repository with a manifest, each once, whatever the page size."""
    names = ["a", "a/b", "a-b", "a.b", "ab", "b/c/d", "b/c"]
    for name in names:
        await push(local, repository(name), image())
    whole = (await wire.get("/v2/_catalog")).json()["repositories"]
    assert sorted(whole) == sorted(names)
    for size in (1, 2, 3, 7, 100):
        assert await walk(wire, f"/v2/_catalog?n={size}", "repositories") == (whole, -(-len(names) // size))


@pytest.mark.parametrize("query", ["", "?n=0", "?n=5", "?last=a"])
async def test_an_empty_catalog(wire: httpx.AsyncClient, query: str) -> None:
    """200 and ``[]``."""
    response = await wire.get(f"/v2/_catalog{query}")
    assert (response.status_code, response.json()) == (200, {"repositories": []})


def _referrers(query: str = "", digest: Digest = _SUBJECT.digest, name: str = NAME) -> str:
    return f"/v2/{name}/referrers/{digest}{query}"


def assert_index(response: httpx.Response) -> list[dict[str, Any]]:
    """An OCI image index; returns its entries."""
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == OCI_INDEX
    document = response.json()
    assert (document["schemaVersion"], document["mediaType"]) == (2, OCI_INDEX)
    assert isinstance(document["manifests"], list)
    return list(document["manifests"])


@pytest.mark.parametrize("name", [NAME, "no/where"])
@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
async def test_referrers_of_nothing(wire: httpx.AsyncClient, local: Registry, name: str, algorithm: str) -> None:
    """Never 404: an empty index, before anything was pushed too, else clients write fallback tags."""
    if name == NAME:
        await push(local, _HERE, image())
    path = _referrers(digest=Digest.of(b"nothing", algorithm), name=name)
    for query in ("", f"?artifactType={EXAMPLE_TYPE}"):
        assert assert_index(await wire.get(path + query)) == []


@pytest.mark.parametrize("digest", ["sha256:bad", "latest", "md5:0123", "sha256:" + "A" * 64])
async def test_referrers_of_a_bad_digest(wire: httpx.AsyncClient, digest: str) -> None:
    """400."""
    assert_error(await wire.get(f"/v2/{NAME}/referrers/{digest}"), 400, "DIGEST_INVALID")


@pytest.mark.parametrize("with_subject", [False, True], ids=["missing subject", "subject there"])
@pytest.mark.parametrize(
    ("content", "artifact_type"),
    [
        pytest.param(artifact("a", subject=_SUBJECT.descriptor), EXAMPLE_TYPE, id="artifact"),
        pytest.param(
            artifact("b", artifact_type=None, config_type=EXAMPLE_TYPE, subject=_SUBJECT.descriptor),
            EXAMPLE_TYPE,
            id="type of the config",
        ),
        pytest.param(image("c", subject=_SUBJECT.descriptor), image("c").blobs[0].descriptor.media_type, id="image"),
        pytest.param(
            index(artifact_type=EXAMPLE_TYPE, subject=_SUBJECT.descriptor, annotations={"org.example.a": "b"}),
            EXAMPLE_TYPE,
            id="index",
        ),
        pytest.param(index(subject=_SUBJECT.descriptor), None, id="index without type"),
        pytest.param(artifact("d", algorithm="sha512", subject=_SUBJECT.descriptor), EXAMPLE_TYPE, id="sha512"),
    ],
)
async def test_an_entry_tells_all_about_its_manifest(
    wire: httpx.AsyncClient, local: Registry, content: Content, artifact_type: str | None, with_subject: bool
) -> None:
    """Type, digest, size, artifact type with its fallback, and the annotations."""
    if with_subject:
        await push(local, _HERE, _SUBJECT, "subject")
    await push(local, _HERE, content)
    (entry,) = assert_index(await wire.get(_referrers()))
    assert entry["mediaType"] == content.manifest.media_type
    assert entry["digest"] == str(content.digest)
    assert entry["size"] == len(content.manifest.content)
    assert entry.get("artifactType") == artifact_type
    assert entry.get("annotations") == (dict(content.manifest.document.annotations or {}) or None)


async def test_the_artifact_type_filter_is_applied_and_said_so(wire: httpx.AsyncClient, local: Registry) -> None:
    """OCI-Filters-Applied only with a filter; a type with ``+`` arrives escaped."""
    other = "application/vnd.example.other+json"
    for seed, kind in (("one", EXAMPLE_TYPE), ("two", EXAMPLE_TYPE), ("three", other)):
        await push(local, _HERE, artifact(seed, artifact_type=kind, subject=_SUBJECT.descriptor))
    for kind, count in ((EXAMPLE_TYPE, 2), (other, 1), ("application/none", 0)):
        response = await wire.get(_referrers(), params={"artifactType": kind})
        assert [entry["artifactType"] for entry in assert_index(response)] == [kind] * count
        assert response.headers["oci-filters-applied"] == "artifactType"
    response = await wire.get(_referrers())
    assert len(assert_index(response)) == 3
    assert "oci-filters-applied" not in response.headers


@pytest.mark.parametrize("size", [1, 2, 5, 6, 7])
@pytest.mark.parametrize("filtered", [False, True])
async def test_referrers_by_pages(wire: httpx.AsyncClient, local: Registry, size: int, filtered: bool) -> None:
    """Complete, each once, and the filter goes on through the Links."""
    for number in range(6):
        await push(local, _HERE, artifact(number, subject=_SUBJECT.descriptor))
        await push(local, _HERE, artifact(-number, artifact_type="application/x", subject=_SUBJECT.descriptor))
    query = f"?n={size}" + (f"&artifactType={quote(EXAMPLE_TYPE)}" if filtered else "")
    found, _ = await walk(wire, _referrers(query), "manifests")
    digests = [entry["digest"] for entry in found]
    assert digests == sorted(set(digests))
    assert len(digests) == (6 if filtered else 12)


async def test_many_referrers_stay_below_the_manifest_limit(wire: httpx.AsyncClient, local: Registry) -> None:
    """A client that refuses manifests beyond 4 MiB can still read every page."""
    annotations = {"org.example.long": "A" * 1_000_000}
    for number in range(6):
        await push(local, _HERE, artifact(number, subject=_SUBJECT.descriptor, annotations=annotations))
    target: str | None = _referrers()
    found = 0
    while target is not None:
        response = await wire.get(target)
        assert len(response.content) <= 4 * 1024 * 1024
        found += len(assert_index(response))
        target = next_page(response)
    assert found == 6


async def test_a5_text_that_is_no_unicode_is_no_obstacle(wire: httpx.AsyncClient, local: Registry) -> None:
    """JSON can escape half a surrogate pair; a list that copies such an annotation must still be JSON."""
    content = artifact(subject=_SUBJECT.descriptor, annotations={"org.example.half": "\ud800"})
    for item in content.blobs:
        await wire.post(f"/v2/{NAME}/blobs/uploads/?digest={item.digest}", content=item.content)
    response = await wire.put(
        f"/v2/{NAME}/manifests/{content.digest}",
        content=content.manifest.content,
        headers={"content-type": content.manifest.media_type},
    )
    assert response.status_code in (201, 400)
    assert len(assert_index(await wire.get(_referrers()))) == (1 if response.status_code == 201 else 0)
