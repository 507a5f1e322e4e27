"""Switched-off verbs (rule A3) and paging over names that begin alike (rule A23)."""

from __future__ import annotations

import string
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st
from moorage.registry.oci import Registry
from moorage.registry.store import LocalRegistry
from moorage.registry.web.app import create_app
from moorage.registry.wrap.read_only import NoDelete, ReadOnly
from moorage.storage_backends.memory import MemoryStore

from tests.content import blob, image, push, push_blobs, repository
from tests.hostile.conftest import Canary
from tests.stage import ON_STAGE, Stage, bare_client
from tests.wire.talk import NAME, assert_error, put_manifest

pytestmark = ON_STAGE

_HERE = repository(NAME)
_LOOSE = blob("loose")


@pytest_asyncio.fixture(loop_scope="session", params=[ReadOnly, NoDelete], ids=["read-only", "no-delete"])
async def guarded(
    request: pytest.FixtureRequest, stage: Stage, local: Registry
) -> AsyncIterator[tuple[httpx.AsyncClient, str]]:
    """A client at a server whose registry refuses; and an upload session that was open before."""
    await push_blobs(local, _HERE, [_LOOSE])
    session = await local.start_upload(_HERE)
    stage.show(create_app(request.param(local)))
    async with bare_client(stage.url) as client:
        yield client, f"/v2/{NAME}/blobs/uploads/{session.id}"


async def test_a3_no_way_to_delete_is_forgotten(guarded: tuple[httpx.AsyncClient, str], canary: Canary) -> None:
    """Rule A3: by tag, by digest, a blob, with odd parameters: 405, Allow, and nothing changes."""
    client, _ = guarded
    before = canary()
    for path in (
        f"/v2/{NAME}/manifests/there",
        f"/v2/{NAME}/manifests/{image('there').digest}",
        f"/v2/{NAME}/manifests/there?force=true",
        f"/v2/{NAME}/blobs/{_LOOSE.digest}",
        f"/v2/{NAME}/manifests/none",
        "/v2/no/where/manifests/none",
    ):
        response = await client.delete(path)
        assert_error(response, 405, "UNSUPPORTED")
        assert "DELETE" not in response.headers["allow"]
    assert canary() == before


@pytest.mark.parametrize("guarded", [ReadOnly], indirect=True, ids=["read-only"])
async def test_a3_no_way_to_write_is_forgotten(guarded: tuple[httpx.AsyncClient, str], canary: Canary) -> None:
    """Rule A3: every writing verb of a read-only server, sessions that were open included."""
    client, session = guarded
    before = canary()
    uploads = f"/v2/{NAME}/blobs/uploads/"
    for method, path in (
        ("POST", uploads),
        ("POST", f"{uploads}?digest={_LOOSE.digest}"),
        ("PATCH", session),
        ("PUT", f"{session}?digest={_LOOSE.digest}"),
        ("DELETE", session),
    ):
        response = await client.request(method, path, content=_LOOSE.content)
        assert_error(response, 405, "UNSUPPORTED")
    for reference, query in (("new", ""), (None, "?tag=new"), (None, "")):
        assert_error(await put_manifest(client, image("there"), reference, query), 405, "UNSUPPORTED")
    assert canary() == before
    assert (await client.get(f"/v2/{NAME}/manifests/there")).content == image("there").manifest.content


_alphabet = st.sampled_from(["a", "b", "A", "-", ".", "_", "0", "aa"])
_tag_sets = st.sets(
    st.builds(
        lambda first, rest: first + "".join(rest),
        st.sampled_from(string.ascii_letters[:3] + "_0"),
        st.lists(_alphabet, max_size=3),
    ),
    min_size=1,
    max_size=25,
)


@settings(max_examples=25, deadline=None)
@given(names=_tag_sets, size=st.integers(1, 8))
async def test_a23_pages_lose_no_tag_that_begins_another(names: set[str], size: int) -> None:
    """Rule A23: whatever the names and the size of a page, the pages are the sorted set."""
    registry = await LocalRegistry.open(MemoryStore())
    await push(registry, _HERE, image(), *names)
    transport = httpx.ASGITransport(create_app(registry))
    found: list[str] = []
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        target = f"/v2/{NAME}/tags/list?n={size}"
        for _ in range(len(names) + 1):
            response = await client.get(target)
            found += response.json()["tags"]
            if "next" not in response.links:
                break
            target = response.links["next"]["url"]
    assert found == sorted(names)
