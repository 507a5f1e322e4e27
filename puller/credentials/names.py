"""The names under which docker and podman keep credentials, and which of them mean a registry.

Rule: a name matches an origin only with its host, its port (the usual one where it says none) and, if it has one, its
scheme. ``host/path`` without a scheme is podman's form for a namespace or repository, and the longest that fits wins;
after a scheme the path is docker's relic (``/v1/``) and means nothing, as docker and podman both read it.
"""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

from moorage.puller.credentials.model import DOCKER_HUB, Target
from moorage.registry.oci.values import dataclass

__all__ = ["DOCKER_HUB_KEY", "StoredName", "best_first", "key_of", "servers_of"]

DOCKER_HUB_KEY = "https://index.docker.io/v1/"
"""Where docker keeps the login of Docker Hub."""

_DOCKER_HUB_NAMES = frozenset({"docker.io", "index.docker.io", DOCKER_HUB})
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class StoredName:
    """A key of ``auths`` or ``credHelpers``, taken apart."""

    raw: str
    scheme: str
    host: str
    port: int | None
    namespace: str

    @classmethod
    def parse(cls, raw: str) -> StoredName | None:
        """The name written as ``raw``; None where it names no registry."""
        scheme, separator, rest = raw.rpartition("://")
        try:
            parts = urlsplit(f"//{rest}")
            host, port = parts.hostname, parts.port
        except ValueError:
            return None
        if not host or scheme not in ("", *_PORTS) or "@" in parts.netloc:
            return None
        if host in _DOCKER_HUB_NAMES:
            host = DOCKER_HUB
        return cls(raw, scheme, host, port, "" if separator else parts.path.strip("/"))

    def matches(self, target: Target) -> bool:
        """Whether credentials under this name are for ``target``."""
        origin = target.origin
        port = _PORTS[self.scheme or origin.scheme] if self.port is None else self.port
        is_there = (self.scheme or origin.scheme, self.host, port) == (origin.scheme, origin.host, origin.port)
        return is_there and (not self.namespace or f"{target.repository}/".startswith(f"{self.namespace}/"))


def best_first(names: Iterable[str], target: Target) -> list[str]:
    """The names that mean ``target``: the longest namespace first, then the name that ``login`` writes."""
    parsed = [name for raw in names if (name := StoredName.parse(raw)) is not None and name.matches(target)]
    return [name.raw for name in sorted(parsed, key=lambda name: (-len(name.namespace), name.raw != key_of(target)))]


def key_of(target: Target) -> str:
    """The name under which docker keeps the login to a registry, and under which podman finds it as well."""
    return DOCKER_HUB_KEY if target.is_docker_hub else target.registry


def servers_of(target: Target) -> tuple[str, ...]:
    """The names by which a credential helper may know a registry, the likeliest first."""
    return (DOCKER_HUB_KEY, "index.docker.io", "docker.io") if target.is_docker_hub else (target.registry,)
