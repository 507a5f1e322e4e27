"""One function decides, and what it does not allow in so many words is denied."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moorage.auth.configuration import AuthConfig, PublisherConfig
from moorage.auth.patterns import RepositoryPattern, TextPattern
from moorage.auth.policy import CATALOG, IMMUTABLE, NO_RULE, Action, ImmutableTags, Policy, Rule, decide, permitted
from moorage.auth.principal import ANONYMOUS, Principal
from moorage.auth.scope import Resource, Scope

_PUSH = frozenset({Action.PULL, Action.CREATE, Action.UPDATE})
_IN_REPOSITORIES = [action for action in Action if action is not Action.CATALOG]


def _rule(name: str, patterns: str, actions: frozenset[Action], *who: str, groups: tuple[str, ...] = ()) -> Rule:
    repositories = tuple(RepositoryPattern(one) for one in patterns.split())
    return Rule(name, repositories, actions, principals=frozenset(who), groups=frozenset(groups))


_POLICY = Policy(
    rules=(
        _rule("developers", "apps/**", _PUSH, groups=("developers",)),
        _rule("release", "apps/web", frozenset({Action.CREATE}), "robot:release"),
        _rule("cleaner", "apps/* tmp/**", frozenset({Action.PULL, Action.DELETE}), "robot:cleaner", "carol"),
        _rule("scratch", "scratch/**", frozenset(Action) - {Action.CATALOG}, "*"),
        _rule("robots pull", "base/**", frozenset({Action.PULL}), "robot:*"),
        _rule("lister", "**", frozenset({Action.CATALOG}), "alice"),
        PublisherConfig("ci", "github", (), (RepositoryPattern("apps/web"),), _PUSH).rule(),
    ),
    anonymous=(_rule("public", "public/**", frozenset({Action.PULL})),),
    immutable_tags=(ImmutableTags((RepositoryPattern("apps/**"),), (TextPattern("v*"),)),),
)

_ALICE = Principal("alice", frozenset({"developers"}))
_BOB = Principal("bob")
_CAROL = Principal("carol")
_RELEASE = Principal("robot:release")
_CI = Principal("oidc:github:repo:org/web", frozenset({"publisher:ci"}))
_STRANGER = Principal("oidc:github:repo:org/other")
_OUTSIDER = Principal("issuer:old:alice")


@pytest.mark.parametrize(
    ("who", "repository", "allowed"),
    [
        pytest.param(_ALICE, "apps/web", "pull create update", id="a group"),
        pytest.param(_ALICE, "apps/web/cache", "pull create update", id="any depth"),
        pytest.param(_ALICE, "apps", "", id="the folder itself is none"),
        pytest.param(_ALICE, "appsx/web", "", id="a prefix ends at a slash"),
        pytest.param(_BOB, "apps/web", "", id="an account in no group"),
        pytest.param(_BOB, "scratch/x", "pull create update delete", id="a star: every account"),
        pytest.param(_RELEASE, "scratch/x", "", id="a star: no robot"),
        pytest.param(_CI, "scratch/x", "", id="a star: no CI job"),
        pytest.param(_OUTSIDER, "scratch/x", "", id="a star: nobody of another issuer"),
        pytest.param(_RELEASE, "base/os", "pull", id="every robot"),
        pytest.param(_RELEASE, "apps/web", "create", id="create without update"),
        pytest.param(_RELEASE, "apps/api", "", id="another repository"),
        pytest.param(_CAROL, "tmp/a/b", "pull delete", id="delete without push"),
        pytest.param(_CAROL, "apps/web", "pull delete", id="several patterns"),
        pytest.param(_CAROL, "apps/web/cache", "", id="one component"),
        pytest.param(_CI, "apps/web", "pull create update", id="a publisher"),
        pytest.param(_CI, "apps/api", "", id="a publisher elsewhere"),
        pytest.param(_STRANGER, "apps/web", "", id="a job that no publisher matched"),
        pytest.param(_OUTSIDER, "apps/web", "", id="another issuer's alice is not ours"),
        pytest.param(ANONYMOUS, "public/a", "pull", id="anonymous"),
        pytest.param(ANONYMOUS, "apps/web", "", id="anonymous elsewhere"),
        pytest.param(ANONYMOUS, "scratch/x", "", id="anonymous is no account"),
        pytest.param(_BOB, "public/a", "pull", id="what is for everybody is for those with a name too"),
        pytest.param(_ALICE, "apps/../base", "", id="no name"),
        pytest.param(_ALICE, "apps/*", "", id="a star in a request is no name (T6)"),
        pytest.param(_ALICE, "", "", id="no repository"),
    ],
)
def test_the_table(who: Principal, repository: str, allowed: str) -> None:
    """Each line: who, where, and everything that they may do there."""
    assert [one.value for one in _IN_REPOSITORIES if decide(_POLICY, who, one, repository)] == allowed.split()


@pytest.mark.parametrize(
    ("who", "action", "tag", "rule"),
    [
        (_ALICE, Action.UPDATE, "v1", IMMUTABLE),
        (_CAROL, Action.DELETE, "v1", IMMUTABLE),
        (_ALICE, Action.CREATE, "v1", "developers"),
        (_ALICE, Action.PULL, "v1", "developers"),
        (_ALICE, Action.UPDATE, "latest", "developers"),
        (_CAROL, Action.DELETE, "latest", "cleaner"),
        (_BOB, Action.PULL, "v1", NO_RULE),
    ],
)
def test_immutable_tags(who: Principal, action: Action, tag: str, rule: str) -> None:
    """Once there they are neither moved nor deleted, by nobody; the decision names the rule that made it."""
    decision = decide(_POLICY, who, action, "apps/web", tag=tag)
    assert decision.rule == rule
    assert decision.allowed is (rule not in (IMMUTABLE, NO_RULE))


def test_the_catalog_is_apart() -> None:
    """Who may pull everything may not list it for that, and the other way round."""
    assert decide(_POLICY, _ALICE, Action.CATALOG, "").rule == "lister"
    assert not decide(_POLICY, _BOB, Action.CATALOG, "")
    assert not decide(_POLICY, ANONYMOUS, Action.CATALOG, "")
    assert not decide(_POLICY, _ALICE, Action.PULL, "base/os")


@pytest.mark.parametrize(
    ("who", "action", "repository", "why"),
    [
        (_ALICE, Action.PULL, "apps/web", "rule 'developers' allows pull"),
        (_BOB, Action.PULL, "apps/web", "no rule that names bob or everybody covers apps/web: 'scratch', 'public'"),
        (_RELEASE, Action.PULL, "apps/web", "in apps/web robot:release has create (rule 'release'), but not pull"),
        (ANONYMOUS, Action.PULL, "apps/web", "no rule that is for everybody covers apps/web: 'public'"),
        (ANONYMOUS, Action.CATALOG, "", "no rule that is for everybody allows catalog"),
        (_ALICE, Action.PULL, "Apps", "that is not the name of a repository"),
    ],
)
def test_a_decision_says_why(who: Principal, action: Action, repository: str, why: str) -> None:
    """In words that name what the operator wrote."""
    assert decide(_POLICY, who, action, repository).why == why


def test_nothing_is_allowed_by_default() -> None:
    """An empty policy denies everybody everything."""
    for who in (_ALICE, ANONYMOUS, _CI, Principal("robot:x", frozenset({"*"}))):
        assert not any(decide(Policy(), who, action, "a") for action in Action)
    assert decide(Policy(), ANONYMOUS, Action.PULL, "a").why == "there is no rule for anonymous requests"
    assert decide(Policy(), _BOB, Action.PULL, "a").why == "no rule names bob"


def test_htpasswd_alone_opens_to_accounts() -> None:
    """Accounts and robots may do everything, nobody else anything."""
    policy = AuthConfig.open_to_accounts("accounts").policy
    for who, is_allowed in ((_BOB, True), (_RELEASE, True), (_CI, False), (_OUTSIDER, False), (ANONYMOUS, False)):
        assert {bool(decide(policy, who, action, "a/b", tag="v1")) for action in Action} == {is_allowed}


@pytest.mark.parametrize(
    ("who", "requested", "granted"),
    [
        (_ALICE, "repository:apps/web:pull,push", "repository:apps/web:pull,push"),
        (_ALICE, "repository:apps/web:delete,pull", "repository:apps/web:pull"),
        (_ALICE, "repository:apps/web:*", "repository:apps/web:pull,push"),
        (_RELEASE, "repository:apps/web:pull,push", "repository:apps/web:push"),
        (_ALICE, "registry:catalog:*", "registry:catalog:*"),
        (_BOB, "registry:catalog:*", ""),
        (_ALICE, "registry:catalog:pull", ""),
        (_ALICE, "repository:apps/web:admin", ""),
        (_ALICE, "repository(plugin):apps/web:pull", ""),
        (_ALICE, "registry:apps/web:pull", ""),
        (_BOB, "repository:*:pull repository:scratch/*:pull repository:**:*", ""),
        (_ALICE, "repository:apps/web:pull repository:base/os:pull", "repository:apps/web:pull"),
        (ANONYMOUS, "repository:public/a:pull,push", "repository:public/a:pull"),
        (_ALICE, "", ""),
    ],
)
def test_granted_is_requested_and_allowed(who: Principal, requested: str, granted: str) -> None:
    """T6: a subset is no error, a star in a request stands for what the policy gives, other words for nothing."""
    assert str(permitted(_POLICY, who, Scope.parse(requested))) == granted


_WHO = st.sampled_from([_ALICE, _BOB, _CAROL, _RELEASE, _CI, _STRANGER, _OUTSIDER, ANONYMOUS])
_NAMES = "a apps/web apps/api apps/web/cache scratch/x public/a tmp/x apps/* * catalog"
_TEXTS = st.sampled_from(_NAMES.split())
_WORDS = st.sampled_from(["pull", "push", "delete", "*", "create", "update", "catalog", "PULL"])
_TYPES = st.sampled_from(["repository", "registry", "other"])
_RESOURCES = st.builds(Resource, _TYPES, _TEXTS, st.sampled_from(["", "plugin"]))
_SCOPES = st.frozensets(st.tuples(_RESOURCES, _WORDS), max_size=8).map(Scope)
_RULES = st.builds(
    Rule,
    st.just("r"),
    st.lists(st.sampled_from(["**", "apps/**", "apps/*", "*", "public/a"]).map(RepositoryPattern), max_size=2).map(
        tuple
    ),
    st.frozensets(st.sampled_from(Action)),
    st.frozensets(st.sampled_from(["*", "alice", "robot:*", "oidc:github:*"]), max_size=2),
    st.frozensets(st.sampled_from(["developers", "publisher:ci"]), max_size=1),
)
_POLICIES = st.builds(
    Policy,
    st.lists(_RULES, max_size=3).map(tuple),
    st.lists(_RULES, max_size=1).map(tuple),
    st.just(_POLICY.immutable_tags),
)
_WIRE = {"pull": {Action.PULL}, "push": {Action.CREATE, Action.UPDATE}, "delete": {Action.DELETE}}


@given(_POLICIES, _WHO, _SCOPES)
def test_no_token_grants_more_than_policy(policy: Policy, who: Principal, requested: Scope) -> None:
    """T6: every permission granted was asked for, is understood, and is allowed by a decision of its own."""
    granted = permitted(policy, who, requested)
    assert requested.covers(granted)
    for resource, word in granted.permissions:
        if resource == CATALOG:
            assert decide(policy, who, Action.CATALOG, "")
        else:
            assert (resource.type, resource.kind) == ("repository", "")
            assert any(decide(policy, who, action, resource.name) for action in _WIRE[word])


@given(_POLICIES, _WHO, _SCOPES)
def test_what_is_allowed_is_granted(policy: Policy, who: Principal, requested: Scope) -> None:
    """The other half: nothing that is asked for in the protocol's words and allowed goes missing."""
    granted = permitted(policy, who, requested)
    for resource, word in requested.permissions:
        if (resource.type, resource.kind) == ("repository", ""):
            for action in _WIRE.get(word, set()):
                if decide(policy, who, action, resource.name):
                    assert (resource, word) in granted.permissions


