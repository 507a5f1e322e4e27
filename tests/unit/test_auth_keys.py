"""The file of signing keys: made once, kept from others, changed while we run."""

from __future__ import annotations

import base64
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from moorage.auth.errors import ConfigurationError
from moorage.auth.keys import KeyRing

_DAMAGED = b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"
_RFC_8037 = "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"


class Clock:
    """Stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "data.key")


def _pem(
    key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey,
    encryption: KeySerializationEncryption | None = None,
) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())


def _write(path: str, *parts: bytes, mode: int = 0o600) -> None:
    """Puts a new file in place, as an editor does."""
    aside = f"{path}.new"
    Path(aside).write_bytes(b"".join(parts))
    os.chmod(aside, mode)
    os.replace(aside, path)


def _kids(ring: KeyRing) -> list[str]:
    return [key["kid"] for key in ring.jwks()["keys"]]


def _make(path: str, kids: multiprocessing.queues.Queue[list[str]], start: multiprocessing.synchronize.Event) -> None:
    start.wait()
    kids.put(_kids(KeyRing.create(path)))


def test_the_first_start_makes_the_file(path: str) -> None:
    """T2: of two keys nobody ever had, readable by us only; the second start finds it."""
    ring = KeyRing.create(path)
    assert os.stat(path).st_mode & 0o777 == 0o600
    assert len(set(_kids(ring))) == 2
    assert _kids(KeyRing.create(path)) == _kids(ring)
    assert os.listdir(os.path.dirname(path)) == ["data.key"]


def test_of_many_who_start_at_once_one_makes_it(path: str) -> None:
    """T2: never twice, when several workers or replicas start together."""
    context = multiprocessing.get_context("spawn")
    kids: multiprocessing.queues.Queue[list[str]] = context.Queue()
    start = context.Event()
    workers = [context.Process(target=_make, args=(path, kids, start)) for _ in range(4)]
    for worker in workers:
        worker.start()
    start.set()
    seen = [kids.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()
    assert seen == [_kids(KeyRing(path))] * 4


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_a_key_that_others_may_read_is_refused(path: str, mode: int) -> None:
    """The line says which mode it has and what to do."""
    _write(path, _pem(ed25519.Ed25519PrivateKey.generate()), mode=mode)
    with pytest.raises(ConfigurationError, match=rf"data.key: others may read .* \(mode {mode:04o}\): chmod 600 it"):
        KeyRing(path)


@pytest.mark.root
def test_a_key_of_somebody_elses_is_refused(path: str) -> None:
    """Who owns the file can change it."""
    _write(path, _pem(ed25519.Ed25519PrivateKey.generate()))
    os.chown(path, 65534, 65534)
    with pytest.raises(ConfigurationError, match=r"belongs to user 65534, not to us \(0\): chown it"):
        KeyRing(path)


@pytest.mark.root
@pytest.mark.parametrize(("mode", "complaint"), [(0o440, ""), (0o444, "others may read"), (0o460, "others may read")])
def test_a_secret_that_kubernetes_mounts(tmp_path: Path, mode: int, complaint: str) -> None:
    """It is root's, and open to the group that we are in."""
    program = (
        "import os, sys; from moorage.auth.keys import KeyRing; from moorage.auth.errors import ConfigurationError\n"
        "folder = os.open(sys.argv[1], os.O_RDONLY); os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "os.fchdir(folder)\n"  # the directories of pytest above it are open to root only
        "try: KeyRing('data.key')\nexcept ConfigurationError as exc: print(exc)"
    )
    os.chmod(tmp_path, 0o755)  # noqa: S103  # the directory of the test
    _write(str(tmp_path / "data.key"), _pem(ed25519.Ed25519PrivateKey.generate()), mode=mode)
    os.chown(tmp_path / "data.key", 0, 65534)
    done = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True)
    assert (complaint in done.stdout) if complaint else done.stdout == ""


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        pytest.param(lambda: b"", "there is no private key in it", id="empty"),
        pytest.param(
            lambda: b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "damaged", id="damaged"
        ),
        pytest.param(lambda: _pem(rsa.generate_private_key(65537, 2048)), "neither Ed25519", id="RSA"),
        pytest.param(lambda: _pem(ec.generate_private_key(ec.SECP384R1())), "neither Ed25519", id="another curve"),
        pytest.param(
            lambda: _pem(ed25519.Ed25519PrivateKey.generate(), BestAvailableEncryption(b"word")),
            "the key is encrypted",
            id="encrypted",
        ),
        pytest.param(lambda: _pem(ed25519.Ed25519PrivateKey.generate()) * 2, "the same key stands in it", id="twin"),
        pytest.param(lambda: bytes(2 << 20), "larger than", id="too large"),
    ],
)
def test_a_file_that_cannot_be_used(path: str, content: object, complaint: str) -> None:
    """Is named in one line."""
    assert callable(content)
    _write(path, content())
    with pytest.raises(ConfigurationError, match=complaint) as caught:
        KeyRing(path)
    assert path in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_published_sample_is_refused(path: str) -> None:
    """T2: the private key of RFC 8037 is known to everybody."""
    sample = ed25519.Ed25519PrivateKey.from_private_bytes(base64.urlsafe_b64decode(_RFC_8037 + "="))
    _write(path, _pem(sample))
    with pytest.raises(ConfigurationError, match="is a published sample: make one of your own"):
        KeyRing(path)


