"""CI jobs log in with the token that their CI system gave them: claims as GitHub, GitLab and Kubernetes send them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from moorage.auth.configuration import ClaimRule, PublisherConfig
from moorage.auth.errors import BadCredentials, ConfigurationError, IssuerUnavailable
from moorage.auth.patterns import RepositoryPattern, TextPattern
from moorage.auth.policy import Action
from moorage.auth.principal import Principal
from moorage.auth.publishers import CiIssuer, Publishers
from moorage.auth.trust import KeySet, TrustedKey

from tests.forge import Forger, jwk_of

_NOW = 1_800_000_000
_URL = "https://ci.example"
_KEY = rsa.generate_private_key(65537, 2048)

_GITHUB: dict[str, Any] = {
    "sub": "repo:acme/web:ref:refs/heads/main",
    "repository": "acme/web",
    "repository_id": "4242",
    "repository_owner": "acme",
    "repository_owner_id": "17",
    "ref": "refs/heads/main",
    "ref_type": "branch",
    "event_name": "push",
    "environment": "production",
    "job_workflow_ref": "acme/web/.github/workflows/release.yml@refs/heads/main",
    "runner_environment": "github-hosted",
    "run_attempt": "1",
}
_GITLAB: dict[str, Any] = {
    "sub": "project_path:acme/web:ref_type:tag:ref:v1.2",
    "namespace_path": "acme",
    "project_path": "acme/web",
    "project_id": "22",
    "ref": "v1.2",
    "ref_type": "tag",
    "ref_protected": "true",
    "user_access_level": "maintainer",
    "jti": "a1",
    "nbf": _NOW - 5,
}
_KUBERNETES: dict[str, Any] = {
    "sub": "system:serviceaccount:ci:builder",
    "aud": ["other", "moorage"],
    "nbf": _NOW,
    "kubernetes.io": {
        "namespace": "ci",
        "serviceaccount": {"name": "builder", "uid": "0f3c"},
        "pod": {"name": "job-1", "uid": "77"},
        "warnafter": _NOW + 3607,
    },
}


class Keys:
    """The issuer's keys, if it can be reached."""

    def __init__(self) -> None:
        self.is_down = False

    async def find(self, header: Mapping[str, Any], algorithm: str) -> TrustedKey:
        """See ``KeyFinder``."""
        if self.is_down:
            raise IssuerUnavailable("down")
        return KeySet.of_jwks({"keys": [jwk_of(_KEY, kid="k")]}, algorithms=("RS256",)).select(header, algorithm)


def _publisher(name: str = "web", *, ttl: int = 900, issuer: str = "ci", **claims: Any) -> PublisherConfig:
    rules = tuple(
        ClaimRule(tuple(path.split("__")), tuple(map(TextPattern, [texts] if isinstance(texts, str) else texts)))
        for path, texts in claims.items()
    )
    return PublisherConfig(name, issuer, rules, (RepositoryPattern("acme/**"),), frozenset({Action.PULL}), ttl)


_WANTED: dict[str, Any] = {"kubernetes.io__namespace": "ci"}
_IN_NAMESPACE = _publisher(**_WANTED)
_BUILDER = _publisher(**{**_WANTED, "kubernetes.io__serviceaccount__name": "builder"})


def _publishers(*publishers: PublisherConfig, keys: Keys | None = None) -> Publishers:
    issuer = CiIssuer("ci", _URL, "moorage", keys or Keys())
    return Publishers([issuer], publishers, clock=lambda: float(_NOW))


def _token(claims: Mapping[str, Any], *, header: Mapping[str, Any] | None = None, **different: Any) -> str:
    usual = {"iss": _URL, "aud": "moorage", "iat": _NOW - 5, "exp": _NOW + 300}
    forger = Forger(_KEY, {"typ": "JWT", "alg": "RS256", "kid": "k"}, {**usual, **claims})
    return forger(header=header, **different)


