"""Lists that come page by page.

Law: a page is capped, its successor is on the same origin, and the list must advance; a registry can make us stop,
never go on for ever (rule N5).
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

from moorage.puller.errors import BadAnswer
from moorage.puller.origins import Origin, follow, redact
from moorage.puller.transport import Answer
from moorage.puller.wire import Wire
from moorage.registry.oci import ManifestInvalid, parse_json, routes

__all__ = ["Page", "read_names", "read_pages"]

_PAGE_LIMIT = 16 * 1024 * 1024
"""Bytes of one page: registries may ignore our ``n`` and send 60,000 of the longest names at once."""

_MAX_PAGES = 10_000
_NEXT = re.compile(r'<([^<>]*)>\s*;[^,]*\brel="?next"?', re.IGNORECASE)

Page = tuple[dict[str, Any], Answer]


async def read_pages(wire: Wire, endpoint: routes.Endpoint) -> AsyncIterator[Page]:
    """Every page of a list: the JSON object and the answer that brought it.

    Raises:
        BadAnswer: a page is no JSON object, or the pages go in circles.
    """
    at: str | None = None
    seen: set[str] = set()
    for _ in range(_MAX_PAGES):
        async with wire.call(endpoint, at=at) as answer:
            document = _parse_page(await answer.read_body(_PAGE_LIMIT), answer)
        yield document, answer
        at = _next_page(answer)
        if at is None:
            return
        if at in seen:
            raise BadAnswer(f"{redact(answer.url)}: the list goes in circles")
        seen.add(at)
    raise BadAnswer(f"{wire.origin}: a list of more than {_MAX_PAGES} pages")


async def read_names(wire: Wire, endpoint: routes.Endpoint, key: str) -> AsyncIterator[str]:
    """The strings under ``key`` of every page.

    Raises:
        BadAnswer: they are not strings, or a page only repeats the one before.
    """
    before: set[str] = set()
    async for document, answer in read_pages(wire, endpoint):
        names = document.get(key) or []
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise BadAnswer(f"{redact(answer.url)}: {key} is not a list of names")
        if names and before.issuperset(names):
            raise BadAnswer(f"{redact(answer.url)}: the list does not advance")
        before = set(names)
        for name in names:
            yield name


def _parse_page(body: bytes, answer: Answer) -> dict[str, Any]:
    try:
        document = parse_json(body)
    except ManifestInvalid as exc:
        raise BadAnswer(f"{redact(answer.url)}: {exc.message}") from None
    if not isinstance(document, dict):
        raise BadAnswer(f"{redact(answer.url)}: not a JSON object")
    return document


def _next_page(answer: Answer) -> str | None:
    match = _NEXT.search(answer.header("Link") or "")
    if match is None:
        return None
    target = follow(answer.url, match[1])
    if Origin.of(target) != Origin.of(answer.url):
        raise BadAnswer(f"{redact(answer.url)}: the next page is at another origin")
    return target
