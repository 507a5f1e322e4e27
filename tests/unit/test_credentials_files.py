"""docker's and podman's files: the right entry for the registry at hand, and never another one's."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moorage.puller.credentials import Credentials
from moorage.puller.credentials.files import AuthFile
from moorage.puller.credentials.model import Target
from moorage.puller.credentials.names import StoredName
from moorage.puller.errors import CredentialsUnusable
from moorage.puller.origins import Origin

_HUB = "https://registry-1.docker.io"
_ALICE = Credentials("alice", "s3cret:with:colons")


def _auth(user: str = "alice", password: str = "s3cret:with:colons") -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def _find(folder: Path, document: object, url: str, repository: str = "") -> Credentials | None:
    path = folder / "config.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    findings = AuthFile(str(path)).look(Target(Origin.of(url), repository))
    assert findings
    return next((finding.credentials for finding in findings if finding.credentials), None)


@pytest.mark.parametrize(
    ("key", "url"),
    [
        ("registry.example", "https://registry.example"),
        ("registry.example:443", "https://registry.example"),
        ("Registry.Example", "https://registry.example"),
        ("registry.example:5000", "https://registry.example:5000"),
        ("https://registry.example", "https://registry.example"),
        ("https://registry.example/v1/", "https://registry.example"),
        ("https://registry.example:5000/v2/", "https://registry.example:5000"),
        ("localhost:5000", "http://localhost:5000"),
        ("http://localhost:5000", "http://localhost:5000"),
        ("[::1]:5000", "http://[::1]:5000"),
        ("https://index.docker.io/v1/", _HUB),
        ("index.docker.io", _HUB),
        ("docker.io", _HUB),
        ("registry-1.docker.io", _HUB),
    ],
)
def test_a_name_means_its_registry(tmp_path: Path, key: str, url: str) -> None:
    """In every form that docker and podman write."""
    assert _find(tmp_path, {"auths": {key: _auth()}}, url) == _ALICE


@pytest.mark.parametrize(
    ("key", "url"),
    [
        pytest.param("registry.example", "https://registry.example:5000", id="another port"),
        pytest.param("registry.example:5000", "https://registry.example", id="no port"),
        pytest.param("registry.example:443", "http://registry.example:80", id="another scheme's port"),
        pytest.param("http://registry.example", "https://registry.example", id="http for https"),
        pytest.param("https://localhost:5000", "http://localhost:5000", id="https for http"),
        pytest.param("registry.example", "https://sub.registry.example", id="a host below"),
        pytest.param("sub.registry.example", "https://registry.example", id="a host above"),
        pytest.param("registry.example", "https://registry.example.evil.example", id="a longer name"),
        pytest.param("docker.io", "https://docker.io.example", id="not Docker Hub"),
        pytest.param("docker.io:5000", _HUB, id="another port of Docker Hub"),
        pytest.param("https://user@registry.example", "https://registry.example", id="a user in the name"),
        pytest.param("ftp://registry.example", "https://registry.example", id="another protocol"),
        pytest.param("registry.example:x", "https://registry.example", id="no number"),
        pytest.param("[::1", "http://[::1]", id="not a host"),
        pytest.param("", "https://registry.example", id="nothing"),
    ],
)
def test_a_name_means_no_other_registry(tmp_path: Path, key: str, url: str) -> None:
    """Scheme, host and port are the registry's own (rule N2)."""
    assert _find(tmp_path, {"auths": {key: _auth()}}, url) is None


@given(st.text() | st.text("htps:/@[].-0123456789abcdefx\\%?#\n"))
def test_any_name_can_be_read(raw: str) -> None:
    """And means the registry at hand only if it spells it."""
    name, target = StoredName.parse(raw), Target(Origin.of("https://r.example:5000"), "a/b")
    if name is not None and name.matches(target):
        assert "r.example:5000" in raw.lower()


