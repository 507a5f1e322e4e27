"""Which token service a registry may send us to, with our credentials.

Law: a challenge is only what somebody at the registry's address says, so the service it names must belong to whom the
credentials are for (rules P1, N2): the same host; the domain above or below it; a host of the same registrable domain;
or what the configuration names. https is never left for http, and an outside registry never points at this machine.

What "registrable" means cannot be computed: ``a.co.uk`` and ``b.co.uk`` are strangers, ``a.docker.io`` and
``b.docker.io`` are not. The Public Suffix List knows; where it does not know a domain, hosts are strangers.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from moorage.puller.errors import BadAnswer
from moorage.puller.origins import Origin, check_hop, redact

if TYPE_CHECKING:
    from publicsuffixlist import PublicSuffixList

__all__ = ["are_of_one_owner", "check_realm"]

_KNOWN = frozenset({("registry-1.docker.io", "auth.docker.io")})
"""Spares every pull from Docker Hub the 50 ms that it takes to read the list."""

_SHARED = frozenset(
    {"amazonaws.com", "amazonaws.com.cn", "aliyuncs.com", "azurecr.cn", "azurecr.io", "azurecr.us", "jfrog.io"}
)
"""Domains below which every customer has a name, which the list does not have."""


def check_realm(registry: Origin, realm: str, *, allowed: Collection[Origin] = ()) -> str:
    """The realm, if credentials for ``registry`` may be shown there.

    Args:
        allowed: the token services that the configuration names.

    Raises:
        BadAnswer: it is no URL, or belongs to somebody else.
    """
    target = Origin.of(realm)
    if "@" in urlsplit(realm).netloc:
        raise BadAnswer(f"{registry}: the address of its token service, {redact(realm)}, has a user in it")
    if registry.scheme == "https" and target.scheme != "https":
        raise BadAnswer(f"{registry}: refused to be sent from https to the token service {redact(realm)}")
    if target in allowed:
        return realm
    check_hop(registry, target)
    is_same_host = target.host == registry.host
    if is_same_host or (target.scheme == "https" and are_of_one_owner(registry.host, target.host)):
        return realm
    raise BadAnswer(
        f"{registry}: it names a token service on another host, {redact(realm)}, which is not shown our credentials;"
        f' if that is right, set token_realms = ["{target}"] for it in hosts.toml'
    )


def are_of_one_owner(registry: str, service: str) -> bool:
    """Whether two different host names can only belong to one owner."""
    if (registry, service) in _KNOWN:
        return True
    names = (registry, service)
    if any(_is_address(name) or "." not in name.strip(".") or name.endswith(".") for name in names):
        return False
    if registry.endswith(f".{service}") or service.endswith(f".{registry}"):
        return True  # who owns a domain decides about everything below it
    return _registrable(registry) is not None and _registrable(registry) == _registrable(service)


def _registrable(host: str) -> str | None:
    domain: str | None = _suffixes().privatesuffix(host)
    return None if domain in _SHARED else domain


@cache
def _suffixes() -> PublicSuffixList:
    from publicsuffixlist import PublicSuffixList  # noqa: PLC0415 (50 ms, and few registries need it)

    return PublicSuffixList(accept_unknown=False)


def _is_address(host: str) -> bool:
    with suppress(ValueError):
        return bool(ipaddress.ip_address(host))
    return False
