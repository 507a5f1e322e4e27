"""Documents from other machines: the keys of token issuers.

Law (rule T15, and the guard of reference section 7.3): one GET to an address that the operator's configuration led to.
https only; no redirect, no user in the URL, no proxy of the environment; a limit of size and one of time. The
name is resolved once, every address is judged, and the connection goes to one that was judged: what the name means a
moment later does not matter. A private address is asked only under the name that the operator wrote down.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Sequence
from typing import Final

import httpx
from moorage.auth.errors import IssuerUnavailable

__all__ = ["Outbound", "is_public"]

_LARGEST: Final = 256 * 1024
"""Bytes of a document; key sets have a few thousand."""

_TIME: Final = 10.0
"""Seconds for all of it."""

_CLOSED: Final = tuple(
    ipaddress.ip_network(network)
    for network in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *("192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24"),
        *("203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
        *("::/96", "::ffff:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32"),
        *("2002::/16", "3fff::/20", "5f00::/16", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8"),
    )
)
"""Networks that are not the public Internet, and those that lead to addresses hidden in an address."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def is_public(address: str) -> bool:
    """Whether an address belongs to the public Internet, as plainly as can be said."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    return not any(parsed in network for network in _CLOSED if network.version == parsed.version)


class Outbound:
    """Fetches documents; see ``KeySource``."""

    async def fetch(self, url: str, *, host: str, ca: str | None) -> bytes:
        """The document at ``url``; see ``KeySource``.

        Raises:
            IssuerUnavailable: it cannot be had, or must not be asked for; one line that says why.
        """
        try:
            async with asyncio.timeout(_TIME):
                return await _fetch(url, host.lower(), ca)
        except TimeoutError:
            raise IssuerUnavailable(f"{url}: no answer within {_TIME:.0f} s") from None
        except (httpx.HTTPError, OSError, ValueError) as exc:
            raise IssuerUnavailable(f"{url}: {str(exc) or type(exc).__name__}") from exc


async def _fetch(raw: str, named: str, ca: str | None) -> bytes:
    url = _checked(raw, named)
    port = url.port or (443 if url.scheme == "https" else 80)
    addresses = await _resolve(url.host, port, is_named=url.host == named)
    context = await asyncio.to_thread(ssl.create_default_context, cafile=ca)
    failure: httpx.HTTPError | None = None
    async with httpx.AsyncClient(verify=context, trust_env=False, timeout=_TIME) as client:
        for address in addresses:
            try:
                return await _get(client, url, address)
            except httpx.ConnectError as exc:
                failure = exc
    raise failure or ValueError(f"{url.host} has no address")


def _checked(raw: str, named: str) -> httpx.URL:
    """The URL, if it is one that is asked.

    Raises:
        IssuerUnavailable: it is not.
    """
    try:
        url = httpx.URL(raw)
    except httpx.InvalidURL as exc:
        raise IssuerUnavailable(f"{raw[:200]!r}: {exc}") from None
    is_named = bool(named) and url.host == named
    if url.scheme != "https" and not (url.scheme == "http" and is_named and _is_loopback(url.host)):
        raise IssuerUnavailable(f"{url}: only https is asked for keys")
    if url.userinfo or not url.host:
        raise IssuerUnavailable(f"{url.copy_with(userinfo=b'')}: not the address of a server")
    if url.port not in (None, 443) and not is_named:
        raise IssuerUnavailable(f"{url}: another port than 443 on a host that the configuration does not name")
    return url


async def _resolve(host: str, port: int, *, is_named: bool) -> Sequence[str]:
    """The addresses of a host, every one of which may be asked.

    Raises:
        IssuerUnavailable: one of them is private, and the operator did not name the host.
        OSError: it has none.
    """
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    if not is_named and not all(map(is_public, addresses)):
        raise IssuerUnavailable(f"{host}: a private address, of a host that the configuration does not name")
    return addresses


async def _get(client: httpx.AsyncClient, url: httpx.URL, address: str) -> bytes:
    """The document from one address, under the name that the URL has.

    Raises:
        httpx.HTTPError, IssuerUnavailable: it did not come.
    """
    headers = {"Host": url.netloc.decode("ascii"), "Accept": "application/json", "Accept-Encoding": "identity"}
    at = url.copy_with(host=address)
    body = b""
    async with client.stream("GET", at, headers=headers, extensions={"sni_hostname": url.host}) as answer:
        if answer.status_code != 200:
            raise IssuerUnavailable(f"{url}: answered {answer.status_code}")
        async for chunk in answer.aiter_raw():
            body += chunk
            if len(body) > _LARGEST:
                raise IssuerUnavailable(f"{url}: a document larger than {_LARGEST} bytes")
    return body


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
