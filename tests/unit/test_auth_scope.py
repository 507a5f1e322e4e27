"""Scopes are sets: what is parsed is what is meant, and union and coverage keep the laws of sets."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moorage.auth.scope import Resource, Scope

_ACTIONS = ("pull", "push", "delete", "*")
_RESOURCES = st.builds(
    Resource,
    st.sampled_from(["repository", "registry"]),
    st.sampled_from(["a", "a/b", "a__b/c-d", "host:5000/a/b", "catalog"]),
    st.sampled_from(["", "plugin"]),
)
_SCOPES = st.lists(st.tuples(_RESOURCES, st.sampled_from(_ACTIONS)), max_size=6).map(
    lambda pairs: Scope(frozenset(pairs))
)


def _permits(scope: Scope) -> set[tuple[Resource, str]]:
    """Every permission spelled out, over the actions that the tests know."""
    spelled = {
        (resource, action)
        for resource, granted in scope.permissions
        for action in (_ACTIONS if granted == "*" else (granted,))
    }
    return spelled | set(scope.permissions)


@pytest.mark.parametrize(
    ("raw", "resource", "actions"),
    [
        ("repository:a/b:pull,push", Resource("repository", "a/b"), ["pull", "push"]),
        ("repository:host:5000/a:pull", Resource("repository", "host:5000/a"), ["pull"]),
        ("repository(plugin):a/b:push", Resource("repository", "a/b", "plugin"), ["push"]),
        ("registry:catalog:*", Resource("registry", "catalog"), ["*"]),
        ("repository:a:metadata_read", Resource("repository", "a"), ["metadata_read"]),
    ],
)
def test_scopes_are_parsed(raw: str, resource: Resource, actions: list[str]) -> None:
    """The type ends at the first colon, the actions begin after the last."""
    assert Scope.parse(raw) == Scope.of(resource, actions)
    assert str(Scope.parse(raw)) == raw


@pytest.mark.parametrize(
    "raw",
    ["repository", "repository:a", "repository:a:", ":a:pull", "repository:a:pull,", "repository:a:,pull",
     "Repository:a:pull", "repository(:a:pull", 'repository:"a":pull', "repository:ü:pull", "repository:a\x00:pull"],
)  # fmt: skip
def test_other_texts_are_refused(raw: str) -> None:
    """Rather than guessed at."""
    with pytest.raises(ValueError, match="not a scope"):
        Scope.parse(raw)


def test_several_resources_share_a_text() -> None:
    """Separated by spaces; one resource may stand twice."""
    scope = Scope.parse("repository:b:pull  repository:a:push repository:a:pull")
    assert list(scope) == ["repository:a:pull,push", "repository:b:pull"]
    assert scope == Scope.repository("a", "pull", "push") | Scope.repository("b", "pull")
    assert not Scope.parse(" ")


@given(_SCOPES)
def test_what_is_written_is_read(scope: Scope) -> None:
    """And equal scopes are written alike."""
    assert Scope.parse(str(scope)) == scope
    assert hash(Scope.parse(str(scope))) == hash(scope)


@given(_SCOPES, _SCOPES, _SCOPES)
def test_union_is_union(a: Scope, b: Scope, c: Scope) -> None:
    """Commutative, associative, idempotent, with the empty scope as its neutral element."""
    assert a | b == b | a
    assert (a | b) | c == a | (b | c)
    assert a | a == a | Scope() == a
    assert _permits(a | b) == _permits(a) | _permits(b)


@given(_SCOPES, _SCOPES)
def test_covering_is_containing(a: Scope, b: Scope) -> None:
    """By every permission spelled out; ``*`` covers any action of its resource, and only ``*`` covers ``*``."""
    assert a.covers(b) == (_permits(b) <= _permits(a))
    assert (a | b).covers(a)
    assert a.covers(Scope())
    if a.covers(b) and b.covers(a):
        assert a == b


def test_reading_takes_linear_time() -> None:
    """Whoever asks for eight times as much keeps us busy eight times as long, and not sixty-four times."""

    def seconds(count: int) -> float:
        raw = " ".join(f"repository:r{number}:pull" for number in range(count))
        times = []
        for _ in range(3):
            began = time.process_time()
            assert len(Scope.parse(raw).permissions) == count
            times.append(time.process_time() - began)
        return min(times)

    assert seconds(8000) < 40 * seconds(1000)
