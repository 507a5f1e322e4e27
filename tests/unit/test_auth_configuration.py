"""The ``--auth`` file: what it says is what is in force, and what it cannot mean refuses it, with the place."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from moorage.auth.configuration import AuthConfig, ClaimRule, IssuerConfig, PublisherConfig, TokenIssuerConfig
from moorage.auth.errors import ConfigurationError
from moorage.auth.patterns import RepositoryPattern, TextPattern
from moorage.auth.policy import Action, decide
from moorage.auth.principal import ANONYMOUS, Principal

_HASH = "$2y$10$" + "." * 53
_WHOLE = """\
htpasswd: accounts
groups:
  developers: [alice, bob, robot:builder]
rules:
  - name: developers
    who: [group:developers, "robot:ci-*"]
    repositories: ["apps/**", base/os]
    actions: [pull, push]
  - name: admin
    who: [carol]
    repositories: ["**"]
    actions: [pull, create, update, delete, catalog]
  - name: lister
    who: ["*"]
    actions: [catalog]
anonymous:
  - repositories: ["public/**"]
    actions: [pull]
immutable_tags:
  - repositories: ["apps/**"]
    tags: ["v*"]
issuers:
  - name: github
    url: https://token.actions.githubusercontent.com
    audience: https://registry.acme.test
  - name: cluster
    url: https://kubernetes.default.svc
    audience: moorage
    algorithms: [ES256, RS256]
    keys: keys.json
publishers:
  - name: web
    issuer: github
    claims:
      repository: acme/web
      ref: [refs/heads/main, "refs/tags/*"]
      ref_protected: true
      run_attempt: 1
    repositories: [apps/web]
    actions: [pull, push]
    ttl: 600
  - name: builder
    issuer: cluster
    claims:
      kubernetes.io: {namespace: ci, serviceaccount: {name: builder}}
    repositories: ["build/*"]
    actions: [pull, create]
token_issuers:
  - name: old
    issuer: Acme auth
    service: registry
    certificates: bundle.pem
    repositories: ["legacy/**"]
