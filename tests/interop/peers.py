"""Other registries, started here, for our client to talk to."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import bcrypt
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from tests.interop.programs import daemon, find
from tests.s3.servers import free_port

__all__ = ["PEERS", "peer", "peer_trusting", "peer_with_tokens", "signer", "token_server"]

PEERS = {"distribution 3": ("registry", "serve"), "Debian's docker-registry": ("docker-registry", "serve")}
"""Name → program and verb. Both read the same kind of configuration file."""


@contextmanager
def peer(name: str, place: Path, *, accounts: Mapping[str, str] | None = None) -> Iterator[str]:
    """Runs a registry over ``place`` on a free port until the block ends; yields its URL.

    Args:
        accounts: the passwords of those who may use it; None: everybody may.
    """
    place.mkdir(parents=True)
    auth = ""
    if accounts is not None:
        auth = f"auth: {{htpasswd: {{realm: 'peer', path: '{_htpasswd(place, accounts)}'}}}}\n"
    with _registry(name, place, auth) as url:
        yield url


@contextmanager
def peer_with_tokens(place: Path, *, accounts: Mapping[str, str]) -> Iterator[str]:
    """Runs Debian's docker-registry with the sample token server of distribution; yields the registry's URL.

    Everybody may do everything below ``NAME/``, and nothing else.
    """
    with token_server(place, accounts=accounts) as (realm, certificate):
        auth = (
            f"auth: {{token: {{realm: '{realm}', service: 'peer', issuer: 'tokens',"
            f" rootcertbundle: '{certificate}'}}}}\n"
        )
        with _registry("Debian's docker-registry", place, auth) as url:
            yield url


@contextmanager
def token_server(place: Path, *, accounts: Mapping[str, str]) -> Iterator[tuple[str, Path]]:
    """Runs the sample token server of distribution; yields where tokens are had, and the certificate of its key.

    Its tokens are those of the issuer ``tokens``; everybody may do everything below ``NAME/``, and nothing else.
    """
    place.mkdir(parents=True)
    address = f"127.0.0.1:{free_port()}"
    key, certificate = signer(place)
    server: list[str | Path] = [find("token-server"), "-addr", address, "-issuer", "tokens", "-realm", "tokens"]
    server += ["-key", key, "-passwd", _htpasswd(place, accounts)]
    with daemon(server, place / "token-log", lambda: _answers(f"http://{address}/token/")):
        yield f"http://{address}/token/", certificate


@contextmanager
def peer_trusting(name: str, place: Path, *, realm: str, service: str, issuer: str, keys: str) -> Iterator[str]:
    """Runs a registry that takes tokens of somebody else's token server; yields its URL.

    Args:
        keys: what it knows the keys by: ``rootcertbundle: FILE`` or ``jwks: FILE``.
    """
    place.mkdir(parents=True)
    auth = f"auth: {{token: {{realm: '{realm}', service: '{service}', issuer: '{issuer}', {keys}}}}}\n"
    with _registry(name, place, auth) as url:
        yield url


@contextmanager
def _registry(name: str, place: Path, auth: str) -> Iterator[str]:
    program, verb = PEERS[name]
    address, config = f"127.0.0.1:{free_port()}", place / "config.yml"
    config.write_text(
        f"version: 0.1\nlog: {{level: error}}\nhttp: {{addr: '{address}'}}\n{auth}"
        f"storage: {{filesystem: {{rootdirectory: {place / 'data'}}}, delete: {{enabled: true}}}}\n"
    )
    with daemon([find(program), verb, config], place / "log", lambda: _answers(f"http://{address}/v2/")):
        yield f"http://{address}"


def _htpasswd(place: Path, accounts: Mapping[str, str]) -> Path:
    lines = (f"{user}:{bcrypt.hashpw(word.encode(), bcrypt.gensalt(5)).decode()}" for user, word in accounts.items())
    (place / "htpasswd").write_text("\n".join(lines))
    return place / "htpasswd"


def signer(place: Path) -> tuple[Path, Path]:
    """A key that signs tokens, and the certificate by which a registry knows it."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tokens")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(days=1))
    (place / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()))
    (place / "key.pem").chmod(0o600)
    (place / "certificate.pem").write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))
    return place / "key.pem", place / "certificate.pem"


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310  # a loopback registry that we started
            return bool(answer.status == 200)
    except urllib.error.HTTPError as answer:
        return answer.code in (400, 401)
    except OSError:  # URLError is one, and so is a time-out, which urllib passes on as it is
        return False