@given(_POLICIES, _WHO, st.sampled_from(Action), _TEXTS, st.sampled_from([None, "v1", "latest"]), st.integers(0, 3))
def test_less_policy_allows_no_more(
    policy: Policy, who: Principal, action: Action, repository: str, tag: str | None, removed: int
) -> None:
    """Rules only allow: with one fewer nobody may do what they might not before."""
    fewer = Policy(policy.rules[:removed] + policy.rules[removed + 1 :], policy.anonymous, policy.immutable_tags)
    if decide(fewer, who, action, repository, tag=tag):
        assert decide(policy, who, action, repository, tag=tag)


@given(_POLICIES, _WHO, st.sampled_from(Action), _TEXTS)
def test_a_tag_never_opens_anything(policy: Policy, who: Principal, action: Action, repository: str) -> None:
    """What a tag adds to a question can only deny."""
    if decide(policy, who, action, repository, tag="v1"):
        assert decide(policy, who, action, repository)


def test_nobody_is_named_like_an_insider() -> None:
    """T6: whatever an issuer calls its subject, the name stays in the issuer's namespace and on one line."""
    rule = _rule("admin", "**", frozenset(Action), "alice", "*", "robot:*")
    for name in ("oidc:github:alice", "issuer:old:robot:ci", "oidc:x:\nalice", "issuer:a:*"):
        assert not decide(Policy((rule,)), Principal(name), Action.PULL, "a")
        assert "\n" not in str(Principal(name))
    assert str(ANONYMOUS) == "anonymous"


def test_what_is_remembered_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many principals come, each gets the rules that are about them, and the memory stays small."""
    monkeypatch.setattr("moorage.auth.policy._REMEMBERED", 3)
    policy = Policy(_POLICY.rules, _POLICY.anonymous)
    for who in (_ALICE, _BOB, _CAROL, _RELEASE, _CI, ANONYMOUS, _ALICE, Principal("alice")) * 2:
        expected = tuple(rule for rule in policy.rules if rule.names(who)) + policy.anonymous
        assert policy.rules_for(who) == expected
    assert len(policy._known) == 3