token_ttl: 120
certificates: bundle.pem
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A directory with every file that the documents here name."""
    (tmp_path / "accounts").write_text(f"alice:{_HASH}\n")
    (tmp_path / "keys.json").write_text("{}")
    (tmp_path / "bundle.pem").write_text("")
    return tmp_path


def _load(folder: Path, text: str) -> AuthConfig:
    file = folder / "auth.yaml"
    file.write_text(text)
    return AuthConfig.load(str(file))


def test_the_whole_of_it(folder: Path) -> None:
    """Every key, and what becomes of it."""
    config = _load(folder, _WHOLE)
    assert config.htpasswd == str(folder / "accounts")
    assert config.certificates == str(folder / "bundle.pem")
    assert (config.token_ttl, config.basic_only) == (120, False)
    assert config.groups == {"developers": {"alice", "bob", "robot:builder"}}
    assert config.groups_of("robot:builder") == {"developers"}
    assert config.groups_of("builder") == frozenset()
    assert config.issuers == (
        IssuerConfig("github", "https://token.actions.githubusercontent.com", "https://registry.acme.test"),
        IssuerConfig(
            "cluster", "https://kubernetes.default.svc", "moorage", ("ES256", "RS256"), keys=str(folder / "keys.json")
        ),
    )
    assert config.token_issuers == (
        TokenIssuerConfig(
            "old",
            "Acme auth",
            "registry",
            ("EdDSA", "ES256", "PS256", "RS256"),
            (RepositoryPattern("legacy/**"),),
            certificates=str(folder / "bundle.pem"),
        ),
    )


def test_publishers(folder: Path) -> None:
    """Claims may be lists, nested, numbers and booleans; a publisher is a rule for the group of its name."""
    web, builder = _load(folder, _WHOLE).publishers
    assert web == PublisherConfig(
        "web",
        "github",
        (
            ClaimRule(("repository",), (TextPattern("acme/web"),)),
            ClaimRule(("ref",), (TextPattern("refs/heads/main"), TextPattern("refs/tags/*"))),
            ClaimRule(("ref_protected",), (TextPattern("true"),)),
            ClaimRule(("run_attempt",), (TextPattern("1"),)),
        ),
        (RepositoryPattern("apps/web"),),
        frozenset({Action.PULL, Action.CREATE, Action.UPDATE}),
        600,
    )
    assert [one.path for one in builder.claims] == [
        ("kubernetes.io", "namespace"),
        ("kubernetes.io", "serviceaccount", "name"),
    ]
    assert builder.ttl == 900


@pytest.mark.parametrize(
    ("name", "groups", "action", "repository", "rule"),
    [
        ("alice", ["developers"], Action.CREATE, "apps/web", "developers"),
        ("alice", ["developers"], Action.DELETE, "apps/web", "default"),
        ("robot:ci-web", [], Action.UPDATE, "base/os", "developers"),
        ("robot:other", [], Action.PULL, "base/os", "default"),
        ("carol", [], Action.DELETE, "x", "admin"),
        ("dave", [], Action.CATALOG, "", "lister"),
        ("robot:ci-web", [], Action.CATALOG, "", "default"),
        ("oidc:github:x", ["publisher:web"], Action.UPDATE, "apps/web", "publisher:web"),
        ("oidc:cluster:x", ["publisher:builder"], Action.UPDATE, "build/a", "default"),
        ("", [], Action.PULL, "public/a", "anonymous[0]"),
        ("", [], Action.PULL, "apps/web", "default"),
    ],
)
def test_the_policy_that_it_makes(
    folder: Path, name: str, groups: list[str], action: Action, repository: str, rule: str
) -> None:
    """``push`` is create and update; each decision names the rule that the operator wrote."""
    policy = _load(folder, _WHOLE).policy
    assert decide(policy, Principal(name, frozenset(groups)), action, repository).rule == rule
    assert policy.is_immutable("apps/web", "v1")
    assert not policy.is_immutable("apps/web", "latest")


def test_the_least(folder: Path) -> None:
    """A file without rules allows nobody anything."""
    config = _load(folder, "htpasswd: accounts")
    for who in (ANONYMOUS, Principal("alice"), Principal("robot:x")):
        assert not any(decide(config.policy, who, action, "a") for action in Action)


def _publisher(claims: str, issuer: str = "https://token.actions.githubusercontent.com", extra: str = "") -> str:
    return (
        f"issuers: [{{name: i, url: '{issuer}', audience: a}}]\n"
        f"publishers: [{{name: p, issuer: i, claims: {claims}, repositories: [a], actions: [pull]{extra}}}]"
    )


def _with_realm(name: str) -> str:
    source = "jwks_file: keys.json, realm: 'https://auth.acme.test/token'"
    return f"{{name: {name}, issuer: i, service: s, repositories: [a], {source}}}"


def _token_issuer(sources: str) -> str:
    return f"token_issuers: [{{name: o, issuer: i, service: s, repositories: [a]{sources}}}]"


def _rule(who: str = "[alice]", repositories: str = "[a]", actions: str = "[pull]") -> str:
    return f"rules: [{{name: r, who: {who}, repositories: {repositories}, actions: {actions}}}]"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("", "auth.yaml is empty", id="empty"),
        pytest.param("a: [", "auth.yaml is not YAML: ", id="no YAML"),
        pytest.param("- a", "line 1: expected 'name: value' lines", id="a list"),
        pytest.param(
            "htpasswd: accounts\nrule: []",
            "line 2, rule: there is no such setting; the nearest is 'rules'",
            id="unknown key",
        ),
        pytest.param("basic_only: true\nbasic_only: false", "line 2, basic_only: stands twice", id="twice"),
        pytest.param("htpasswd: nowhere", "line 1, htpasswd: there is no file ", id="no such file"),
        pytest.param("basic_only: maybe", "basic_only: expected true or false, got 'maybe'", id="no switch"),
        pytest.param("token_ttl: 30", "token_ttl: expected 60 to 900 seconds, got '30'", id="too short"),
        pytest.param("token_ttl: 901", "token_ttl: expected 60 to 900 seconds, got '901'", id="too long"),
        pytest.param("token_ttl: true", "token_ttl: expected 60 to 900 seconds, got 'true'", id="no number"),
        pytest.param("htpasswd: 5", "htpasswd: expected a text, got '5': put it in quotes", id="no text"),
        pytest.param("htpasswd: <the accounts>", "'<the accounts>' is a sample: put in your own value", id="T2 sample"),
        pytest.param("htpasswd: CHANGE_ME", "'CHANGE_ME' is a sample", id="T2 another sample"),
        pytest.param("groups: {Dev: [alice]}", "groups.Dev: a group is called by lower-case", id="name of a group"),
        pytest.param("groups: {dev: alice}", "groups.dev: expected a list, such as [first, second]", id="no list"),
        pytest.param(
            "groups: {dev: [robot:*]}", "groups.dev[0]: 'robot:*': '*' is no name for a robot", id="star member"
        ),
        pytest.param(
            "groups: {dev: [oidc:github:x]}", "groups.dev[0]: 'oidc:github:x': ", id="outsider as member (T6)"
        ),
        pytest.param(_rule(who="[]"), "rules[0].who: expected a list", id="nobody"),
        pytest.param(_rule(who="[group:dev]"), "there is no group 'dev': there is no 'groups'", id="no groups"),
        pytest.param(
            "groups: {devs: [a]}\n" + _rule(who="[group:dev]"),
            "line 2, rules[0].who[0]: 'group:dev': there is no group 'dev'; the nearest is 'devs'",
            id="no such group",
        ),
        pytest.param(
            _rule(who="[publisher:p]"), "what a CI job may do stands under 'publishers'", id="a publisher as who"
        ),
        pytest.param(
            _rule(who="['oidc:github:*']"), "what a CI job may do stands under 'publishers'", id="oidc as who"
        ),
        pytest.param(_rule(who="['issuer:old:x']"), "stands under 'token_issuers'", id="issuer as who"),
        pytest.param(_rule(who="[anonymous]"), "what everybody may do stands under 'anonymous'", id="anonymous as who"),
        pytest.param(_rule(who="['ali*ce']"), "'ali*ce' is no name for an account", id="a star within"),
        pytest.param(
            _rule(repositories="[Apps/*]"),
            "rules[0].repositories[0]: 'Apps/*': no repository can have such a name",
            id="pattern",
        ),
        pytest.param(
            _rule(actions="[pull, pusj]"),
            "rules[0].actions[1]: 'pusj' is unknown; the nearest that is known is 'push'",
            id="action",
        ),
        pytest.param(
            "rules: [{name: r, who: [a], actions: [pull]}]", "rules[0]: 'repositories' is missing", id="nowhere"
        ),
        pytest.param("rules: [{who: [a], actions: [pull]}]", "rules[0]: 'name' is missing", id="no name"),
        pytest.param(
            _rule().replace("]}]", "]}, {name: r, who: [b], repositories: [b], actions: [pull]}]"),
            "the name 'r' stands twice under rules",
            id="same name",
        ),
        pytest.param(
            "anonymous: [{repositories: [a], actions: [pull], who: [b]}]",
            "anonymous[0].who: there is no such setting",
            id="anonymous with who",
        ),
        pytest.param(
            "immutable_tags: [{repositories: [a], tags: ['v**1']}]", "'v**1': '**' may stand only at the end", id="tags"
        ),
        pytest.param(_publisher("{}"), "let in whoever the issuer gives a token", id="no claims"),
        pytest.param(_publisher("{sub: '*', ref: '**'}"), "let in whoever", id="claims of everybody"),
        pytest.param(
            _publisher("{ref: refs/heads/main}"),
            "everybody can get a token from token.actions.githubusercontent.com: say whose",
            id="whose job",
        ),
        pytest.param(_publisher("{repository: '*/web'}"), "without a '*' before its first '/'", id="any owner"),
        pytest.param(
            _publisher("{repository: [acme/web, 'acme*/web']}"),
            "without a '*' before its first '/'",
            id="a prefix of owners",
        ),
        pytest.param(
            _publisher("{sub: x, iat: 1.5}"),
            "claims.iat: expected a text, got '1.5': put it in quotes",
            id="a fraction",
        ),
        pytest.param(_publisher("&a {sub: *a}"), "claims do not lie that deep", id="endless"),
        pytest.param(
            _publisher("{sub: x}", extra=", ttl: 7200"), "ttl: expected 60 to 3600 seconds", id="publisher's ttl"
        ),
        pytest.param(
            _publisher("{sub: x}").replace("[pull]", "[catalog]"),
            "a CI job is not shown the catalog",
            id="publisher's catalog",
        ),
        pytest.param(
            _publisher("{sub: x}").replace("issuer: i", "issuer: j"),
            "publishers[0].issuer: 'j' is unknown",
            id="unknown issuer",
        ),
        pytest.param(
            "publishers: [{name: p, issuer: i, claims: {a: b}, repositories: [a], actions: [pull]}]",
            "no 'issuers' in this file",
            id="no issuers",
        ),
        pytest.param(
            _publisher("{sub: x}", "http://issuer.acme.test"),
            "issuers[0].url: 'http://issuer.acme.test': expected https",
            id="http",
        ),
        pytest.param(_publisher("{sub: x}", "https://issuer.example.com"), "that is a sample", id="T2 sample issuer"),
        pytest.param(_publisher("{sub: x}", "https://a:b@issuer.acme.test"), "without user", id="userinfo"),
        pytest.param(_publisher("{sub: x}", "https://issuer.acme.test?x=1"), "without user, query", id="query"),
        pytest.param(_publisher("{sub: x}", "issuer"), "expected an https URL", id="no URL"),
        pytest.param(
            _publisher("{sub: x}").replace("audience: a", "audience: a, algorithms: [HS256]"),
            "'HS256' is unknown",
            id="T3 symmetric",
        ),
        pytest.param(
            _publisher("{sub: x}").replace("audience: a", "audience: a, algorithms: [none]"),
            "'none' is unknown",
            id="T3 none",
        ),
        pytest.param(
            _publisher("{sub: x}").replace("name: i,", "name: 'i:x',"),
            "'i:x' is no name here",
            id="T6 a namespace in a name",
        ),
        pytest.param(_token_issuer(""), "exactly one of 'certificates', 'jwks_file' and 'jwks_url'", id="no keys"),
        pytest.param(
            _token_issuer(", certificates: bundle.pem, jwks_file: keys.json"), "exactly one of", id="two sources"
        ),
        pytest.param(
            _token_issuer(", jwks_file: keys.json, realm: 'http://192.0.2.1/token'"),
            "realm: 'http://192.0.2.1/token': expected https",
            id="a realm over http",
        ),
        pytest.param(
            f"token_issuers: [{_with_realm('a')}, {_with_realm('b')}]",
            "clients can be sent to one token server only: leave one 'realm'",
            id="two realms",
        ),
        pytest.param(
            _token_issuer(", jwks_url: 'http://192.0.2.1/keys'"),
            "jwks_url: 'http://192.0.2.1/keys': expected https",
            id="JWKS over http",
        ),
    ],
)
def test_what_is_wrong_is_refused_with_its_place(folder: Path, text: str, message: str) -> None:
    """One line, which begins with the file, says where and what, and shows no way to go on regardless."""
    with pytest.raises(ConfigurationError) as caught:
        _load(folder, text)
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(folder / "auth.yaml"))
    assert "\n" not in str(caught.value)


def test_the_example_of_the_readme(folder: Path) -> None:
    """Whoever copies it gets what it says."""
    readme = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
    (example,) = re.findall(r"```yaml\n(# moorage serve --auth .*?)```", readme, re.DOTALL)
    config = _load(folder, example)
    assert decide(config.policy, Principal("alice", config.groups_of("alice")), Action.CREATE, "apps/web")
    assert not decide(config.policy, Principal("mallory"), Action.PULL, "apps/web")


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9/issuer", "http://localhost:9", "http://[::1]:9", "https://a.acme.test/x"]
)
def test_issuers_over_http_are_on_loopback(folder: Path, url: str) -> None:
    """Nobody stands between us and ourselves."""
    assert _load(folder, _publisher("{sub: x}", url)).issuers[0].url == url


def test_a_broken_htpasswd_refuses_the_file(folder: Path) -> None:
    """A file that would fail at the first login fails now."""
    (folder / "accounts").write_text("alice:plain\n")
    with pytest.raises(ConfigurationError, match="accounts, line 1: the password of alice is not hashed"):
        _load(folder, "htpasswd: accounts")


def test_a_new_version_takes_effect_a_broken_one_does_not(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """T5: rules that are taken away are away at the next look; a mistake keeps what held before, and is logged."""
    seconds, file = [0.0], folder / "auth.yaml"
    _load(folder, _rule())
    watched = AuthConfig.watch(str(file), clock=lambda: seconds[0])
    for text, is_allowed in ((_rule(who="[bob]"), False), ("rules: [", False), (_rule(), True), ("rule: x", True)):
        _replace(file, text)
        seconds[0] += 1
        assert bool(decide(watched.current().policy, Principal("alice"), Action.PULL, "a")) is is_allowed
    assert len([record for record in caplog.records if record.levelname == "ERROR"]) == 2
    assert "there is no such setting" in caplog.text


def _replace(file: Path, text: str) -> None:
    new = file.with_suffix(".new")
    new.write_text(text)
    os.replace(new, file)