def test_no_file_at_all(path: str) -> None:
    """Opening makes none."""
    with pytest.raises(ConfigurationError, match=r"cannot read .*data.key: No such file"):
        KeyRing(path)
    with pytest.raises(ConfigurationError, match=r"cannot make the signing key .*: No such file"):
        KeyRing.create(f"{path}/in/no/directory")


def test_openssls_files_are_read(path: str) -> None:
    """A key of elliptic curves with its parameters before it; certificates between are passed over."""
    key = ec.generate_private_key(ec.SECP256R1())
    old = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    _write(path, b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n", old)
    assert KeyRing(path).jwks()["keys"][0]["alg"] == "ES256"


def test_rotation(path: str) -> None:
    """The next key signs, one more is known before it signs, and the one that signed is known for one more turn."""
    clock = Clock()
    ring, other = KeyRing.create(path), KeyRing(path, clock=clock)
    current, following = _kids(other)
    assert KeyRing(path).rotate()
    assert _kids(other) == [current, following]  # for up to a second
    clock.now += 1
    assert other.current().signing.kid == following
    assert _kids(other)[2] == current
    fresh = _kids(other)[1]
    assert fresh not in (current, following)
    ring.rotate()
    clock.now += 1
    assert _kids(other)[0] == fresh
    assert _kids(other)[2] == following
    assert current not in _kids(other)
    assert os.stat(path).st_mode & 0o777 == 0o600


def test_a_rotation_of_one_key_only_adds_the_next(path: str) -> None:
    """So that nobody meets a signature of a key that they have never seen."""
    key = ec.generate_private_key(ec.SECP256R1())
    _write(path, _pem(key))
    first = _kids(KeyRing(path))
    assert not KeyRing(path).rotate()
    ring = KeyRing(path)
    assert _kids(ring)[:1] == first
    assert [one["alg"] for one in ring.jwks()["keys"]] == ["ES256", "ES256"]


def test_a_broken_new_file_changes_nothing(path: str, caplog: pytest.LogCaptureFixture) -> None:
    """The old keys stay in use, the log says why, once; a good one is taken when it comes."""
    clock = Clock()
    ring = KeyRing.create(path, clock=clock)
    before = ring.current()
    _write(path, b"nothing")
    for _ in range(3):
        clock.now += 1
        assert ring.current() is before
    os.unlink(path)
    for _ in range(3):
        clock.now += 1
        assert ring.current() is before
    first, second = (record.getMessage() for record in caplog.records)
    assert "there is no private key in it" in first
    assert "No such file" in second
    _write(path, _pem(ed25519.Ed25519PrivateKey.generate()))
    clock.now += 1
    assert ring.current() is not before


def test_codes(path: str) -> None:
    """A code is good for one purpose and one text, for every process with the file, and after a rotation."""
    ring = KeyRing.create(path)
    code = ring.mac(b"upload", b"text")
    assert len(code) == 32
    other = KeyRing(path)
    assert other.check_mac(b"upload", b"text", code)
    assert not other.check_mac(b"session", b"text", code)
    assert not other.check_mac(b"upload", b"other", code)
    assert not other.check_mac(b"upload", b"text", code[:-1])
    ring.rotate()
    after = KeyRing(path)
    assert after.mac(b"upload", b"text") != code
    assert after.check_mac(b"upload", b"text", code)
    after.rotate()
    assert not KeyRing(path).check_mac(b"upload", b"text", bytes(32))


def test_secrets_do_not_print(path: str) -> None:
    """T8: neither the ring nor a key of it shows what is private."""
    ring = KeyRing.create(path)
    shown = f"{ring!r} {ring.current()!r} {ring.current().signing!r}"
    assert "PRIVATE" not in shown
    assert all(set(key) == {"crv", "kty", "x", "kid", "alg", "use"} for key in ring.jwks()["keys"])
