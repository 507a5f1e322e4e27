"""Policy: who may do what where; one pure function decides, for Basic and Bearer alike (rule T6).

Law: deny by default. Rules only allow; nothing but an immutable tag takes back. What a request or a token asks for
never widens what the rules say: granted is requested ∩ policy.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from moorage.auth.patterns import RepositoryPattern, TextPattern, is_repository
from moorage.auth.principal import Principal
from moorage.auth.scope import Resource, Scope

__all__ = [
    "CATALOG",
    "IMMUTABLE",
    "NO_RULE",
    "Action",
    "Decision",
    "ImmutableTags",
    "Policy",
    "Rule",
    "decide",
    "permitted",
]


class Action(Enum):
    """What a rule can allow. Content that is new and a tag that is new are created; a tag that is moved is updated."""

    PULL = "pull"
    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"
    CATALOG = "catalog"

    def __str__(self) -> str:
        return self.value


CATALOG: Final = Resource("registry", "catalog")
"""What the docker token protocol calls the list of repositories."""

IMMUTABLE: Final = "immutable tags"
NO_RULE: Final = "default"
"""The names of the two rules that deny."""

_ON_THE_WIRE: Final = {
    "pull": (Action.PULL,),
    "push": (Action.CREATE, Action.UPDATE),
    "delete": (Action.DELETE,),
}
"""The protocol's words. ``push`` is granted to whoever may do either; which one it is shows with the request."""

_REMEMBERED: Final = 4096
_IN_REPOSITORIES: Final = (Action.PULL, Action.CREATE, Action.UPDATE, Action.DELETE)


@dataclass(frozen=True, slots=True)
class Rule:
    """Allows ``actions`` on the repositories that a pattern matches, to those whom it names.

    ``principals``: names; one that ends in ``*`` stands for all that begin so, and without a namespace stays among the
    accounts (``*``: every account, ``robot:*``: every robot). ``groups``: names of groups.
    """

    name: str
    repositories: tuple[RepositoryPattern, ...]
    actions: frozenset[Action]
    principals: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()

    def names(self, principal: Principal) -> bool:
        """Whether the rule is about ``principal``."""
        if principal.is_anonymous:
            return False
        return (
            principal.name in self.principals
            or not self.groups.isdisjoint(principal.groups)
            or any(_stands_for(one, principal.name) for one in self.principals if one.endswith("*"))
        )

    def allows(self, action: Action, repository: str) -> bool:
        """Whether the rule allows ``action`` there. The catalog is in no repository."""
        if action not in self.actions:
            return False
        if action is Action.CATALOG:
            return True
        for pattern in self.repositories:  # noqa: SIM110  # on the path of every request: any() takes twice the time
            if pattern.matches(repository):
                return True
        return False


@dataclass(frozen=True, slots=True)
class ImmutableTags:
    """Tags that, once there, nobody moves or deletes, whatever the rules allow."""

    repositories: tuple[RepositoryPattern, ...]
    tags: tuple[TextPattern, ...]

    def holds(self, repository: str, tag: str) -> bool:
        """Whether the tag is one of them."""
        return any(one.matches(tag) for one in self.tags) and any(one.matches(repository) for one in self.repositories)


@dataclass(frozen=True, slots=True)
class Policy:
    """Everything that is allowed. ``anonymous``: rules for everybody, with a name or without.

    Which rules are about whom is remembered for the 4,096 principals that came last; a policy never changes.
    """

    rules: tuple[Rule, ...] = ()
    anonymous: tuple[Rule, ...] = ()
    immutable_tags: tuple[ImmutableTags, ...] = ()
    _known: dict[Principal, tuple[Rule, ...]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def is_immutable(self, repository: str, tag: str) -> bool:
        """Whether the tag, once there, may be neither moved nor deleted."""
        return any(one.holds(repository, tag) for one in self.immutable_tags)

    def rules_for(self, principal: Principal) -> tuple[Rule, ...]:
        """The rules that are about ``principal``, those for everybody last."""
        rules = self._known.get(principal)
        if rules is None:
            rules = tuple(rule for rule in self.rules if rule.names(principal)) + self.anonymous
            if len(self._known) >= _REMEMBERED:
                del self._known[next(iter(self._known))]
            self._known[principal] = rules
        return rules


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether it is allowed, the name of the rule that decided, and a sentence for the audit log and ``auth test``."""

    allowed: bool
    rule: str
    why: str

    def __bool__(self) -> bool:
        return self.allowed


def decide(
    policy: Policy, principal: Principal, action: Action, repository: str, *, tag: str | None = None
) -> Decision:
    """Whether ``principal`` may do ``action`` in ``repository``. Pure: the answer hangs on nothing else.

    Args:
        repository: the name; for ``CATALOG`` empty. What is no name by the grammar is denied.
        tag: the tag that is moved or deleted, where it is one.
    """
    if action is not Action.CATALOG and not is_repository(repository):
        return Decision(False, NO_RULE, "that is not the name of a repository")
    if tag is not None and action in (Action.UPDATE, Action.DELETE) and policy.is_immutable(repository, tag):
        return Decision(False, IMMUTABLE, f"the tag {tag} of {repository} is immutable")
    for rule in policy.rules_for(principal):
        if rule.allows(action, repository):
            return Decision(True, rule.name, f"rule {rule.name!r} allows {action}")
    return Decision(False, NO_RULE, _why_not(policy, principal, action, repository))


def permitted(policy: Policy, principal: Principal, requested: Scope) -> Scope:
    """What of ``requested`` the policy allows: never more than asked for, and nothing of what is not understood.

    A requested ``*`` means what the policy gives; in the answer it is spelled out.
    """
    return Scope(frozenset(_permissions(policy, principal, requested)))


def _permissions(policy: Policy, principal: Principal, requested: Scope) -> Iterator[tuple[Resource, str]]:
    for resource, asked in requested.permissions:
        if resource == CATALOG and asked == "*":
            if decide(policy, principal, Action.CATALOG, ""):
                yield resource, asked
        elif resource.type == "repository" and not resource.kind:
            for word in _ON_THE_WIRE if asked == "*" else (asked,):
                if any(decide(policy, principal, one, resource.name) for one in _ON_THE_WIRE.get(word, ())):
                    yield resource, word


def _stands_for(pattern: str, name: str) -> bool:
    """A star takes the rest of a name; it never reaches from the accounts into a namespace."""
    prefix = pattern[:-1]
    return name.startswith(prefix) and (":" in prefix or ":" not in name)


def _why_not(policy: Policy, principal: Principal, action: Action, repository: str) -> str:
    rules = policy.rules_for(principal)
    if not rules:
        return "there is no rule for anonymous requests" if principal.is_anonymous else f"no rule names {principal}"
    if action is Action.CATALOG:
        return f"no rule that {_concerns(principal)} allows catalog"
    here = {one: rule.name for rule in rules for one in _IN_REPOSITORIES if rule.allows(one, repository)}
    if not here:
        return f"no rule that {_concerns(principal)} covers {repository}: {_listed(rule.name for rule in rules)}"
    allowed = ", ".join(f"{one} (rule {name!r})" for one, name in here.items())
    return f"in {repository} {principal} has {allowed}, but not {action}"


def _concerns(principal: Principal) -> str:
    return "is for everybody" if principal.is_anonymous else f"names {principal} or everybody"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names)
