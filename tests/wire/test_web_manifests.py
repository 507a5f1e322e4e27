"""Manifests and lists through the web layer over a real server."""

from __future__ import annotations

import json

import httpx
import pytest
from moorage.registry.oci import Digest, Manifest
from moorage.registry.oci.media_types import OCI_INDEX

from tests.stage import ON_STAGE
from tests.wire.boat import INDEX, MANIFEST_URL, chunks, error_code

pytestmark = ON_STAGE


async def test_tags_as_registers(wire: httpx.AsyncClient) -> None:
    """If-None-Match: * creates once; If-Match moves the tag only from what the client saw."""
    second = Manifest.of(b'{"schemaVersion":2,"manifests":[],"annotations":{"a":"b"}}', OCI_INDEX)

    async def put(manifest: Manifest, **condition: str) -> int:
        headers = {"Content-Type": OCI_INDEX, **{key.replace("_", "-"): value for key, value in condition.items()}}
        return (await wire.put(MANIFEST_URL, content=manifest.content, headers=headers)).status_code

    assert await put(INDEX, If_None_Match="*") == 201
    assert await put(second, If_None_Match="*") == 412
    assert await put(second, If_Match=f'"{second.digest}"') == 412
    assert await put(second, If_Match=f'W/"{INDEX.digest}"') == 412
    assert await put(second, If_Match='"nonsense"') == 412
    assert await put(second, If_Match="*") == 412
    assert await put(second, If_None_Match=f'"{INDEX.digest}"') == 412
    assert (await wire.head(MANIFEST_URL)).headers["docker-content-digest"] == str(INDEX.digest)
    assert await put(second, If_Match=f'"{INDEX.digest}"') == 201
    assert (await wire.get(MANIFEST_URL)).content == second.content


@pytest.mark.parametrize("content_type", [OCI_INDEX, f"{OCI_INDEX}; charset=utf-8", None])
async def test_manifest_content_types(wire: httpx.AsyncClient, content_type: str | None) -> None:
    """Parameters are dropped, an absent type is told from the document; the answer never has parameters."""
    headers = {"Content-Type": content_type} if content_type else {}
    answer = await wire.put(f"{MANIFEST_URL}?tag=a&tag=b", content=INDEX.content, headers=headers)
    assert (answer.status_code, answer.headers["location"]) == (201, f"/v2/moored/boat/manifests/{INDEX.digest}")
    assert answer.headers.get_list("oci-tag") == ["a", "b"]
    for tag in ("latest", "a", "b"):
        answer = await wire.get(f"/v2/moored/boat/manifests/{tag}", headers={"Accept": "text/plain"})
        assert (answer.headers["content-type"], answer.content) == (OCI_INDEX, INDEX.content)


@pytest.mark.parametrize("streamed", [False, True], ids=["length", "stream"])
async def test_a1_manifest_limit(wire: httpx.AsyncClient, streamed: bool) -> None:
    """4 MiB are read, a byte more is 413, with Content-Length and without."""
    limit = 4 * 1024 * 1024
    for size, status in ((limit, 201), (limit + 1, 413)):
        content = INDEX.content.ljust(size)
        answer = await wire.put(MANIFEST_URL, content=chunks(content) if streamed else content)
        assert answer.status_code == status


async def test_lists_come_in_pages(wire: httpx.AsyncClient) -> None:
    """Link leads from page to page, relative, to the end; n=0 is an empty page without Link."""
    tags = [f"v{i}" for i in range(5)]
    await wire.put(MANIFEST_URL, content=INDEX.content)
    await wire.delete(MANIFEST_URL)
    for tag in tags:
        await wire.put(f"/v2/moored/boat/manifests/{tag}", content=INDEX.content)
    url: str | None = "/v2/moored/boat/tags/list?n=2"
    seen = []
    while url:
        answer = await wire.get(url)
        seen.append(answer.json()["tags"])
        assert answer.json()["name"] == "moored/boat"
        url = answer.links["next"]["url"] if answer.links else None
        assert url is None or url.startswith("/v2/moored/boat/tags/list?")
    assert seen == [["v0", "v1"], ["v2", "v3"], ["v4"]]
    empty = await wire.get("/v2/moored/boat/tags/list?n=0")
    assert (empty.json()["tags"], "link" in empty.headers) == ([], False)
    assert (await wire.get("/v2/_catalog")).json() == {"repositories": ["moored/boat"]}
    assert error_code(await wire.get("/v2/nobody/tags/list?n=0")) == "NAME_UNKNOWN"


async def test_referrers_come_in_pages(wire: httpx.AsyncClient) -> None:
    """An image index always; filtered and paged it says so."""
    expected = set()
    for i in range(3):
        subject = {"mediaType": OCI_INDEX, "digest": str(INDEX.digest), "size": len(INDEX.content)}
        document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [], "subject": subject}
        document["annotations"] = {"number": str(i)}
        content = json.dumps({**document, "artifactType": f"application/vnd.t{i % 2}"}).encode()
        answer = await wire.put(f"/v2/moored/boat/manifests/{Digest.of(content)}", content=content)
        assert (answer.status_code, answer.headers["oci-subject"]) == (201, str(INDEX.digest))
        if i % 2 == 0:
            expected.add(str(Digest.of(content)))
    url: str | None = f"/v2/moored/boat/referrers/{INDEX.digest}?artifactType=application/vnd.t0&n=1"
    seen = []
    while url:
        answer = await wire.get(url)
        assert (answer.status_code, answer.headers["content-type"]) == (200, OCI_INDEX)
        assert answer.headers["oci-filters-applied"] == "artifactType"
        seen += [entry["digest"] for entry in answer.json()["manifests"]]
        url = answer.links["next"]["url"] if answer.links else None
    assert (set(seen), len(seen)) == (expected, 2)
    nobody = await wire.get(f"/v2/nobody/referrers/{INDEX.digest}")
    assert (nobody.status_code, nobody.json()["manifests"]) == (200, [])
