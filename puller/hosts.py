"""How registries are reached: one small file, and the proxies of the environment.

The file is ``hosts.toml`` in ``$MOORAGE_CONFIG_DIR``, else ``$XDG_CONFIG_HOME/moorage``, else ``~/.config/moorage``. A
table is a registry, named as references name it::

    ["docker.io"]
    mirrors = ["mirror.example:5000", "harbor.example/hub"]   # asked first, in this order; only for pulls

    ["registry.example"]
    ca = "own-ca.pem"                # trusted for this registry besides the system's authorities
    client_cert = "me.pem"           # shown to this registry; client_key where the file does not hold the key
    token_realms = ["https://auth.example"]                   # token services elsewhere that may see its credentials

    ["old.example:5000"]
    plain_http = true                # or: insecure = true, HTTPS with whatever certificate

Law: nothing is guessed: an unknown setting is refused and the nearest known one is named. What is relaxed for one
registry holds for that scheme, host and port and for nothing it refers us to (rule N3).
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit

from moorage.puller.errors import HostsInvalid
from moorage.puller.origins import Origin, is_loopback
from moorage.puller.proxies import Proxies
from moorage.puller.route import Route

__all__ = ["Host", "HostConfig", "Mirror"]

_DOCKER_HUB = "registry-1.docker.io"
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


@dataclass(frozen=True, slots=True)
class _Table:
    """One table of the file, as it stands there."""

    mirrors: tuple[str, ...] = ()
    plain_http: bool | None = None
    ca: str = ""
    insecure: bool = False
    client_cert: str = ""
    client_key: str = ""
    token_realms: tuple[str, ...] = ()


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _is_switch(value: object) -> bool:
    return isinstance(value, bool)


_KINDS: Mapping[str, tuple[Callable[[object], bool], str]] = {
    "mirrors": (_are_texts, "a list of texts"),
    "plain_http": (_is_switch, "true or false"),
    "ca": (_is_text, "a text"),
    "insecure": (_is_switch, "true or false"),
    "client_cert": (_is_text, "a text"),
    "client_key": (_is_text, "a text"),
    "token_realms": (_are_texts, "a list of texts"),
}


class HostConfig:
    """What is configured about registries. Make one with ``load`` or ``empty``."""

    def __init__(self, hosts: Mapping[str, tuple[Host, _Table]], proxies: Proxies, *, path: str = "") -> None:
        self._hosts, self._proxies, self.path = hosts, proxies, path
        self._tables = {host.origin: (host.registry, table) for host, table in hosts.values()}
        self._routes: dict[Origin, Route] = {}

    @classmethod
    def empty(cls) -> Self:
        """Nothing configured, and no proxies."""
        return cls({}, Proxies())

    @classmethod
    def load(cls, environment: Mapping[str, str] | None = None) -> Self:
        """What the file and the environment say; without a file, nothing is configured.

        Raises:
            HostsInvalid: the file or a variable says something that cannot be meant.
        """
        environment = os.environ if environment is None else environment
        path = _path_of(environment)
        hosts = {}
        for name, table in _read_file(path).items():
            host, raw = _read_table(path, name, table)
            if host.registry in hosts:
                raise HostsInvalid(f"{path}: [{name!r}] is a registry that another table describes")
            hosts[host.registry] = (host, raw)
        return cls(hosts, Proxies.of(environment), path=path)

    def of(self, registry: str) -> Host:
        """How the registry at ``host`` or ``host:port`` is reached."""
        name = _canonical(registry)
        found = self._hosts.get(name)
        return found[0] if found else Host(name, Origin.of_registry(name))

    def route(self, origin: Origin) -> Route:
        """Whom to trust at an origin, and through which proxy it is reached.

        Raises:
            HostsInvalid: a file of certificates or keys cannot be used.
        """
        if origin not in self._routes:
            name, table = self._tables.get(origin, ("", None))
            tls = _trust(self.path, name, table) if table is not None else None
            self._routes[origin] = Route(tls, self._proxies.of_origin(origin))
        return self._routes[origin]


def _read_file(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            import tomllib  # noqa: PLC0415 (most people have no such file)

            return tomllib.load(file)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as exc:
        raise HostsInvalid(f"{path}: cannot be read: {exc}") from None


def _path_of(environment: Mapping[str, str]) -> str:
    home = environment.get("HOME") or os.path.expanduser("~")
    common = environment.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")
    return os.path.join(environment.get("MOORAGE_CONFIG_DIR") or os.path.join(common, "moorage"), "hosts.toml")


def _canonical(registry: str) -> str:
    return _DOCKER_HUB if registry in _DOCKER_HUB_NAMES else registry.lower()


def _read_table(path: str, name: str, values: object) -> tuple[Host, _Table]:
    where = f"{path}: [{name!r}]"
    if _split(name)[1] or not isinstance(values, dict):
        raise HostsInvalid(f'{where}: expected a table for each registry, such as ["registry.example:5000"]')
    table = _checked(where, values)
    registry = _canonical(name)
    scheme = {None: Origin.of_registry(registry).scheme, True: "http", False: "https"}[table.plain_http]
    origin = Origin.of(f"{scheme}://{registry}")
    mirrors = tuple(_read_mirror(where, text) for text in table.mirrors)
    realms = tuple(_read_realm(where, text) for text in table.token_realms)
    return Host(registry, origin, mirrors, realms, tuple(_remarks(path, origin, table))), table


def _checked(where: str, values: Mapping[str, Any]) -> _Table:
    """The values of a table, each of the right type, and none that contradicts another."""
    for name, value in values.items():
        if name not in _KINDS:
            hint = f'in quotes, ["registry.example"], a name is one table; {_nearest(name)}'
            raise HostsInvalid(
                f"{where}: unknown setting {name!r}; {hint if isinstance(value, dict) else _nearest(name)}"
            )
        fits, expected = _KINDS[name]
        if not fits(value):
            raise HostsInvalid(f"{where}: {name}: expected {expected}, got {value!r}")
    settings: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
    table = _Table(**settings)
    if table.plain_http and (table.ca or table.insecure or table.client_cert):
        raise HostsInvalid(f"{where}: plain_http goes without ca, insecure and client_cert, which are about HTTPS")
    if table.insecure and table.ca:
        raise HostsInvalid(f"{where}: insecure (any certificate will do) and ca (this one must) exclude each other")
    if table.client_key and not table.client_cert:
        raise HostsInvalid(f"{where}: client_key needs client_cert")
    return table


def _nearest(name: str) -> str:
    from difflib import get_close_matches  # noqa: PLC0415 (needed once in a lifetime)

    return f"the nearest known one is {get_close_matches(name, _KINDS, n=1, cutoff=0.0)[0]}"


def _read_mirror(where: str, text: str) -> Mirror:
    registry, prefix = _split(text)
    if not registry:
        raise HostsInvalid(f"{where}: mirrors: expected host[:port] or host[:port]/namespace, got {text!r}")
    return Mirror(_canonical(registry), prefix)


def _read_realm(where: str, text: str) -> Origin:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.path not in ("", "/") or "@" in parts.netloc:
        raise HostsInvalid(f"{where}: token_realms: expected https://host or https://host:port, got {text!r}")
    return Origin.of(text)


def _split(text: str) -> tuple[str, str]:
    """Host with port, and what follows; the host is empty where it is none."""
    try:
        parts = urlsplit(f"//{text}")
        is_host = bool(parts.hostname) and parts.port != 0 and "@" not in parts.netloc and "://" not in text
    except ValueError:
        is_host = False
    return (parts.netloc, parts.path.strip("/")) if is_host and not parts.query + parts.fragment else ("", text)


def _remarks(path: str, origin: Origin, table: _Table) -> Iterator[str]:
    if table.insecure:
        yield f"{origin}: its certificate is not verified ({path}: insecure)"
    if origin.scheme == "http" and not is_loopback(origin.host):
        yield f"{origin}: everything, the login too, crosses the network in the open ({path}: plain_http)"


def _trust(path: str, name: str, table: _Table) -> ssl.SSLContext | None:
    """The context for a registry with certificates of its own; None where the system's trust will do."""
    if not (table.ca or table.insecure or table.client_cert):
        return None
    context = ssl.create_default_context()
    if table.insecure:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if table.ca:
        with _naming(path, name, "ca"):
            context.load_verify_locations(_located(path, table.ca))
    if table.client_cert:
        key = _located(path, table.client_key) if table.client_key else None
        with _naming(path, name, "client_cert"):
            context.load_cert_chain(_located(path, table.client_cert), key, password=_no_password)
    return context


def _located(path: str, file: str) -> str:
    """A file that the configuration names: relative to the configuration, not to where we happen to be."""
    return os.path.join(os.path.dirname(os.path.abspath(path)), os.path.expanduser(file))


def _no_password() -> str:
    raise ValueError("the key is encrypted, which is not supported")


@contextmanager
def _naming(path: str, name: str, setting: str) -> Iterator[None]:
    """Turns a failure to read certificates into one line."""
    try:
        yield
    except (OSError, ValueError) as exc:  # ssl.SSLError is an OSError, and some have no text
        reason = (exc.strerror or "it cannot be used") if isinstance(exc, OSError) else exc
        raise HostsInvalid(f"{path}: [{name!r}]: {setting}: {reason}") from exc