async def _refusal(publishers: Publishers, raw: str) -> str:
    with pytest.raises(BadCredentials) as caught:
        await publishers.exchange(raw)
    return str(caught.value)


@pytest.mark.parametrize(
    ("claims", "publisher", "header"),
    [
        pytest.param(_GITHUB, _publisher(repository="acme/web", ref="refs/heads/main"), {}, id="GitHub"),
        pytest.param(_GITHUB, _publisher(sub="repo:acme/*:ref:refs/heads/main"), {}, id="GitHub, by subject"),
        pytest.param(
            _GITHUB, _publisher(job_workflow_ref="acme/web/.github/workflows/*@**"), {}, id="GitHub, workflow"
        ),
        pytest.param(_GITHUB, _publisher(repository_id="4242"), {}, id="GitHub, by number"),
        pytest.param(_GITHUB, _publisher(environment=["staging", "production"]), {}, id="GitHub, one of a list"),
        pytest.param(_GITLAB, _publisher(project_path="acme/*", ref_protected="true", ref="v*"), {}, id="GitLab"),
        pytest.param(
            _KUBERNETES,
            _BUILDER,
            {"typ": None},
            id="Kubernetes",
        ),
        pytest.param({**_GITHUB, "protected": True}, _publisher(protected="true"), {}, id="a boolean"),
        pytest.param({**_GITHUB, "run": 7}, _publisher(run="7"), {}, id="a number"),
        pytest.param({**_GITHUB, "groups": ["a", "b"]}, _publisher(groups="b"), {}, id="one of the token's list"),
        pytest.param(_GITHUB, _publisher(repository="acme/web"), {"typ": "at+jwt"}, id="an access token (RFC 9068)"),
    ],
)
async def test_a_job_that_a_publisher_wants(
    claims: dict[str, Any], publisher: PublisherConfig, header: dict[str, Any]
) -> None:
    """Is somebody of the issuer's own namespace (T6), in the publisher's group."""
    principal = await _publishers(publisher).exchange(_token(claims, header=header))
    assert principal == Principal(f"oidc:ci:{claims['sub']}", frozenset({"publisher:web"}))


@pytest.mark.parametrize(
    ("claims", "publisher"),
    [
        pytest.param(_GITHUB, _publisher(repository="acme/web", ref="refs/tags/*"), id="one claim of two"),
        pytest.param(_GITHUB, _publisher(repository="acme/we"), id="a part of it"),
        pytest.param(_GITHUB, _publisher(repository="*"), id="a star ends at a slash"),
        pytest.param(_GITHUB, _publisher(sub="repo:acme/*"), id="a star ends at a colon"),
        pytest.param(_GITHUB, _publisher(repository_visibility="private"), id="a claim that is not there"),
        pytest.param({**_GITHUB, "environment": None}, _publisher(environment="*"), id="null is not there"),
        pytest.param({**_GITHUB, "run": 1.0}, _publisher(run="1.0"), id="a fraction is never compared"),
        pytest.param({**_GITHUB, "ref": {"ref": "x"}}, _publisher(ref="*"), id="an object"),
        pytest.param({**_GITHUB, "groups": []}, _publisher(groups="*"), id="an empty list"),
        pytest.param({**_GITHUB, "groups": [["a"]]}, _publisher(groups="a"), id="a list in a list"),
        pytest.param({**_GITHUB, "kubernetes.io": "ci"}, _IN_NAMESPACE, id="no object"),
        pytest.param({**_GITHUB, "kubernetes.io.namespace": "ci"}, _IN_NAMESPACE, id="dots"),
        pytest.param(_GITHUB, _publisher(), id="a publisher without claims wants nobody"),
        pytest.param(_GITHUB, _publisher(issuer="other", repository="acme/web"), id="another issuer's publisher"),
        pytest.param({**_GITHUB, "sub": ""}, _publisher(repository="acme/web"), id="nobody in particular"),
    ],
)
async def test_a_job_that_nobody_wants(claims: dict[str, Any], publisher: PublisherConfig) -> None:
    """Gets nothing; the log learns whose it was."""
    refusal = await _refusal(_publishers(publisher), _token(claims))
    assert refusal == f"a CI token: no trusted publisher for {claims['sub']!r} of ci"


