"""Rights: never more than the policy of today, never more than the token, whatever either of them says."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from moorage.auth.patterns import RepositoryPattern, TextPattern
from moorage.auth.policy import CATALOG, Action, ImmutableTags, Policy, Rule, decide, permitted
from moorage.auth.principal import ANONYMOUS, Principal
from moorage.auth.scope import Resource, Scope
from moorage.registry.oci import Denied, RepositoryName, Tag, Unauthorized
from moorage.registry.wrap.rights import Rights, wire_scope

NAMES = st.sampled_from(["mine/boat", "mine/dock", "theirs/boat", "public"])
PATTERNS = st.sampled_from(["**", "mine/**", "mine/*", "theirs/boat", "public"]).map(RepositoryPattern)
RULES = st.builds(
    Rule,
    name=st.sampled_from(["one", "two"]),
    repositories=st.tuples(PATTERNS),
    actions=st.frozensets(st.sampled_from(Action)),
    principals=st.frozensets(st.sampled_from(["alice", "*", "robot:*"])),
    groups=st.frozensets(st.just("crew")),
)
POLICIES = st.builds(
    Policy,
    rules=st.lists(RULES, max_size=3).map(tuple),
    anonymous=st.lists(RULES, max_size=1).map(tuple),
    immutable_tags=st.lists(
        st.builds(ImmutableTags, st.tuples(PATTERNS), st.tuples(st.just(TextPattern("v*")))), max_size=1
    ).map(tuple),
)
WHO = st.sampled_from(
    [ANONYMOUS, Principal("alice"), Principal("bob", frozenset({"crew"})), Principal("robot:ci"), Principal("oidc:x:y")]
)
WORDS = st.sampled_from(["pull", "push", "delete", "*", "admin"])
SCOPES = st.lists(
    st.tuples(NAMES.map(lambda name: Resource("repository", name)) | st.sampled_from([CATALOG]), WORDS), max_size=4
).map(lambda pairs: Scope(frozenset(pairs)))
ACTIONS = st.sampled_from([action for action in Action if action is not Action.CATALOG])
TAGS = st.none() | st.sampled_from(["v1", "latest"]).map(Tag)


@given(POLICIES, WHO, st.none() | SCOPES, NAMES, ACTIONS, TAGS)
def test_t6_no_token_gives_more_than_the_policy(
    policy: Policy, who: Principal, access: Scope | None, name: str, action: Action, tag: Tag | None
) -> None:
    """T6: with or without a token, what is allowed is allowed by policy; asking again changes nothing."""
    rights = Rights(who, policy, access)
    decision = rights.decide(action, RepositoryName(name), tag=tag)
    by_policy = decide(policy, who, action, name, tag=tag.value if tag else None)
    assert decision.allowed <= by_policy.allowed
    assert decision.allowed == by_policy.allowed or access is not None
    assert rights.decide(action, RepositoryName(name), tag=tag) == decision


@given(POLICIES, WHO, SCOPES, NAMES, ACTIONS)
def test_a_token_is_for_what_it_names(policy: Policy, who: Principal, access: Scope, name: str, action: Action) -> None:
    """It must cover what the challenge for this action asks for, the pull that goes with a push left aside."""
    if Rights(who, policy, access).decide(action, RepositoryName(name)).allowed:
        needed = Scope(frozenset(one for one in wire_scope(action, name).permissions if one[1] != "pull"))
        assert (access | Scope.repository(name, "pull")).covers(needed)


@given(POLICIES, WHO, NAMES, ACTIONS)
def test_the_token_of_a_challenge_is_enough(policy: Policy, who: Principal, name: str, action: Action) -> None:
    """Whoever may do something gets, for the scope that they are told, a token that lets them do it."""
    granted = permitted(policy, who, wire_scope(action, name))
    here = RepositoryName(name)
    assert Rights(who, policy, granted).decide(action, here).allowed == decide(policy, who, action, name).allowed


@given(POLICIES, st.none() | SCOPES, NAMES, ACTIONS, TAGS, st.lists(PATTERNS, max_size=2).map(tuple))
def test_an_issuer_speaks_for_its_own(
    policy: Policy,
    access: Scope | None,
    name: str,
    action: Action,
    tag: Tag | None,
    domain: tuple[RepositoryPattern, ...],
) -> None:
    """What another token server grants holds in its repositories only, and never against an immutable tag."""
    decision = Rights(Principal("issuer:x:y"), policy, access, domain).decide(action, RepositoryName(name), tag=tag)
    if decision.allowed:
        assert any(pattern.matches(name) for pattern in domain)
        is_change = action in (Action.UPDATE, Action.DELETE)
        assert not (tag is not None and is_change and policy.is_immutable(name, tag.value))


@given(POLICIES, WHO, st.none() | SCOPES, NAMES, ACTIONS)
def test_a_refusal_is_401_exactly_where_a_login_or_another_token_could_help(
    policy: Policy, who: Principal, access: Scope | None, name: str, action: Action
) -> None:
    """A named principal whom the policy refuses gets 403: coming again with another token would change nothing."""
    rights = Rights(who, policy, access)
    decision = rights.decide(action, RepositoryName(name))
    if not decision.allowed:
        could_help = who.is_anonymous or decide(policy, who, action, name).allowed
        assert isinstance(rights.refusal(decision), Unauthorized if could_help else Denied)


def test_whoever_may_push_hears_that_a_tag_is_immutable() -> None:
    """Else they would look for a rule that is missing."""
    crew = Rule("crew", (RepositoryPattern("mine/**"),), frozenset(Action), principals=frozenset({"alice"}))
    fixed = ImmutableTags((RepositoryPattern("mine/**"),), (TextPattern("v*"),))
    rights = Rights(Principal("alice"), Policy(rules=(crew,), immutable_tags=(fixed,)))
    refusals = [
        rights.refusal(rights.decide(Action.UPDATE, RepositoryName(name), tag=Tag("v1")))
        for name in ("mine/boat", "theirs/boat")
    ]
    assert ["immutable" in refusal.message for refusal in refusals] == [True, False]
