"""A token service is shown credentials only where it can belong to nobody but the registry's owner."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moorage.puller.errors import BadAnswer
from moorage.puller.origins import Origin
from moorage.puller.realms import check_realm

_ACCEPTED = [
    pytest.param("https://registry-1.docker.io", "https://auth.docker.io/token", id="Docker Hub"),
    pytest.param("https://ghcr.io", "https://ghcr.io/token", id="same origin"),
    pytest.param("https://registry.example.org:5000", "https://registry.example.org/token", id="another port"),
    pytest.param("https://registry.gitlab.com", "https://gitlab.com/jwt/auth", id="the domain above"),
    pytest.param("https://example.org", "https://auth.example.org/token", id="a domain below"),
    pytest.param("https://registry.example.org", "https://gitlab.example.org/jwt/auth", id="a sibling"),
    pytest.param("https://registry.a.example.co.uk", "https://auth.b.example.co.uk/token", id="a cousin below co.uk"),
    pytest.param("http://127.0.0.1:5000", "http://127.0.0.1:5001/token", id="loopback"),
    pytest.param("http://localhost:5000", "https://localhost/token", id="from http to https"),
]
_REFUSED = [
    pytest.param("https://registry.example.org", "http://registry.example.org/token", id="https left for http"),
    pytest.param("https://registry.example.org", "https://evil.example.com/token", id="another domain"),
    pytest.param("https://registry.co.uk", "https://evil.co.uk/token", id="a public suffix in common"),
    pytest.param("https://mine.github.io", "https://evil.github.io/token", id="a private suffix in common"),
    pytest.param("https://mine.azurecr.io", "https://evil.azurecr.io/token", id="customers of one registry"),
    pytest.param("https://1.amazonaws.com", "https://evil.amazonaws.com/", id="customers of one cloud"),
    pytest.param("https://registry.corp", "https://auth.corp/token", id="a suffix that no list has"),
    pytest.param("https://registry.example.org", "https://example.org.evil.example/token", id="a longer name"),
    pytest.param("https://example.org", "https://evilexample.org/token", id="the same ending"),
    pytest.param("https://registry.example.org", "https://org/token", id="a top-level domain"),
    pytest.param("https://registry.example.org", "https://auth.example.org./token", id="a dot at the end"),
    pytest.param("https://registry.example.org", "https://127.0.0.1/token", id="this machine"),
    pytest.param("https://registry.example.org", "https://localhost/token", id="this machine by name"),
    pytest.param("https://registry.example.org", "https://169.254.169.254/token", id="the cloud's secrets"),
    pytest.param("https://10.0.0.1", "https://10.0.0.2/token", id="addresses are no domains"),
    pytest.param("https://10.0.0.1", "https://0.0.1/token", id="nor are parts of them"),
    pytest.param("http://127.0.0.1:5000", "http://localhost:5000/token", id="two names of loopback"),
    pytest.param("http://127.0.0.1:5000", "https://evil.example/token", id="loopback sends us out"),
    pytest.param("https://registry.example.org", "https://registry.example.org@evil.example/token", id="a user"),
    pytest.param("https://registry.example.org", "https://user:pass@registry.example.org/token", id="a user at home"),
    pytest.param("https://registry.example.org", "https:///token", id="no host"),
    pytest.param("https://registry.example.org", "/token", id="no URL"),
    pytest.param("https://registry.example.org", "", id="nothing"),
    pytest.param("https://registry.example.org", "file:///etc/passwd", id="a file"),
    pytest.param("https://registry.example.org", "https://registry.example.org:port/token", id="no port"),
    pytest.param("https://registry.example.org", "https://registry.example.org\\@evil.example/token", id="a backslash"),
]  # fmt: skip


@pytest.mark.parametrize(("registry", "realm"), _ACCEPTED)
def test_the_owners_service_is_followed(registry: str, realm: str) -> None:
    """The same host, a domain above or below, the same registrable domain."""
    assert check_realm(Origin.of(registry), realm) == realm


@pytest.mark.parametrize(("registry", "realm"), _REFUSED)
def test_a_strangers_service_is_refused(registry: str, realm: str) -> None:
    """Rules P1 and N2; the message names it, without its secrets."""
    with pytest.raises(BadAnswer) as caught:
        check_realm(Origin.of(registry), realm)
    assert "pass@" not in caught.value.message


@given(st.text() | st.text("htps:/@[].-0123456789abcdefx\\%?#\t\n").map("https://registry.example.org".__add__))
def test_any_text_may_stand_for_a_realm(realm: str) -> None:
    """It is refused, or leads to the registry's owner over https."""
    try:
        accepted = check_realm(Origin.of("https://registry.example.org"), realm)
    except BadAnswer:
        return
    target = Origin.of(accepted)
    assert target.scheme == "https"
    assert target.host == "example.org" or target.host.endswith(".example.org")


def test_the_configuration_may_allow_more() -> None:
    """Exactly the origins that it names, this machine among them, but never from https to http."""
    registry = Origin.of("https://registry.example.org")
    allowed = [
        Origin.of("https://auth.example.com"),
        Origin.of("https://127.0.0.1"),
        Origin.of("http://auth.example.net"),
    ]
    assert check_realm(registry, "https://auth.example.com/token", allowed=allowed)
    assert check_realm(registry, "https://127.0.0.1/token", allowed=allowed)
    for other in ("https://auth.example.com:444/", "https://x.auth.example.com/", "http://auth.example.net/"):
        with pytest.raises(BadAnswer):
            check_realm(registry, other, allowed=allowed)
    with pytest.raises(BadAnswer, match=r'token_realms = \["https://auth.example.com:444"\]'):
        check_realm(registry, "https://auth.example.com:444/", allowed=allowed)
