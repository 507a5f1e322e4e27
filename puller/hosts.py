"""How registries are reached: one small file (``hosts_file``), and the proxies of the environment.

The file is ``hosts.toml`` in ``$MOORAGE_CONFIG_DIR``, else ``$XDG_CONFIG_HOME/moorage``, else ``~/.config/moorage``.
Law: what is relaxed for one registry holds for that scheme, host and port, and for nothing that it refers us to (N3).
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Mapping
from typing import Self

from moorage.puller.origins import Origin, is_loopback
from moorage.puller.route import Proxy, Route
from moorage.registry.oci.values import dataclass

__all__ = ["FindProxy", "Host", "HostConfig", "MakeTrust", "Mirror", "canonical"]

_DOCKER_HUB = "registry-1.docker.io"
_PROXY_VARIABLES = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")
_DOCKER_HUB_NAMES = frozenset({"docker.io", "index.docker.io", _DOCKER_HUB})


@dataclass(frozen=True, slots=True)
class Mirror:
    """A registry that has what another one has, perhaps below a namespace. ``prefix``: that, or empty."""

    registry: str
    prefix: str = ""

    def __str__(self) -> str:
        return f"{self.registry}/{self.prefix}" if self.prefix else self.registry

    def name_of(self, repository: str) -> str:
        """The mirror's name for a repository."""
        return f"{self.prefix}/{repository}" if self.prefix else repository


@dataclass(frozen=True, slots=True)
class Host:
    """How one registry is reached. ``realms``: token services elsewhere that may see its credentials."""

    registry: str
    origin: Origin
    mirrors: tuple[Mirror, ...] = ()
    realms: tuple[Origin, ...] = ()
    remarks: tuple[str, ...] = ()
    """What a person should know who relies on it: that nothing proves who answers."""


MakeTrust = Callable[[], ssl.SSLContext | None]
"""Makes the context of a registry that has certificates of its own; None where the system's trust will do."""

FindProxy = Callable[[Origin], Proxy | None]


class HostConfig:
    """What is configured about registries. Make one with ``load`` or ``empty``."""

    def __init__(
        self, hosts: Mapping[str, Host], trust: Mapping[Origin, MakeTrust], find_proxy: FindProxy, *, path: str = ""
    ) -> None:
        self._hosts, self._trust, self._find_proxy, self.path = hosts, trust, find_proxy, path
        self._routes: dict[Origin, Route] = {}

    def __repr__(self) -> str:
        return f"<HostConfig {self.path or 'of nothing'}>"

    @classmethod
    def empty(cls) -> Self:
        """Nothing configured, and no proxies."""
        return cls({}, {}, _go_straight)

    @classmethod
    def load(cls, environment: Mapping[str, str] | None = None) -> Self:
        """What the file and the environment say; without a file, nothing is configured.

        Raises:
            HostsInvalid: the file or a variable says something that cannot be meant.
        """
        environment = os.environ if environment is None else environment
        path, find_proxy = _path_of(environment), _find_proxy_in(environment)
        if not os.path.lexists(path):
            return cls({}, {}, find_proxy)
        from moorage.puller.hosts_file import read_hosts  # noqa: PLC0415 (most people have no such file)

        return cls(*read_hosts(path), find_proxy, path=path)

    def of(self, registry: str) -> Host:
        """How the registry at ``host`` or ``host:port`` is reached."""
        name = canonical(registry)
        return self._hosts.get(name) or Host(name, Origin.of_registry(name))

    def route(self, origin: Origin) -> Route:
        """Whom to trust at an origin, and through which proxy it is reached.

        Raises:
            HostsInvalid: a file of certificates or keys cannot be used.
        """
        if origin not in self._routes:
            make = self._trust.get(origin)
            self._routes[origin] = Route(make() if make else None, self._find_proxy(origin))
        return self._routes[origin]


def canonical(registry: str) -> str:
    """The one name of a registry: lower case; Docker Hub has several."""
    return _DOCKER_HUB if registry in _DOCKER_HUB_NAMES else registry.lower()


def _path_of(environment: Mapping[str, str]) -> str:
    home = environment.get("HOME") or os.path.expanduser("~")
    common = environment.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")
    return os.path.join(environment.get("MOORAGE_CONFIG_DIR") or os.path.join(common, "moorage"), "hosts.toml")


def _find_proxy_in(environment: Mapping[str, str]) -> FindProxy:
    if not any(environment.get(name) for name in _PROXY_VARIABLES):
        return _go_straight

    def find(origin: Origin) -> Proxy | None:
        if is_loopback(origin.host):  # never proxied, so what the variables say does not matter
            return None
        from moorage.puller.proxies import Proxies  # noqa: PLC0415 (most people have none)

        return Proxies.of(environment).of_origin(origin)

    return find


def _go_straight(origin: Origin) -> None:
    """The way of those who have no proxy."""
