"""Tokens across products: other registries take ours, and we take those of distribution's token server."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import trustme
from cryptography import x509
from moorage.auth.keys import KeyRing
from moorage.auth.trust import is_usable, to_jwk
from moorage.registry.oci import Digest

from tests.interop.peers import peer_trusting, signer, token_server
from tests.interop.programs import Program, find
from tests.interop.secured import account_line
from tests.servers import MoorageProcess

_ALICE, _PASSWORD = "alice", "s3cret"
_AUTH = """\
htpasswd: htpasswd
rules:
  - {{name: apps, who: [alice], repositories: ["alice/**"], actions: [pull, push]}}
{more}
"""
_PEERS = [
    pytest.param("distribution 3", "certificates", id="distribution 3, by certificate"),
    pytest.param("distribution 3", "chain", id="distribution 3, by root certificate"),
    pytest.param("distribution 3", "jwks", id="distribution 3, by JWKS"),
    pytest.param("Debian's docker-registry", "certificates", id="Debian's docker-registry, by certificate"),
    pytest.param("Debian's docker-registry", "chain", id="Debian's docker-registry, by root certificate"),
]


def _configure(place: Path, more: str = "") -> str:
    place.mkdir(exist_ok=True, parents=True)
    (place / "htpasswd").write_text(account_line(_ALICE, _PASSWORD))
    (place / "auth.yml").write_text(_AUTH.format(more=more))
    return str(place / "auth.yml")


@contextmanager
def _trusting_us(name: str, by: str, place: Path) -> Iterator[tuple[str, str]]:
    """A registry whose token server is Moorage; yields its host, and the URL of ours."""
    place.mkdir()
    key, bundle, root = _chain(place) if by == "chain" else (*signer(place), place / "certificate.pem")
    config = _configure(place, "" if by == "jwks" else f"certificates: {bundle}")
    words = ("--auth", config, *(() if by == "jwks" else ("--signing-key", str(key))))
    with MoorageProcess(place / "root", *words, workers=2) as ours:
        keys = f"rootcertbundle: '{root}'"
        if by == "jwks":
            (place / "jwks.json").write_text(httpx.get(f"{ours.url}/.well-known/jwks.json", timeout=60).text)
            keys = f"jwks: '{place / 'jwks.json'}'"
        realm = f"{ours.url}/token"
        with peer_trusting(name, place / "peer", realm=realm, service="moorage", issuer="moorage", keys=keys) as url:
            yield url.removeprefix("http://"), ours.url


def _chain(place: Path) -> tuple[Path, Path, Path]:
    """A key, a bundle of its certificate and those above it, and the root alone."""
    root = trustme.CA()
    leaf = root.create_child_ca().issue_cert("tokens", key_type=trustme.KeyType.ECDSA)
    leaf.private_key_pem.write_to_path(place / "leaf.key")
    (place / "leaf.key").chmod(0o600)
    root.cert_pem.write_to_path(place / "root.pem")
    (place / "bundle.pem").write_bytes(b"".join(one.bytes() for one in (root.cert_pem, *leaf.cert_chain_pems)))
    return place / "leaf.key", place / "bundle.pem", place / "root.pem"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_text("content\n")
    return tmp_path / "folder"


@pytest.fixture
def moorage(tmp_path: Path) -> Program:
    """Our client, of a user who has never logged in."""
    environment = {"MOORAGE_STORE": str(tmp_path / "store"), "XDG_RUNTIME_DIR": str(tmp_path / "run")}
    return Program((str(Path(sys.executable).with_name("moorage")),), tmp_path / "home", environment)


@pytest.mark.parametrize(("name", "by"), _PEERS)
def test_others_take_our_tokens(name: str, by: str, tmp_path: Path, moorage: Program, folder: Path) -> None:
    """Login, push, pull and a copy by mount, with two clients; and no is no."""
    with _trusting_us(name, by, tmp_path / "place") as (host, _):
        refused = moorage.attempt("push", folder, f"{host}/alice/app:v1")
        assert refused.returncode == 1
        moorage("login", "--username", _ALICE, "--password-stdin", host, stdin=_PASSWORD.encode())
        moorage("push", folder, f"{host}/alice/app:v1")
        moorage("copy", f"{host}/alice/app:v1", f"{host}/alice/copy:v1")
        moorage("pull", f"{host}/alice/copy:v1", "--unpack", tmp_path / "out")
        assert (tmp_path / "out" / "file").read_text() == "content\n"
        skopeo = Program((find("skopeo"),), moorage.home, moorage.environment)
        skopeo("inspect", "--tls-verify=false", f"docker://{host}/alice/copy:v1")
        denied = moorage.attempt("push", folder, f"{host}/bob/app:v1")
        assert denied.returncode == 1
        assert b"not permitted" in denied.stderr


def test_a_rotated_key_at_a_registry_that_knows_the_set(tmp_path: Path) -> None:
    """The next key stands in the published set before it signs: distribution takes its tokens without a new file."""
    with _trusting_us("distribution 3", "jwks", tmp_path / "place") as (host, ours):
        before = _token(ours)
        assert _status(host, before) == 404
        KeyRing(str(tmp_path / "place" / "root.key")).rotate()
        after = _token(ours)
        while _kid(after) == _kid(before):  # the file is looked at once per second
            after = _token(ours)
        assert _status(host, after) == 404
        assert _status(host, "x.y.z") == 401


@pytest.mark.parametrize("by", ["certificates", "jwks"])
def test_we_take_tokens_of_distributions_token_server(by: str, tmp_path: Path, moorage: Program, folder: Path) -> None:
    """It puts only a ``jwk`` into the header. Clients are sent there; it speaks for its own repositories only."""
    accounts = {_ALICE: _PASSWORD, "bob": "b0b"}
    with token_server(tmp_path / "tokens", accounts=accounts) as (realm, certificate):
        source = f"certificates: {certificate}"
        if by == "jwks":
            source = f"jwks_file: {_jwks_of(certificate)}"
        issuer = f"{{name: old, issuer: tokens, service: peer, repositories: ['alice/**'], realm: '{realm}', {source}}}"
        config = _configure(tmp_path / "place", f"token_issuers: [{issuer}]")
        with MoorageProcess(tmp_path / "place" / "root", "--auth", config, workers=2) as server:
            host = server.url.removeprefix("http://")
            moorage("login", "--username", _ALICE, "--password-stdin", host, stdin=_PASSWORD.encode())
            moorage("push", folder, f"{host}/alice/app:v1")
            moorage("copy", f"{host}/alice/app:v1", f"{host}/alice/copy:v1")
            moorage("pull", f"{host}/alice/copy:v1", "--unpack", tmp_path / "out")
            assert (tmp_path / "out" / "file").read_text() == "content\n"
            assert moorage.attempt("push", folder, f"{host}/bob/app:v1").returncode == 1
            moorage("login", "--username", "bob", "--password-stdin", host, stdin=b"b0b")
            beyond = moorage.attempt("push", folder, f"{host}/bob/app:v1")
            assert beyond.returncode == 1, "the token server allows it, but may not speak for bob/"
            wrong = moorage.attempt("login", "--username", _ALICE, "--password-stdin", host, stdin=b"wrong")
            assert wrong.returncode == 1


def _token(ours: str) -> str:
    query = {"service": "moorage", "scope": "repository:alice/none:pull"}
    answer = httpx.get(f"{ours}/token", params=query, auth=(_ALICE, _PASSWORD), timeout=60)
    return str(answer.json()["token"])


def _kid(token: str) -> str:
    return str(json.loads(base64.urlsafe_b64decode(token.split(".", maxsplit=1)[0] + "=="))["kid"])


def _status(host: str, token: str) -> int:
    digest = Digest.of(b"nothing")
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.get(f"http://{host}/v2/alice/none/manifests/{digest}", headers=headers, timeout=60).status_code


def _jwks_of(certificate: Path) -> Path:
    """The key of a certificate as a JSON Web Key Set."""
    public = x509.load_pem_x509_certificate(certificate.read_bytes()).public_key()
    assert is_usable(public)
    path = certificate.with_name("jwks.json")
    path.write_text(json.dumps({"keys": [to_jwk(public)]}))
    return path