def test_the_longest_namespace_wins(tmp_path: Path) -> None:
    """As podman has it: whole components only."""
    keys = ("host.example", "host.example/a", "host.example/a/b", "host.example/other", "docker.io/library/x")
    document = {"auths": {key: _auth(user=f"of {key}", password="x") for key in keys}}

    def who(repository: str, url: str = "https://host.example") -> str:
        found = _find(tmp_path, document, url, repository)
        return found.username if found else "nobody"

    assert who("a/b/c") == who("a/b") == "of host.example/a/b"
    assert who("a/bc") == who("a") == "of host.example/a"
    assert who("ab") == who("") == "of host.example"
    assert who("library/x", _HUB) == "of docker.io/library/x"
    assert who("library/xy", _HUB) == "nobody"


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        pytest.param(_auth(), _ALICE, id="auth"),
        pytest.param({"username": "alice", "password": "p"}, Credentials("alice", "p"), id="user and password"),
        pytest.param({**_auth("bob", "p"), "username": "alice"}, Credentials("bob", "p"), id="auth before the others"),
        pytest.param({"identitytoken": "t"}, Credentials(identity_token="t"), id="identity token"),
        pytest.param(
            {**_auth("00000000-0000-0000-0000-000000000000", ""), "identitytoken": "t"},
            Credentials("00000000-0000-0000-0000-000000000000", "", "t"),
            id="identity token of Azure",
        ),
        pytest.param({"registrytoken": "t"}, Credentials(registry_token="t"), id="registry token"),
        pytest.param({"auth": base64.b64encode(b"alice:p\0\0").decode()}, Credentials("alice", "p"), id="padding"),
        pytest.param({}, None, id="empty, as a store leaves it"),
        pytest.param({"email": "alice@example.org"}, None, id="only an address"),
        pytest.param({"username": "alice"}, None, id="no password"),
    ],
)
def test_entries_are_read(tmp_path: Path, entry: dict[str, Any], expected: Credentials | None) -> None:
    """Every field that docker and podman know."""
    assert _find(tmp_path, {"auths": {"r.example": entry}, "HttpHeaders": {}}, "https://r.example") == expected


def test_the_name_that_login_writes_goes_first(tmp_path: Path) -> None:
    """Where a file has a registry under two names."""
    document = {"auths": {"https://r.example": _auth("old"), "r.example": _auth("new")}}
    found = _find(tmp_path, document, "https://r.example")
    assert found is not None
    assert found.username == "new"
    document = {"auths": {"docker.io": _auth("old"), "https://index.docker.io/v1/": _auth("new")}}
    found = _find(tmp_path, document, _HUB)
    assert found is not None
    assert found.username == "new"


@pytest.mark.parametrize(
    "content",
    [
        "[]", "{", "\x00", '{"auths": 1}', '{"auths": {"r.example": []}}', '{"auths": {"r.example": {"auth": "!!"}}}',
        '{"auths": {"r.example": {"auth": "YWxpY2U="}}}', '{"auths": {"r.example": {"auth": 1}}}',
        '{"auths": {"r.example": {"identitytoken": {}}}}', '{"credsStore": 1}', '{"credHelpers": []}',
        '{"credHelpers": {"r.example": 5}}', '{"auths": {}, "auths": {}}', '{"auths": {"r": {}, "r": {}}}',
        "[" * 100_000, " " * (1024 * 1024 + 1),
    ],
)  # fmt: skip
def test_a_broken_file_is_said(tmp_path: Path, content: str) -> None:
    """With its path, instead of going on without."""
    with pytest.raises(CredentialsUnusable, match=r"config\.json"):
        _find(tmp_path, content, "https://r.example")


@pytest.mark.parametrize("content", ["", " \n", "{}", '{"auths": null}', '{"auths": {"other": {"auth": "!!"}}}'])
def test_what_does_not_concern_us_is_left_alone(tmp_path: Path, content: str) -> None:
    """An empty file, and damage in another registry's entry."""
    assert _find(tmp_path, content, "https://r.example") is None


def test_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    """A missing one is no file; anything else is an error."""
    assert AuthFile(str(tmp_path / "none")).look(Target(Origin.of(_HUB)))[0].reason == "there is no such file"
    with pytest.raises(CredentialsUnusable, match="cannot be read"):
        AuthFile(str(tmp_path)).look(Target(Origin.of(_HUB)))


def test_secrets_do_not_print(tmp_path: Path) -> None:
    """Not in credentials, findings or errors."""
    every = Credentials("alice", "s3cret", "s3cret", "s3cret")
    (tmp_path / "f").write_text(json.dumps({"auths": {"r.example": {"auth": "s3cret!", "identitytoken": "s3cret"}}}))
    with pytest.raises(CredentialsUnusable) as caught:
        AuthFile(str(tmp_path / "f")).look(Target(Origin.of("https://r.example")))
    assert "s3cret" not in f"{every!r} {every} {caught.value!r} {caught.value} {caught.value.detail}"
