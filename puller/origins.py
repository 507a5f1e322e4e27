"""Origins: scheme, host and port, the unit that secrets are bound to (rule N2).

Rule: loopback registries speak plain HTTP, every other one HTTPS; nothing falls back from one to the other (rule N3).
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urljoin, urlsplit

from moorage.puller.errors import BadAnswer
from moorage.registry.oci.values import dataclass

__all__ = ["Origin", "check_hop", "follow", "is_loopback", "is_machine_local", "is_public", "redact"]

_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Origin:
    """Where secrets may go: exactly here."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Origin:
        """The origin of an absolute http or https URL.

        Raises:
            BadAnswer: it is no such URL.
        """
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port = None, None
        if not host or parts.scheme not in _PORTS:
            raise BadAnswer(f"not an http(s) URL: {redact(url)}")
        return cls(parts.scheme, host, _PORTS[parts.scheme] if port is None else port)

    @classmethod
    def of_registry(cls, registry: str) -> Origin:
        """The origin of a registry named as in references: ``host`` or ``host:port``."""
        host = urlsplit(f"//{registry}").hostname or ""
        return cls.of(f"{'http' if is_loopback(host) else 'https'}://{registry}")

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}" + ("" if self.port == _PORTS[self.scheme] else f":{self.port}")


def is_loopback(host: str) -> bool:
    """True for ``localhost``, 127.0.0.0/8 and ::1; no name is looked up."""
    address = _parse_address(host)
    return host == "localhost" if address is None else address.is_loopback


def is_machine_local(host: str) -> bool:
    """True for loopback and for link-local addresses, where clouds keep their secrets; no name is looked up."""
    address = _parse_address(host)
    return is_loopback(host) or (address is not None and address.is_link_local)


def is_public(host: str) -> bool:
    """False for an address, or the name ``localhost``, that only this machine or this network knows; no look-up."""
    address = _parse_address(host)
    return not is_loopback(host) and (address is None or address.is_global)


def check_hop(here: Origin, there: Origin) -> None:
    """Accepts that a registry at ``here`` sends us to ``there`` (redirect, upload Location, token service).

    Raises:
        BadAnswer: https would be left for http, or an outside registry points at this machine.
    """
    if here.scheme == "https" and there.scheme == "http":
        raise BadAnswer(f"{here}: refused to be sent from https to {there}")
    if is_machine_local(there.host) and not is_machine_local(here.host):
        raise BadAnswer(f"{here}: refused to be sent to {there}, an address of this machine")


def follow(base: str, location: str) -> str:
    """The absolute URL that the answer of ``base`` means by ``location``.

    Raises:
        BadAnswer: it is no URL, or leads where we do not go (``check_hop``).
    """
    try:
        target = urljoin(base, location)
    except ValueError:
        raise BadAnswer(f"{redact(base)}: sends us to what is no URL") from None
    check_hop(Origin.of(base), Origin.of(target))
    return target


def redact(url: str) -> str:
    """The URL without user, password, query and fragment: what may be shown and logged."""
    head, mark, _ = url.partition("?")
    scheme, separator, rest = head.partition("#")[0].rpartition("://")
    authority, slash, path = rest.partition("/")
    return f"{scheme}{separator}{authority.rpartition('@')[2]}{slash}{path}{'?…' if mark else ''}"


def _parse_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