@pytest.mark.parametrize(
    ("different", "header", "reason"),
    [
        pytest.param({"aud": "https://github.com/acme"}, {}, "aud", id="a wrong audience"),
        pytest.param({"aud": None}, {}, "aud", id="no audience"),
        pytest.param({"iss": "https://ci.example.evil"}, {}, "iss", id="another issuer"),
        pytest.param({"iss": "https://ci.example/"}, {}, "iss", id="nearly the issuer"),
        pytest.param({"iss": [_URL]}, {}, "iss", id="a list of issuers"),
        pytest.param({"exp": _NOW - 31}, {}, "expired", id="expired"),
        pytest.param({"exp": None}, {}, "exp", id="never expires"),
        pytest.param({"iat": _NOW + 31}, {}, "iat-future", id="from the future"),
        pytest.param({"nbf": _NOW + 31}, {}, "nbf-future", id="not yet"),
        pytest.param({"sub": None}, {}, "sub", id="no subject"),
        pytest.param({"sub": "repo\nalice"}, {}, "sub", id="a subject of two lines"),
        pytest.param({}, {"alg": "HS256"}, "algorithm", id="a secret's algorithm"),
        pytest.param({}, {"alg": "PS256"}, "algorithm", id="an algorithm that is not allowed"),
        pytest.param({}, {"kid": "other"}, "key-unknown", id="an unknown key"),
        pytest.param({}, {"kid": None}, "key-unknown", id="no key named"),
        pytest.param({}, {"typ": "logout+jwt"}, "typ", id="a token for something else"),
    ],
)
async def test_tokens_that_are_not_believed(different: dict[str, Any], header: dict[str, Any], reason: str) -> None:
    """Whatever they claim."""
    publishers = _publishers(_publisher(repository="acme/web"))
    assert await _refusal(publishers, _token(_GITHUB, header=header, **different)) == f"a CI token: {reason}"


async def test_a_forged_token() -> None:
    """Signed by somebody else under the same name; or no token at all."""
    publishers = _publishers(_publisher(repository="acme/web"))
    mallory = Forger(rsa.generate_private_key(65537, 2048), {"alg": "RS256", "kid": "k"}, {**_GITHUB, "iss": _URL})
    assert await _refusal(publishers, mallory()) == "a CI token: signature"
    assert await _refusal(publishers, _token({**_GITHUB, "padding": "x" * 8000})) == "a CI token: too-long"
    for raw in ("", "password", "a.b.c", "." * 9000):
        assert (await _refusal(publishers, raw)).startswith("a CI token: ")


async def test_several_publishers() -> None:
    """The job belongs to all that want it, and its tokens live as long as the strictest says."""
    publishers = _publishers(
        _publisher("one", ttl=3600, repository="acme/web"),
        _publisher("two", ttl=120, ref="refs/heads/*"),
        _publisher("three", ttl=60, repository="acme/api"),
    )
    principal = await publishers.exchange(_token(_GITHUB))
    assert principal.groups == {"publisher:one", "publisher:two"}
    assert publishers.ttl(principal) == 120
    assert publishers.ttl(Principal("oidc:ci:x", frozenset({"publisher:gone"}))) == 60


def test_two_issuers_of_one_url() -> None:
    """Which audience and which keys count could not be told."""
    twins = [CiIssuer(name, _URL, "moorage", Keys()) for name in ("one", "two")]
    with pytest.raises(ConfigurationError, match="two of them have the same url"):
        Publishers(twins, [])


async def test_an_unreachable_issuer() -> None:
    """Is not the job's fault: nobody can say whether its token is good."""
    keys = Keys()
    keys.is_down = True
    with pytest.raises(IssuerUnavailable):
        await _publishers(_publisher(repository="acme/web"), keys=keys).exchange(_token(_GITHUB))
