"""Proxies, as the environment names them: ``HTTPS_PROXY``, ``HTTP_PROXY``, ``ALL_PROXY``, ``NO_PROXY``, in either case.

Rule: Go's reading of these variables, which docker, podman and crane share: ``NO_PROXY`` lists hosts (with all below
them), ``.domain`` (only below it), addresses, networks, each perhaps with a port, or ``*``. Loopback is never proxied.
``ALL_PROXY``, which Go does not know, is read as curl does: it stands in for each of the first two that is not set.
Proxies are spoken to in plain HTTP, as nearly all are; what is meant for an HTTPS registry passes them encrypted.
``HTTP_PROXY`` in capitals is ignored where ``REQUEST_METHOD`` shows that a web server set it (CVE-2016-5385).
"""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Mapping
from contextlib import suppress
from typing import Self
from urllib.parse import unquote, urlsplit

from moorage.puller.errors import BadAnswer, HostsInvalid
from moorage.puller.origins import Origin, is_loopback
from moorage.puller.route import Proxy
from moorage.registry.oci.values import dataclass

__all__ = ["Proxies"]


@dataclass(frozen=True, slots=True)
class Proxies:
    """Which proxy leads to which origin. ``direct``: the entries of ``NO_PROXY``."""

    http: Proxy | None = None
    https: Proxy | None = None
    direct: tuple[str, ...] = ()

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Self:
        """What the variables say.

        Raises:
            HostsInvalid: one of them is no proxy's address.
        """
        plain = ("http_proxy",) if "REQUEST_METHOD" in environment else ("HTTP_PROXY", "http_proxy")
        general = ("ALL_PROXY", "all_proxy")
        listed = environment.get("NO_PROXY") or environment.get("no_proxy") or ""
        direct = tuple(entry.strip().lower() for entry in listed.split(",") if entry.strip())
        secure = ("HTTPS_PROXY", "https_proxy")
        return cls(_first(environment, (*plain, *general)), _first(environment, (*secure, *general)), direct)

    def of_origin(self, origin: Origin) -> Proxy | None:
        """The proxy to take to ``origin``; None: go straight there."""
        proxy = self.https if origin.scheme == "https" else self.http
        if proxy is None or is_loopback(origin.host) or any(_means(entry, origin) for entry in self.direct):
            return None
        return proxy


def _first(environment: Mapping[str, str], variables: tuple[str, ...]) -> Proxy | None:
    for variable in variables:
        if value := environment.get(variable):
            return _read_proxy(variable, value)
    return None


def _read_proxy(variable: str, value: str) -> Proxy:
    url = value if "://" in value else f"http://{value}"
    try:
        origin, parts = Origin.of(url), urlsplit(url)
        is_plain = origin.scheme == "http"
    except BadAnswer:
        is_plain = False
    if not is_plain:  # the value may hold a password: it is not shown
        raise HostsInvalid(f"the variable {variable} is not the address of an HTTP proxy, http://host:port")
    if parts.username is None:
        return Proxy(origin)
    login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return Proxy(origin, "Basic " + base64.b64encode(login.encode()).decode())


def _means(entry: str, origin: Origin) -> bool:
    if entry == "*":
        return True
    host, port = entry, ""
    if not entry.count(":") > 1 or entry.startswith("["):
        head, colon, tail = entry.rpartition(":")
        host, port = (head, tail) if colon and tail.isascii() and tail.isdigit() else (entry, "")
    host = host.strip("[]")
    if port and int(port) != origin.port:
        return False
    with suppress(ValueError):
        address = ipaddress.ip_address(origin.host)
        with suppress(ValueError):
            return address in ipaddress.ip_network(host, strict=False)
        return False
    return origin.host.endswith(f".{host.lstrip('*').lstrip('.')}") or origin.host == host
