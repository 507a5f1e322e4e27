"""The server's settings: flags go before the environment (``MOORAGE_*``), that before a YAML file, it before defaults.

Law: nothing is guessed. A key that nobody knows, in the file or among the ``MOORAGE_*`` variables, refuses to start and
names the nearest one that is known; a wrong value says which setting, from where, and what was expected.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn
from urllib.parse import urlsplit

import msgspec
import yaml

__all__ = ["CLIENT_VARIABLES", "Address", "Loaded", "Networks", "Settings", "SettingsError", "load_settings"]

CLIENT_VARIABLES: Final = frozenset(
    {
        "MOORAGE_STORE",
        "MOORAGE_CONFIG_DIR",
        "MOORAGE_REGISTRY",
        "MOORAGE_USERNAME",
        "MOORAGE_PASSWORD",
        "MOORAGE_OIDC_TOKEN",
        "MOORAGE_OIDC_TOKEN_FILE",
    }
)
"""Variables of the client verbs: known, and none of the server's business."""

_CONFIG_VARIABLE: Final = "MOORAGE_CONFIG"
_SERVICE = re.compile(
    "MOORAGE_(?:[A-Z0-9_]+_)?(?:"
    "SERVICE_HOST=|SERVICE_PORT(?:_[A-Z0-9_]+)?=|PORT=[a-z]+://|PORT_[0-9]+_[A-Z]+(?:_(?:PROTO|PORT|ADDR))?="
    ").*"
)
"""Kubernetes tells every pod of every service so: of one that is called moorage, or moorage-registry, too."""
_ADDRESS = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.%a-z]+)\]|(?P<host>[A-Za-z0-9_.-]+)):(?P<port>[0-9]{1,5})")
_HOST = re.compile(r"(?:[A-Za-z0-9_.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_DURATION = re.compile(r"(?P<number>[0-9]{1,9}(?:\.[0-9]{1,3})?)(?P<unit>ms|s|m|h|d|)")
_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class SettingsError(Exception):
    """A setting is wrong; the message is one line for the operator."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen. ``host``: a name or an IP address, without brackets; ``port`` 0: any free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Networks:
    """Networks of IP addresses; what is no address lies in none."""

    networks: tuple[Network, ...] = ()

    def __contains__(self, address: str) -> bool:
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        plain = getattr(parsed, "ipv4_mapped", None) or parsed
        return any(plain in network for network in self.networks if network.version == plain.version)

    def __bool__(self) -> bool:
        return bool(self.networks)

    def __str__(self) -> str:
        return ",".join(map(str, self.networks)) or "none"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that can be set. Durations are seconds."""

    root: str = "./moorage-data"
    listen: Address = Address("127.0.0.1", 5000)
    workers: int = 2
    allow_sparse: bool = False
    read_only: bool = False
    no_delete: bool = False
    redirect: bool = True
    upload_ttl: float = 24 * 3600.0
    drain_delay: float = 5.0
    drain_timeout: float = 30.0
    tls_cert: str | None = None
    tls_key: str | None = None
    htpasswd: str | None = None
    auth: str | None = None
    signing_key: str | None = None
    external_url: str | None = None
    trusted_proxies: Networks = Networks()
    audit_log: str | None = None
    access_log: bool = True
    log_level: str = "info"

    @property
    def has_login(self) -> bool:
        """Whether callers are asked who they are."""
        return self.htpasswd is not None or self.auth is not None

    @property
    def signing_key_file(self) -> str:
        """Where the signing key is: beside a root directory, unless that is said (DESIGN 8)."""
        return self.signing_key or f"{os.path.abspath(self.root)}.key"


@dataclass(frozen=True, slots=True)
class Loaded:
    """The settings, and for each where its value came from (``config check`` shows it)."""

    settings: Settings
    sources: Mapping[str, str]


def load_settings(flags: Mapping[str, object], environment: Mapping[str, str], *, config: str | None = None) -> Loaded:
    """Puts the settings together.

    Args:
        flags: settings given on the command line, by name.
        environment: the process's environment.
        config: a YAML file; None: the one that ``MOORAGE_CONFIG`` names, if any.

    Raises:
        SettingsError: something is wrong with one of them.
    """
    file = config or environment.get(_CONFIG_VARIABLE)
    raw: dict[str, tuple[object, str]] = {}
    if file is not None:
        raw |= {name: (value, f"file {file}") for name, value in _read_file(file).items()}
    raw |= {name: (value, f"variable {variable}") for name, variable, value in _read_environment(environment)}
    raw |= {name: (value, f"flag --{name.replace('_', '-')}") for name, value in flags.items()}
    values = {name: _convert(name, value, source) for name, (value, source) in raw.items()}
    settings = Settings(**values)
    if (settings.tls_cert is None) != (settings.tls_key is None):
        raise SettingsError("tls_cert and tls_key go together: set both or none")
    _check_login(settings)
    if settings.root.startswith("memory:") and settings.workers > 1:
        raise SettingsError("what a worker has in memory, others have not: with the root memory: set workers to 1")
    sources = {name: raw[name][1] if name in raw else "default" for name in Settings.__struct_fields__}
    return Loaded(settings, sources)


def _check_login(settings: Settings) -> None:
    if settings.htpasswd is not None and settings.auth is not None:
        raise SettingsError("htpasswd and auth exclude each other: name the htpasswd file in the auth file")
    if settings.has_login and settings.signing_key is None and re.match("[a-z0-9]+:", settings.root):
        raise SettingsError("with a root that is no directory, set signing_key: one file for all replicas")
    for name in ("signing_key", "audit_log"):
        if getattr(settings, name) is not None and not settings.has_login:
            raise SettingsError(f"{name} is of use only together with htpasswd or auth")


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice, of which PyYAML would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        mapping = super().construct_mapping(node, deep=deep)
        if len(mapping) != len(node.value):
            raise yaml.constructor.ConstructorError(None, None, "a key stands twice", node.start_mark)
        return mapping


def _read_file(path: str) -> dict[str, object]:
    try:
        with open(path, "rb") as file:
            document = yaml.load(file, _Loader)  # noqa: S506  # a safe loader, stricter than PyYAML's
    except OSError as exc:
        raise SettingsError(f"cannot read the file {path}: {exc.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as exc:
        raise SettingsError(f"{path} is not YAML: {' '.join(str(exc).split())}") from None
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise SettingsError(f"{path}: expected settings as 'name: value' lines")
    for name in document:
        if name not in Settings.__struct_fields__:
            _unknown(f"{path}: unknown setting {name!r}", str(name), Settings.__struct_fields__)
    return document


def _read_environment(environment: Mapping[str, str]) -> Iterable[tuple[str, str, str]]:
    known = {f"MOORAGE_{name.upper()}": name for name in Settings.__struct_fields__}
    for variable, value in sorted(environment.items()):
        if variable in known:
            yield known[variable], variable, value
        elif variable.startswith("MOORAGE_") and not _is_of_others(variable, value):
            _unknown(f"unknown variable {variable}", variable, (*known, _CONFIG_VARIABLE))


def _is_of_others(variable: str, value: str) -> bool:
    return (
        variable in CLIENT_VARIABLES
        or variable == _CONFIG_VARIABLE
        or _SERVICE.fullmatch(f"{variable}={value}") is not None
    )


def _unknown(text: str, name: str, known: Iterable[str]) -> NoReturn:
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
    raise SettingsError(f"{text}; the nearest known one is {nearest[0]}")


def _convert(name: str, value: object, source: str) -> Any:
    try:
        return _READERS[name](value)
    except ValueError as exc:
        raise SettingsError(f"{name} ({source}): expected {exc}, got {value!r}") from None


def _text(value: object) -> str:
    if isinstance(value, str) and value and value.isprintable():
        return value
    raise ValueError("a text")


def _switch(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "false", "1", "0", "yes", "no", "on", "off"):
        return value.lower() in ("true", "1", "yes", "on")
    raise ValueError("true or false")


def _workers(value: object) -> int:
    if isinstance(value, str) and re.fullmatch("[0-9]{1,4}", value):
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 256:
        return value
    raise ValueError("a number from 1 to 256")


def _seconds(value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e9:
        return float(value)
    if isinstance(value, str) and (match := _DURATION.fullmatch(value)):
        return float(match["number"]) * _UNITS[match["unit"]]
    raise ValueError("a duration such as 24h, 30m or 3600")


def _positive_seconds(value: object) -> float:
    seconds = _seconds(value)
    if seconds <= 0:
        raise ValueError("a duration above zero, such as 24h, 30m or 3600")
    return seconds


def _address(value: object) -> Address:
    match = _ADDRESS.fullmatch(value) if isinstance(value, str) else None
    if match is None or int(match["port"]) > 65535:
        raise ValueError("HOST:PORT, such as 127.0.0.1:5000 or [::1]:5000")
    return Address(match["six"] or match["host"], int(match["port"]))


def _url(value: object) -> str:
    parsed = urlsplit(value) if isinstance(value, str) and value.isascii() and value.isprintable() else None
    if parsed is None or parsed.scheme not in ("http", "https") or not _HOST.fullmatch(parsed.netloc):
        raise ValueError("a URL such as https://registry.example.org")
    if parsed.path.strip("/") or parsed.query or parsed.fragment:
        raise ValueError("a URL without a path, since /v2/ is at the root of a host")
    return f"{parsed.scheme}://{parsed.netloc.lower()}"


def _networks(value: object) -> Networks:
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list) or not parts or not all(isinstance(part, str) for part in parts):
        raise ValueError("networks such as 10.0.0.0/8,192.0.2.7")
    try:
        return Networks(tuple(ipaddress.ip_network(part.strip()) for part in parts))
    except ValueError as exc:
        raise ValueError(f"networks such as 10.0.0.0/8,192.0.2.7 ({exc})") from None


def _level(value: object) -> str:
    if isinstance(value, str) and value.lower() in ("debug", "info", "warning", "error"):
        return value.lower()
    raise ValueError("debug, info, warning or error")


_READERS: Final[Mapping[str, Callable[[object], Any]]] = {
    "root": _text,
    "listen": _address,
    "workers": _workers,
    "allow_sparse": _switch,
    "read_only": _switch,
    "no_delete": _switch,
    "redirect": _switch,
    "upload_ttl": _positive_seconds,
    "drain_delay": _seconds,
    "drain_timeout": _seconds,
    "tls_cert": _text,
    "tls_key": _text,
    "htpasswd": _text,
    "auth": _text,
    "signing_key": _text,
    "external_url": _url,
    "trusted_proxies": _networks,
    "audit_log": _text,
    "access_log": _switch,
    "log_level": _level,
}
