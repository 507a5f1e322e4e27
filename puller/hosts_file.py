"""The file about registries: ``hosts.toml``.

A table is a registry, named as references name it::

    ["docker.io"]
    mirrors = ["mirror.example:5000", "harbor.example/hub"]   # asked first, in this order; only for pulls

    ["registry.example"]
    ca = "own-ca.pem"                # trusted for this registry besides the system's authorities
    client_cert = "me.pem"           # shown to this registry; client_key where the file does not hold the key
    token_realms = ["https://auth.example"]                   # token services elsewhere that may see its credentials

    ["old.example:5000"]
    plain_http = true                # or: insecure = true, HTTPS with whatever certificate

Loopback speaks plain HTTP, unless its table says something about certificates, or plain_http = false.

Law: nothing is guessed: an unknown setting is refused and the nearest known one is named. Paths start at the file.
Loaded where there is such a file; most people have none.
"""

from __future__ import annotations

import os
import re
import ssl
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from functools import partial
from typing import Any

from moorage.puller.errors import BadAnswer, HostsInvalid
from moorage.puller.hosts import Host, MakeTrust, Mirror, canonical
from moorage.puller.origins import Origin, is_loopback
from moorage.registry.oci import NameInvalid, RepositoryName
from moorage.registry.oci.values import dataclass

__all__ = ["read_hosts"]

_HOST = re.compile(r"(?:\[[0-9a-fA-F:.]+\]|[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?)(?::[0-9]{1,5})?")
"""As references have it."""


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

    @property
    def is_about_tls(self) -> bool:
        """Whether something is said that only HTTPS has a use for."""
        return bool(self.ca or self.insecure or self.client_cert)


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


def read_hosts(path: str) -> tuple[dict[str, Host], dict[Origin, MakeTrust]]:
    """The registries that the file describes, by name, and what makes the trust in each origin.

    Raises:
        HostsInvalid: it says something that cannot be meant.
    """
    try:
        with open(path, "rb") as file:
            document = tomllib.load(file)
    except (OSError, ValueError) as exc:
        raise HostsInvalid(f"{path}: cannot be read: {exc}") from None
    hosts: dict[str, Host] = {}
    trust: dict[Origin, MakeTrust] = {}
    for name, values in document.items():
        host, table = _read_table(path, name, values)
        if host.registry in hosts:
            raise HostsInvalid(f"{path}: [{name!r}] is a registry that another table describes")
        hosts[host.registry] = host
        trust[host.origin] = partial(_trust, path, name, table)
    return hosts, trust


def _read_table(path: str, name: str, values: object) -> tuple[Host, _Table]:
    where = f"{path}: [{name!r}]"
    if _HOST.fullmatch(name) is None or not isinstance(values, dict):
        raise HostsInvalid(f'{where}: expected a table for each registry, such as ["registry.example:5000"]')
    table = _checked(where, values)
    registry = canonical(name)
    usual = "http" if is_loopback(_origin(where, "https", registry).host) and not table.is_about_tls else "https"
    origin = _origin(where, {None: usual, True: "http", False: "https"}[table.plain_http], registry)
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
    if table.plain_http and table.is_about_tls:
        raise HostsInvalid(f"{where}: plain_http goes without ca, insecure and client_cert, which are about HTTPS")
    if table.insecure and table.ca:
        raise HostsInvalid(f"{where}: insecure (any certificate will do) and ca (this one must) exclude each other")
    if table.client_key and not table.client_cert:
        raise HostsInvalid(f"{where}: client_key needs client_cert")
    return table


def _nearest(name: str) -> str:
    return f"the nearest known one is {get_close_matches(name, _KINDS, n=1, cutoff=0.0)[0]}"


def _read_mirror(where: str, text: str) -> Mirror:
    registry, slash, prefix = text.partition("/")
    try:
        named = str(RepositoryName.parse(prefix)) if slash else ""
    except NameInvalid:
        registry = ""
    if _HOST.fullmatch(registry) is None:
        raise HostsInvalid(f"{where}: mirrors: expected host[:port] or host[:port]/namespace, got {text!r}")
    return Mirror(canonical(registry), named)


def _read_realm(where: str, text: str) -> Origin:
    scheme, separator, host = text.removesuffix("/").partition("://")
    if scheme not in ("http", "https") or not separator or _HOST.fullmatch(host) is None:
        raise HostsInvalid(f"{where}: token_realms: expected https://host or https://host:port, got {text!r}")
    return _origin(where, scheme, host)


def _origin(where: str, scheme: str, host: str) -> Origin:
    try:
        return Origin.of(f"{scheme}://{host}")
    except BadAnswer:
        raise HostsInvalid(f"{where}: {host!r} is no address") from None


def _remarks(path: str, origin: Origin, table: _Table) -> Iterator[str]:
    if table.insecure:
        yield f"{origin}: its certificate is not verified ({path}: insecure)"
    if origin.scheme == "http" and not is_loopback(origin.host):
        yield f"{origin}: everything, the login too, crosses the network in the open ({path}: plain_http)"


def _trust(path: str, name: str, table: _Table) -> ssl.SSLContext | None:
    """The context for a registry with certificates of its own; None where the system's trust will do."""
    if not table.is_about_tls:
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
