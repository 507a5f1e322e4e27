"""The keys that we sign with: one PEM file, shared by all workers and replicas.

Law: the first key signs, every key verifies. So a rotation is a change of the file: the next key stands in it before it
signs, the previous one as long as something that it signed may live, and no process is restarted. There is no key that
we did not make or get from the operator (rule T2): none is built in, and published samples are refused.

The file belongs to us or to root, and nobody else can read it (``watched`` has the rule on its changes).
"""

from __future__ import annotations

import fcntl
import hmac
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, Self, TypeAlias

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from moorage.auth.errors import ConfigurationError
from moorage.auth.trust import KeySet, TrustedKey, thumbprint, to_jwk
from moorage.auth.watched import WatchedFile

__all__ = ["KeyRing", "Ring", "SigningKey"]

PrivateKey: TypeAlias = Ed25519PrivateKey | EllipticCurvePrivateKey

_SAMPLES: Final = frozenset(
    {
        "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k",  # RFC 8037, appendix A, and RFC 8032, 7.1, test 1
        "oKIywvGUpTVTyxMQ3bwIIeQUudfr_CkLMjCE19ECD-U",  # RFC 7515, appendix A.3
        "cn-I_WNMClehiVp51i_0VpOENW1upEerA8sEam5hn-s",  # RFC 7517, appendix A.2
    }
)
"""Thumbprints of private keys that were printed for everybody to read."""

_PEM: Final = re.compile(rb"-----BEGIN ([A-Z ]*PRIVATE KEY)-----.*?-----END \1-----", re.DOTALL)


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key. ``kid``: its thumbprint (RFC 7638)."""

    private: PrivateKey
    algorithm: str
    kid: str

    @classmethod
    def of(cls, private: PrivateKey) -> Self:
        """The key with what follows from it."""
        algorithm = "EdDSA" if isinstance(private, Ed25519PrivateKey) else "ES256"
        return cls(private, algorithm, thumbprint(private.public_key()))

    def __repr__(self) -> str:
        return f"<SigningKey {self.kid} {self.algorithm}>"

    def derive(self, purpose: bytes) -> bytes:
        """A secret of 32 bytes for one purpose, which says nothing of the key or of other secrets."""
        match self.private:
            case Ed25519PrivateKey():
                material = self.private.private_bytes_raw()
            case _:
                material = self.private.private_numbers().private_value.to_bytes(32, "big")
        return HKDF(SHA256(), 32, None, b"moorage " + purpose).derive(material)

    def to_pem(self) -> bytes:
        """The key as it stands in the file."""
        return self.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


class Ring:
    """The keys that the file held at one moment."""

    def __init__(self, keys: tuple[SigningKey, ...]) -> None:
        self.keys = keys
        self.trusted = KeySet(tuple(TrustedKey.of(key.private.public_key(), kid=key.kid) for key in keys))
        self._derived: dict[bytes, tuple[bytes, ...]] = {}

    def __repr__(self) -> str:
        return f"<Ring {', '.join(key.kid for key in self.keys)}>"

    @property
    def signing(self) -> SigningKey:
        """The key that signs."""
        return self.keys[0]

    def jwks(self) -> dict[str, Any]:
        """The public keys as a JSON Web Key Set."""
        return {"keys": [_published(key) for key in self.keys]}

    def macs(self, purpose: bytes, data: bytes) -> Iterator[bytes]:
        """The code of the data under each key, the signing one's first. ``purpose``: a constant of the caller's."""
        derived = self._derived.get(purpose)
        if derived is None:
            derived = self._derived[purpose] = tuple(key.derive(purpose) for key in self.keys)
        return (hmac.digest(key, data, "sha256") for key in derived)


class KeyRing:
    """The keys of a file as it is now.

    Args:
        clock: seconds, from any moment on.

    Raises:
        ConfigurationError: the file is missing, is open to others, or holds something else than keys for EdDSA
            (Ed25519) or ES256 (P-256).
    """

    def __init__(self, path: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.path = path
        self._file = WatchedFile(path, _parse, clock=clock)

    @classmethod
    def create(cls, path: str, *, clock: Callable[[], float] = time.monotonic) -> Self:
        """Makes the file with two keys, this one and the next, unless there is one.

        Of several processes that try at once, all end up with the same keys.

        Raises:
            ConfigurationError: it cannot be made, or what is there cannot be used.
        """
        if not os.path.lexists(path):
            try:
                _write_new(path, (_generate(Ed25519PrivateKey), _generate(Ed25519PrivateKey)))
            except OSError as exc:
                raise ConfigurationError(
                    f"cannot make the signing key {path}: {exc.strerror}; set signing_key to another"
                ) from exc
        return cls(path, clock=clock)

    def __repr__(self) -> str:
        return f"<KeyRing {self.path!r}>"

    def current(self) -> Ring:
        """The keys; the same object as long as the file is the same."""
        return self._file.current()

    def jwks(self) -> dict[str, Any]:
        """The public keys as a JSON Web Key Set."""
        return self.current().jwks()

    def mac(self, purpose: bytes, data: bytes) -> bytes:
        """A code of 32 bytes that only who has the keys can make. ``purpose``: a constant of the caller's."""
        return next(iter(self.current().macs(purpose, data)))

    def check_mac(self, purpose: bytes, data: bytes, mac: bytes) -> bool:
        """Whether one of the keys made the code; takes the same time whichever byte is wrong."""
        right = [hmac.compare_digest(mac, one) for one in self.current().macs(purpose, data)]
        return any(right)

    def rotate(self) -> bool:
        """Lets the next key sign, and adds another for the next time; at most three stay. Blocks.

        Returns:
            Whether another key signs now; where there was no next one, it has only been added, so that everybody knows
            it before it signs.

        Raises:
            ConfigurationError: the file cannot be used.
            OSError: it cannot be replaced.
        """
        with _locked(self.path):
            ring = KeyRing(self.path).current()
            first, fresh = ring.keys[0], _generate(type(ring.signing.private))
            keys = (ring.keys[1], fresh, first) if len(ring.keys) > 1 else (first, fresh)
            _replace(self.path, keys)
        return len(ring.keys) > 1


