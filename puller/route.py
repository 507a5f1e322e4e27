"""How an origin is reached: whom to trust, and through which proxy."""

from __future__ import annotations

import ssl
from collections.abc import Callable

from moorage.puller.origins import Origin
from moorage.registry.oci.values import dataclass, field

__all__ = ["DIRECT", "FindRoute", "Proxy", "Route", "direct"]


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy. ``authorization``: the value of a Proxy-Authorization header."""

    origin: Origin
    authorization: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Route:
    """How to reach one origin. ``tls``: None trusts what the system trusts; ``proxy``: None goes straight there."""

    tls: ssl.SSLContext | None = None
    proxy: Proxy | None = None

    @property
    def said(self) -> str:
        """What to add to a failure to connect: whom we tried to connect to, where that is not the origin."""
        return f" (through the proxy {self.proxy.origin})" if self.proxy else ""


FindRoute = Callable[[Origin], Route]
"""Gives the route to an origin; asked for every origin by itself, so trust given to one never serves another (N3)."""

DIRECT = Route()


def direct(origin: Origin) -> Route:
    """The route of those who have configured nothing."""
    return DIRECT
