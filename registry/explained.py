"""``moorage auth test``: who somebody would be, what they may do, and which rule says so.

Law: the answer comes from the same ``Directory`` file formats and the same ``decide`` that the server asks; nothing
here has a say of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

from moorage.auth.configuration import AuthConfig
from moorage.auth.document import nearest
from moorage.auth.htpasswd import Htpasswd, account_name
from moorage.auth.policy import NO_RULE, Action, Decision, decide
from moorage.auth.principal import ANONYMOUS, OIDC, PUBLISHER, ROBOT, Principal
from moorage.auth.robots import ROBOT_USER, Robot, robot_name
from moorage.registry.oci import RepositoryName, Tag

__all__ = ["Target", "doubt_about", "explain", "parse_target", "parse_user", "rules_about"]


@dataclass(frozen=True, slots=True)
class Target:
    """What is asked about: a repository, and maybe a tag in it."""

    repository: RepositoryName
    tag: Tag | None

    def __str__(self) -> str:
        return f"{self.repository}:{self.tag}" if self.tag else str(self.repository)


def parse_target(raw: str) -> Target:
    """``[host[:port]/]repository[:tag][@digest]``; host and digest make no difference to what is allowed.

    Raises:
        NameInvalid, TagInvalid: which part is wrong.
    """
    head, slash, tail = raw.partition("@")[0].rpartition("/")
    last, colon, tag = tail.partition(":")
    path = f"{head}{slash}{last}"
    host, slash, rest = path.partition("/")
    if slash and ("." in host or ":" in host or host == "localhost"):  # docker's rule
        path = rest
    return Target(RepositoryName.parse(path), Tag.parse(tag) if colon else None)


def parse_user(raw: str, config: AuthConfig) -> Principal:
    """Who is meant: an account, ``robot:NAME`` (or ``robot+NAME``), ``publisher:NAME``, or ``anonymous``.

    Raises:
        ValueError: nobody can be called so; says what to write.
    """
    if raw == str(ANONYMOUS):
        return ANONYMOUS
    if raw.startswith((ROBOT, ROBOT_USER)):
        name = f"{ROBOT}{robot_name(raw[len(ROBOT) :])}"
        return Principal(name, config.groups_of(name))
    if raw.startswith(PUBLISHER):
        names = {one.name: one.issuer for one in config.publishers}
        name = raw.removeprefix(PUBLISHER)
        if name not in names:
            near = f"; the nearest is {PUBLISHER}{nearest(name, names)}" if names else ""
            raise ValueError(f"there is no publisher {name!r}{near}")
        return Principal(f"{OIDC}{names[name]}:(a job that {raw} matches)", frozenset({raw}))
    return Principal(account_name(raw), config.groups_of(raw))


def explain(config: AuthConfig, principal: Principal, target: Target, action: Action, *, doubt: str = "") -> Decision:
    """The decision as the server would make it. ``doubt``: why they cannot log in; then nothing is allowed."""
    if doubt:
        return Decision(False, NO_RULE, doubt)
    tag = str(target.tag) if target.tag else None
    return decide(config.policy, principal, action, str(target.repository), tag=tag)


def rules_about(config: AuthConfig, principal: Principal) -> list[dict[str, object]]:
    """The rules that count for them: which, whom it names, what it allows and where."""
    return [
        {
            "rule": rule.name,
            "who": ", ".join(sorted(rule.principals) + [f"group:{name}" for name in sorted(rule.groups)])
            or "everybody",
            "actions": ", ".join(str(action) for action in Action if action in rule.actions),
            "repositories": ", ".join(map(str, rule.repositories)),
        }
        for rule in config.policy.rules_for(principal)
    ]


def doubt_about(config: AuthConfig, principal: Principal, robot: Robot | None) -> str:
    """Why they cannot log in, whatever the rules say; empty where they can. ``robot``: the robot as it is now."""
    if principal.is_anonymous or principal.name.startswith(OIDC):
        return ""
    if principal.name.startswith(ROBOT):
        missing = f"there is no {principal}, or it has expired: `moorage token create` makes it"
        return "" if robot else missing
    if config.htpasswd is None:
        return "there are no accounts: the auth file names no htpasswd file"
    account = Htpasswd.load(config.htpasswd).accounts.get(principal.name)
    if account is None:
        return f"there is no account {principal} in {config.htpasswd}: `moorage user add` makes it"
    return f"the account {principal} is disabled in {config.htpasswd}" if account.is_disabled else ""
