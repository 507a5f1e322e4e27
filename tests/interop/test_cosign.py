"""cosign: signatures and attestations by a local key, without a transparency log."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.interop.programs import Program
from tests.interop.stored import Stored

OFFLINE = ("--tlog-upload=false", "--use-signing-config=false", "--yes", "--allow-http-registry")
LOCAL = ("--insecure-ignore-tlog", "--allow-http-registry")


@pytest.fixture
def signed(cosign: Program, skopeo: Program, registry: Stored, layout: Path, request: pytest.FixtureRequest) -> str:
    """An image by digest, in a repository of its own, signed with ``cosign.key``."""
    repository = f"cosign/{request.function.__name__.replace('_', '-')}"
    tagged = f"docker://{registry.ref(repository, 'app')}"
    skopeo("copy", "--dest-tls-verify=false", f"oci:{layout}:app", tagged)
    ref = f"{registry.host}/{repository}@{registry.digest(repository, 'app')}"
    cosign("generate-key-pair")
    cosign("sign", *OFFLINE, "--key", "cosign.key", ref)
    return ref


def test_sign_and_verify(cosign: Program, registry: Stored, signed: str) -> None:
    """The signature verifies with the key's public half and is found at the image."""
    claims = json.loads(cosign.stdout("verify", *LOCAL, "--key", "cosign.pub", signed))
    assert [claim["critical"]["image"]["docker-manifest-digest"] for claim in claims] == [signed.partition("@")[2]]
    repository = signed.partition("@")[0].partition("/")[2]
    (signature,) = registry.referrers(repository, signed.partition("@")[2])
    assert signature["digest"] in cosign("tree", "--allow-http-registry", signed)
    assert registry.tags(repository) == ["app"], "no fallback tag was written"


def test_another_key_does_not_verify(cosign: Program, signed: str, tmp_path: Path) -> None:
    """The check can fail: a stranger's key verifies nothing."""
    stranger = Program(cosign.command, tmp_path / "stranger", cosign.environment)
    stranger("generate-key-pair")
    assert stranger.attempt("verify", *LOCAL, "--key", "cosign.pub", signed).returncode != 0


def test_attest_and_verify(cosign: Program, signed: str) -> None:
    """An attestation is stored beside the signature and verifies."""
    (cosign.home / "predicate.json").write_text('{"interop": "yes"}')
    attest = ("--type", "custom", "--predicate", "predicate.json")
    cosign("attest", *OFFLINE, "--key", "cosign.key", *attest, signed)
    cosign("verify-attestation", *LOCAL, "--key", "cosign.pub", "--type", "custom", signed)
    cosign("verify", *LOCAL, "--key", "cosign.pub", signed)


def test_copy_takes_signatures_along(cosign: Program, regctl: Program, registry: Stored, signed: str) -> None:
    """An image copied with its referrers verifies in the other repository."""
    copied = f"{registry.host}/cosign/copied"
    regctl("image", "copy", "--referrers", "--digest-tags", signed, f"{copied}:app")
    cosign("verify", *LOCAL, "--key", "cosign.pub", f"{copied}@{signed.partition('@')[2]}")


def test_clean_removes_the_signature(cosign: Program, registry: Stored, signed: str) -> None:
    """cosign clean deletes the signature; nothing verifies any more and the image stays."""
    cosign("clean", "--force", "--type", "all", "--allow-http-registry", signed)
    assert cosign.attempt("verify", *LOCAL, "--key", "cosign.pub", signed).returncode != 0
    repository, digest = signed.removeprefix(f"{registry.host}/").split("@")
    assert registry.graph(repository, digest)