def _published(key: SigningKey) -> dict[str, str]:
    return {**to_jwk(key.private.public_key()), "kid": key.kid, "alg": key.algorithm, "use": "sig"}


def _parse(path: str, content: bytes, status: os.stat_result) -> Ring:
    _check_access(path, status)
    keys = tuple(_load(path, match.group()) for match in _PEM.finditer(content))
    if not keys:
        raise ConfigurationError(f"{path}: there is no private key in it (PEM)")
    if len({key.kid for key in keys}) != len(keys):
        raise ConfigurationError(f"{path}: the same key stands in it twice")
    return Ring(keys)


def _check_access(path: str, status: os.stat_result) -> None:
    """Rule: nobody but the owner reads it. A file of root's may be open to our group: so Kubernetes mounts secrets."""
    us = os.geteuid()
    if not stat.S_ISREG(status.st_mode):
        raise ConfigurationError(f"{path}: the signing key is not a file")
    if status.st_uid not in (us, 0):
        raise ConfigurationError(f"{path}: the signing key belongs to user {status.st_uid}, not to us ({us}): chown it")
    mode = stat.S_IMODE(status.st_mode)
    is_mounted = status.st_uid == 0 and us != 0
    if mode & (0o037 if is_mounted else 0o077):
        raise ConfigurationError(f"{path}: others may read or change the signing key (mode {mode:04o}): chmod 600 it")


def _load(path: str, pem: bytes) -> SigningKey:
    try:
        private = load_pem_private_key(pem, None)
    except TypeError:
        raise ConfigurationError(f"{path}: the key is encrypted; keep it in the clear (mode 0600)") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigurationError(f"{path}: a private key in it is damaged or of an unknown kind") from None
    is_elliptic = isinstance(private, EllipticCurvePrivateKey) and isinstance(private.curve, SECP256R1)
    if not is_elliptic and not isinstance(private, Ed25519PrivateKey):
        raise ConfigurationError(f"{path}: a key in it is neither Ed25519 (EdDSA) nor P-256 (ES256)")
    key = SigningKey.of(private)  # type: ignore[arg-type]  # one of the two kinds
    if key.kid in _SAMPLES:
        raise ConfigurationError(f"{path}: the key {key.kid} is a published sample: make one of your own")
    return key


def _generate(kind: type[PrivateKey]) -> SigningKey:
    is_edwards = issubclass(kind, Ed25519PrivateKey)
    return SigningKey.of(Ed25519PrivateKey.generate() if is_edwards else generate_private_key(SECP256R1()))


def _write_new(path: str, keys: Iterable[SigningKey]) -> None:
    """Writes the file whole, or leaves the one that somebody else has made meanwhile."""
    with _written_aside(path, keys) as temporary, suppress(FileExistsError):
        os.link(temporary, path)


def _replace(path: str, keys: Iterable[SigningKey]) -> None:
    path = os.path.realpath(path)
    with _written_aside(path, keys) as temporary:
        status = os.stat(path)  # root keeps a service's file the service's
        os.chown(temporary, status.st_uid, status.st_gid)
        os.chmod(temporary, stat.S_IMODE(status.st_mode))
        os.replace(temporary, path)


@contextmanager
def _written_aside(path: str, keys: Iterable[SigningKey]) -> Iterator[str]:
    """The keys in a durable file of its own beside ``path``, for the block to move; then the directory is durable."""
    folder = os.path.dirname(os.path.abspath(path))
    temporary = os.path.join(folder, f".{os.path.basename(path)}.{secrets.token_hex(8)}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(handle, "wb") as file:
            file.write(b"".join(key.to_pem() for key in keys))
            file.flush()
            os.fsync(handle)
        yield temporary
    finally:
        with suppress(FileNotFoundError):  # it was moved
            os.unlink(temporary)
    _sync(folder)


@contextmanager
def _locked(path: str) -> Iterator[None]:
    """Rotations of one file take turns."""
    folder = os.open(os.path.dirname(os.path.realpath(path)), os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _sync(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
