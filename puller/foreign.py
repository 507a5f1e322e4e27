"""Blobs that a manifest says are elsewhere: the ``urls`` of foreign layers.

Law (rule N1, CVE-2020-15157): asked only for what the registry does not have, without credentials, over http or https,
and never at an address of this machine or this network, by its literal or by what a name resolves to, unless the
registry is at such an address itself. What comes is verified like every blob.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from moorage.puller.errors import BadAnswer, Unreachable
from moorage.puller.messages import Answer, Request
from moorage.puller.origins import Origin, is_public
from moorage.puller.transport import Transport

__all__ = ["ask_elsewhere"]

_MOST_PLACES = 4


@asynccontextmanager
async def ask_elsewhere(
    transport: Transport, urls: Sequence[str], *, registry: Origin, headers: Mapping[str, str]
) -> AsyncIterator[Answer]:
    """The answer of the first place that has something, or of the last that was asked.

    Args:
        headers: of the GET; no secrets.

    Raises:
        BadAnswer: a URL is none, or leads where we do not go.
        Unreachable: no place answers.
    """
    for number, url in enumerate(urls[:_MOST_PLACES], 1):
        is_last = number == min(len(urls), _MOST_PLACES)
        async with AsyncExitStack() as stack:
            try:
                request = _request(url, registry, headers)
                answer = await stack.enter_async_context(transport.exchange(request))
            except (BadAnswer, Unreachable):
                if is_last:
                    raise
                continue
            if answer.status < 400 or is_last:
                yield answer
                return


def _request(url: str, registry: Origin, headers: Mapping[str, str]) -> Request:
    origin, is_guarded = Origin.of(url), is_public(registry.host)
    if is_guarded and not is_public(origin.host):
        raise BadAnswer(f"{registry}: names {origin} as the place of a layer, an address of this network")
    return Request("GET", url, headers, patient=False, is_guarded=is_guarded)
