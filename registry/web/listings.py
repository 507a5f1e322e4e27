"""Lists over HTTP: repositories, tags, referrers, a page at a time.

Law: a page has at most ``MAX_PAGE`` entries whatever is asked for (rule A2), and names its successor by the last entry
it has, so entries that come and go meanwhile neither repeat nor hide others.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import TypeVar

from moorage.registry.oci import MANIFEST_LIMIT, Descriptor, Registry
from moorage.registry.oci.media_types import OCI_INDEX
from moorage.registry.oci.routes import MAX_PAGE, Endpoint, ListReferrers, ListRepositories, ListTags, url
from moorage.registry.web.respond import JSON, Call, Header, json_body

__all__ = ["list_referrers", "list_repositories", "list_tags"]

_T = TypeVar("_T")
_INDEX: Header = (b"content-type", OCI_INDEX.encode("ascii"))


async def list_repositories(registry: Registry, endpoint: ListRepositories, call: Call) -> None:
    """Sends a page of the catalog."""
    limit = MAX_PAGE if endpoint.limit is None else endpoint.limit
    names, more = await _take(registry.list_repositories(after=endpoint.last), limit)
    headers = [JSON]
    if more and names:
        headers.append(_link(ListRepositories(limit, names[-1])))
    await call.reply(200, headers, json_body({"repositories": [name.value for name in names]}))


async def list_tags(registry: Registry, endpoint: ListTags, call: Call) -> None:
    """Sends a page of the repository's tags, in byte order."""
    limit = MAX_PAGE if endpoint.limit is None else endpoint.limit
    tags, more = await _take(registry.list_tags(endpoint.repository, after=endpoint.last), limit)
    headers = [JSON]
    if more and tags:
        headers.append(_link(ListTags(endpoint.repository, limit, tags[-1].value)))
    document = {"name": endpoint.repository.value, "tags": [tag.value for tag in tags]}
    await call.reply(200, headers, json_body(document))


async def list_referrers(registry: Registry, endpoint: ListReferrers, call: Call) -> None:
    """Sends a page of the referrers as an image index; an empty one where there is nothing to refer to."""
    limit = MAX_PAGE if endpoint.limit is None else endpoint.limit
    found = registry.list_referrers(
        endpoint.repository, endpoint.subject, artifact_type=endpoint.artifact_type, after=endpoint.last
    )
    # A client that refuses manifests of more than 4 MiB refuses such an index too.
    entries, more = await _take(found, limit, weigh=_weight, max_weight=MANIFEST_LIMIT - 1024)
    headers = [_INDEX]
    if endpoint.artifact_type is not None:
        headers.append((b"oci-filters-applied", b"artifactType"))
    if more and entries:
        last = str(entries[-1].digest)
        headers.append(_link(ListReferrers(endpoint.repository, endpoint.subject, endpoint.artifact_type, limit, last)))
    manifests = [entry.to_json() for entry in entries]
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}
    await call.reply(200, headers, json_body(document))


async def _take(
    found: AsyncIterator[_T], limit: int, *, weigh: Callable[[_T], int] | None = None, max_weight: int = 0
) -> tuple[list[_T], bool]:
    """The first ``limit`` entries, fewer if they would weigh more than ``max_weight``, and whether there are more.

    Even for a limit of 0 one step is made: it tells whether the repository exists.
    """
    page: list[_T] = []
    weight = 0
    try:
        async for entry in found:
            weight += weigh(entry) if weigh else 0
            if len(page) >= limit or (page and weight > max_weight and weigh):
                return page, True
            page.append(entry)
        return page, False
    finally:
        if isinstance(found, AsyncGenerator):
            await found.aclose()


def _weight(descriptor: Descriptor) -> int:
    return len(json_body(descriptor.to_json())) + 1


def _link(endpoint: Endpoint) -> Header:
    """RFC 8288; relative, so that it holds behind any proxy. Queries are percent-encoded by ``url``."""
    _, path, query = url(endpoint)
    return b"link", f'<{path}?{query}>; rel="next"'.encode("ascii")
