"""A real OpenID provider, npm's oidc-provider, started here to play the CI system with keys and claims of our choice.

Law: it comes from npm by a lock file, once per content of that file, into a folder that git ignores.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import json
import shutil
import ssl
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import trustme
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.forge import encoded, jwk_of
from tests.interop.programs import find

__all__ = ["OpenIdProvider", "openid_provider", "private_jwk"]

_RECIPE = Path(__file__).with_name("oidc")
_TOOLS = Path(__file__).parents[2] / ".tools"
_SHARED_CLIENT = base64.b64encode(b"ci:secret").decode()


class OpenIdProvider:
    """The provider while it runs.

    Args:
        ca: the PEM file of the authority that vouches for it.
    """

    def __init__(self, process: subprocess.Popen[str], issuer: str, ca: Path) -> None:
        self.issuer, self.ca = issuer, ca
        self._process = process
        self._context = ssl.create_default_context(cafile=str(ca))

    def use(self, *keys: dict[str, str]) -> None:
        """Signs with these private keys from now on, and publishes them in place of all others."""
        self._command(keys=keys)

    def token(
        self,
        claims: dict[str, Any],
        *,
        audience: str = "moorage",
        alg: str = "RS256",
        secret: str | None = None,
        header: dict[str, Any] | None = None,
        ttl: int = 300,
    ) -> str:
        """An access token with these claims, as the provider makes it for a client with a secret."""
        plan = {
            "claims": claims,
            "audience": audience,
            "alg": alg,
            "secret": secret,
            "header": header or {},
            "ttl": ttl,
        }
        self._command(token=plan)
        form = urllib.parse.urlencode({"grant_type": "client_credentials", "resource": "https://registry.example"})
        request = urllib.request.Request(  # noqa: S310  # our own server
            f"{self.issuer}/token", form.encode(), {"Authorization": f"Basic {_SHARED_CLIENT}"}
        )
        with urllib.request.urlopen(request, timeout=60, context=self._context) as answer:  # noqa: S310
            return str(json.load(answer)["access_token"])

    def requested(self, path: str) -> int:
        """How often a path was asked for."""
        return int(self._command()["requested"].get(path, 0))

    def stop(self) -> None:
        """Ends it: nobody answers at its address any more."""
        self._process.terminate()
        self._process.wait(60)

    def _command(self, **what: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer


@contextmanager
def openid_provider(place: Path, ca: trustme.CA) -> Iterator[OpenIdProvider]:
    """Runs a provider on a free port of ``localhost`` until the block ends; its keys are still to be chosen."""
    place.mkdir(parents=True)
    ca.cert_pem.write_to_path(str(place / "ca.pem"))
    leaf = ca.issue_cert("localhost", "127.0.0.1")
    leaf.private_key_pem.write_to_path(str(place / "key.pem"))
    for pem in leaf.cert_chain_pems:
        pem.write_to_path(str(place / "chain.pem"), append=True)
    command = [find("node"), str(_installed() / "provider.mjs"), str(place / "chain.pem"), str(place / "key.pem")]
    with (
        (place / "log").open("w") as log,
        subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log) as process,
    ):
        try:
            assert process.stdout is not None
            first = process.stdout.readline()
            assert first, (place / "log").read_text()
            yield OpenIdProvider(process, json.loads(first)["issuer"], place / "ca.pem")
        finally:
            process.kill()


def private_jwk(key: rsa.RSAPrivateKey, kid: str, *, alg: str = "RS256") -> dict[str, str]:
    """A private RSA key as JSON."""
    numbers = key.private_numbers()
    parts = {"d": numbers.d, "p": numbers.p, "q": numbers.q, "dp": numbers.dmp1, "dq": numbers.dmq1, "qi": numbers.iqmp}
    secret = {name: encoded(value.to_bytes((value.bit_length() + 7) // 8, "big")) for name, value in parts.items()}
    return {**jwk_of(key, kid=kid, alg=alg, use="sig"), **secret}


def _installed() -> Path:
    """The folder with the provider and all it needs, as the lock file says."""
    lock = (_RECIPE / "package-lock.json").read_bytes()
    folder = _TOOLS / f"oidc-provider-{hashlib.sha256(lock).hexdigest()[:16]}"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".turn").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        for name in ("package.json", "package-lock.json", "provider.mjs"):
            shutil.copy(_RECIPE / name, folder / name)
        if not (folder / ".complete").exists():
            command = [find("npm"), "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
            assert done.returncode == 0, done.stdout + done.stderr
            (folder / ".complete").touch()
    return folder
