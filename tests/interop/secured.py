"""Moorage as people put it on a network: TLS by a private authority, accounts and a policy.

``alice`` may do everything below ``team/`` and ``public/``, ``bob`` may pull below ``team/``, ``carol`` has an account
and no rights, and everybody may pull below ``public/``.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import bcrypt
import httpx
import trustme

from tests.interop.stored import Stored
from tests.servers import MoorageProcess

__all__ = ["ALICE", "BOB", "CAROL", "Authority", "Secured", "account_line", "secured"]

ALICE = ("alice", "s3cret:with colons")
"""Name and password; two clients send the password with the name, between colons."""

BOB = ("bob", "b0b-reads")
CAROL = ("carol", "nobody-knows-her")

POLICY = """\
htpasswd: htpasswd
token_ttl: {ttl}
groups:
  readers: [bob]
rules:
  - name: the team
    who: [alice]
    repositories: ["team/**", "public/**"]
    actions: [pull, push, delete]
  - name: readers
    who: ["group:readers"]
    repositories: ["team/**"]
    actions: [pull]
anonymous:
  - repositories: ["public/**"]
    actions: [pull]
"""


def account_line(user: str, password: str) -> str:
    """A line of an htpasswd file, as cheap as we take it."""
    return f"{user}:{bcrypt.hashpw(password.encode(), bcrypt.gensalt(10)).decode()}\n"


@dataclass(frozen=True)
class Authority:
    """A private certificate authority. ``certificate``: a PEM file."""

    ca: trustme.CA
    certificate: Path

    @classmethod
    def at(cls, place: Path) -> Authority:
        """A new one that keeps its certificate in ``place``."""
        ca, certificate = trustme.CA(), place / "authority.pem"
        ca.cert_pem.write_to_path(certificate)
        return cls(ca, certificate)

    def vouch(self, place: Path, name: str = "127.0.0.1") -> tuple[str, str]:
        """Makes a certificate with its chain, and its key, for a server; returns their paths."""
        issued = self.ca.issue_cert(name)
        chain, key = place / f"{name}.pem", place / f"{name}.key"
        chain.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(key)
        key.chmod(0o600)
        return str(chain), str(key)

    def trust(self) -> ssl.SSLContext:
        """What a client that knows the authority believes."""
        return ssl.create_default_context(cafile=str(self.certificate))


class Guarded(Stored):
    """What a registry holds that asks who one is, read over HTTPS. ``root``: its directory."""

    def __init__(self, url: str, root: Path, *, trust: ssl.SSLContext, login: tuple[str, str]) -> None:
        super().__init__(url, lambda: sum(1 for _ in (root / "data").glob("*/*")))
        self.host = url.removeprefix("https://")
        self._http = httpx.Client(base_url=f"{url}/v2/", trust_env=False, timeout=60, verify=trust, auth=login)


@dataclass(frozen=True)
class Secured:
    """What runs, and what it holds, read as alice."""

    server: MoorageProcess
    authority: Authority
    stored: Stored

    @property
    def host(self) -> str:
        """``127.0.0.1:PORT``."""
        return self.stored.host


@contextmanager
def secured(place: Path, *arguments: str, ttl: int = 300, workers: int = 4) -> Iterator[Secured]:
    """Runs the registry over ``place`` until the block ends. ``ttl``: seconds of a token."""
    place.mkdir(exist_ok=True)
    authority = Authority.at(place)
    (place / "htpasswd").write_text("".join(account_line(*one) for one in (ALICE, BOB, CAROL)))
    (place / "auth.yml").write_text(POLICY.format(ttl=ttl))
    chain, key = authority.vouch(place)
    arguments += ("--audit-log", str(place / "audit.log"))
    words = ("--auth", str(place / "auth.yml"), "--tls-cert", chain, "--tls-key", key, *arguments)
    with MoorageProcess(place / "root", *words, workers=workers) as server:
        stored = Guarded(server.url, place / "root", trust=authority.trust(), login=ALICE)
        yield Secured(server, authority, stored)
        stored.close()
        assert server.process.poll() is None, f"the server did not live to the end: {server.errors}"
