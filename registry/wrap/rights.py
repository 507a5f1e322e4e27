"""What one caller may do: today's policy, narrowed by the token that was brought.

Law: a token never adds to the policy, and the policy is asked again for each request, so what is taken away is gone at
once (rules T5, T6). Basic and Bearer come to the same function. Only a token of an issuer that the configuration trusts
stands by itself, and that only for the repositories that the issuer may speak for.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from moorage.auth.patterns import RepositoryPattern
from moorage.auth.policy import CATALOG, IMMUTABLE, Action, Decision, Policy, decide
from moorage.auth.principal import Principal
from moorage.auth.scope import Resource, Scope
from moorage.registry.oci import Denied, OciError, RepositoryName, Tag, Unauthorized

__all__ = ["PUSH", "TOKEN", "Rights", "wire_scope"]

TOKEN: Final = "token"  # noqa: S105  # the name of a rule
"""The rule that denies where policy allows: the token was not asked for this."""

ISSUER: Final = "token issuer"

_PULL: Final = Action.PULL
_MOST_PULLS: Final = 256

PUSH: Final = (Action.CREATE, Action.UPDATE)
"""Whoever may do one of these may bring content; which of the two a tag needs is decided by the write itself (A4)."""

_WORDS: Final = {
    Action.PULL: ("pull",),
    Action.CREATE: ("pull", "push"),
    Action.UPDATE: ("pull", "push"),
    Action.DELETE: ("delete",),
}
"""What a client is to ask for; the last word is what we need (docker token specification)."""


def wire_scope(action: Action, repository: str) -> Scope:
    """The scope that a client needs for ``action``, as a challenge names it."""
    if action is Action.CATALOG:
        return Scope.of(CATALOG, "*")
    return Scope.repository(repository, *_WORDS[action])


@dataclass(frozen=True, slots=True)
class Rights:
    """Who asks, and what decides about them.

    ``access``: what the token is for; None: no token was brought. ``domain``: where the token's issuer is the one who
    decides; None: the policy decides.
    """

    principal: Principal
    policy: Policy
    access: Scope | None = None
    domain: tuple[RepositoryPattern, ...] | None = None
    _pulls: dict[str, Decision] = field(init=False, repr=False, compare=False, default_factory=dict)

    def decide(self, action: Action, repository: RepositoryName | None, *, tag: Tag | None = None) -> Decision:
        """Whether the caller may do ``action``.

        Args:
            repository: None: the catalog, which is in none.
            tag: the tag that is moved or deleted, where it is one.
        """
        if action is not _PULL or repository is None:
            return self._decide(action, repository.value if repository else "", tag.value if tag else None)
        decision = self._pulls.get(repository.value)  # asked twice in a request, and again in the next
        if decision is None:
            if len(self._pulls) >= _MOST_PULLS:
                self._pulls.clear()
            decision = self._pulls[repository.value] = self._decide(action, repository.value, None)
        return decision

    def _decide(self, action: Action, name: str, tag: str | None) -> Decision:
        if self.domain is None:
            decision = decide(self.policy, self.principal, action, name, tag=tag)
        else:
            decision = self._by_issuer(action, name, tag)
        if decision.allowed and self.access is not None and not _is_for(self.access, action, name):
            return Decision(False, TOKEN, f"the token is not for {action} there")
        return decision

    def any_of(self, actions: tuple[Action, ...], repository: RepositoryName | None) -> Decision:
        """The first decision that allows one of ``actions``; if none does, the last that denies."""
        for action in actions[:-1]:
            if (decision := self.decide(action, repository)).allowed:
                return decision
        return self.decide(actions[-1], repository)

    def may_pull_everything(self) -> bool:
        """Whether there is no repository that the caller may not pull from, also of those made later.

        By policy alone: no token can name all repositories, as a wildcard in a requested scope means nothing (T6).
        """
        if self.domain is not None:
            return False
        rules = self.policy.rules_for(self.principal)
        return any(Action.PULL in rule.actions and any(str(one) == "**" for one in rule.repositories) for rule in rules)

    def lists(self, repository: RepositoryName) -> bool:
        """Whether the repository is to be seen in the catalog: whoever may pull from it knows that it is there."""
        if self.domain is not None:
            return any(pattern.matches(repository.value) for pattern in self.domain)
        return decide(self.policy, self.principal, Action.PULL, repository.value).allowed

    def refusal(self, decision: Decision) -> OciError:
        """What to say to the caller: log in, get another token, or no. It says nothing of what there is (rule A18); of
        immutable tags only they hear who may push or delete there.
        """
        needs_login = decision.rule == TOKEN or (self.principal.is_anonymous and decision.rule != IMMUTABLE)
        if needs_login:
            return Unauthorized()
        return Denied("an immutable tag cannot be moved or deleted" if decision.rule == IMMUTABLE else None)

    def _by_issuer(self, action: Action, name: str, tag: str | None) -> Decision:
        if tag is not None and action in (Action.UPDATE, Action.DELETE) and self.policy.is_immutable(name, tag):
            return Decision(False, IMMUTABLE, f"the tag {tag} of {name} is immutable")
        if action is Action.CATALOG or any(pattern.matches(name) for pattern in self.domain or ()):
            return Decision(True, ISSUER, f"the issuer of {self.principal} decides there")
        return Decision(False, ISSUER, f"the issuer of {self.principal} may not speak for {name}")


def _is_for(access: Scope, action: Action, name: str) -> bool:
    if action is Action.CATALOG:
        return (CATALOG, "*") in access.permissions
    resource = Resource("repository", name)
    return (resource, _WORDS[action][-1]) in access.permissions or (resource, "*") in access.permissions
