"""The form of the ``--auth`` file: which keys there are, and what each may say.

Law: what the file says and what is in force are the same, or the file is refused; names that it uses (groups, issuers)
must stand in it. Relative paths start at the file's directory.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final, Protocol, TypeVar
from urllib.parse import urlsplit

from moorage.auth.configuration import TTL, AuthConfig, ClaimRule, IssuerConfig, PublisherConfig, TokenIssuerConfig
from moorage.auth.document import Place, nearest, parse_document
from moorage.auth.htpasswd import Htpasswd, account_name
from moorage.auth.patterns import RepositoryPattern, TextPattern
from moorage.auth.policy import Action, ImmutableTags, Policy, Rule
from moorage.auth.principal import ISSUER, OIDC, PUBLISHER, ROBOT
from moorage.auth.robots import robot_name
from moorage.auth.trust import ALGORITHMS

__all__ = ["parse_configuration"]

_GROUP: Final = "group:"
_PUBLISHER_TTL: Final = 900
_DEEPEST: Final = 4
_ACTIONS: Final[Mapping[str, frozenset[Action]]] = {
    "push": frozenset({Action.CREATE, Action.UPDATE}),
    **{action.value: frozenset({action}) for action in Action},
}
_TENANTS: Final[Mapping[str, Collection[str]]] = {
    "token.actions.githubusercontent.com": (
        "sub", "repository", "repository_id", "repository_owner", "repository_owner_id", "enterprise", "enterprise_id",
    ),
    "gitlab.com": ("sub", "project_path", "project_id", "namespace_path", "namespace_id"),
}  # fmt: skip
"""Issuers that everybody is a customer of, and the claims that say whose a job is."""

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")
_SAMPLE_HOST = re.compile(r"(?:.+\.)?example(?:\.(?:com|net|org))?|.+\.invalid")
_TOP: Final = (
    "htpasswd", "groups", "rules", "anonymous", "immutable_tags", "issuers", "publishers", "token_issuers",
    "basic_only", "token_ttl", "certificates",
)  # fmt: skip


def parse_configuration(path: str, raw: bytes) -> AuthConfig:
    """What the file at ``path`` says in ``raw``; the htpasswd file that it names is looked at too.

    Raises:
        ConfigurationError: something is wrong; one line that says where and what.
    """
    top = parse_document(path, raw).fields(_TOP)
    groups = _groups(top)
    issuers = _each(top, "issuers", _issuer)
    publishers = _each(top, "publishers", lambda place: _publisher(place, issuers))
    rules = _each(top, "rules", lambda place: _rule(place, groups))
    policy = Policy(
        rules + tuple(one.rule() for one in publishers),
        _each(top, "anonymous", _anonymous_rule),
        tuple(_immutable(place) for place in _items(top, "immutable_tags")),
    )
    return AuthConfig(
        policy,
        htpasswd=_htpasswd(top),
        groups=groups,
        issuers=issuers,
        token_issuers=_token_issuers(top),
        publishers=publishers,
        basic_only="basic_only" in top and top["basic_only"].switch(),
        token_ttl=top["token_ttl"].seconds(60, 900) if "token_ttl" in top else TTL,
        certificates=_file(top, "certificates"),
    )


class _Named(Protocol):
    @property
    def name(self) -> str: ...


_N = TypeVar("_N", bound=_Named)


def _items(top: Mapping[str, Place], key: str) -> tuple[Place, ...]:
    return top[key].items() if key in top else ()


def _each(top: Mapping[str, Place], key: str, read: Callable[[Place], _N]) -> tuple[_N, ...]:
    """The values of a list of things with a name, which is that of one only."""
    found: dict[str, _N] = {}
    for place in _items(top, key):
        one = read(place)
        if one.name in found:
            place.fail(f"the name {one.name!r} stands twice under {key}")
        found[one.name] = one
    return tuple(found.values())


def _groups(top: Mapping[str, Place]) -> Mapping[str, frozenset[str]]:
    groups = top["groups"].entries() if "groups" in top else {}
    for name, place in groups.items():
        if _NAME.fullmatch(name) is None:
            place.fail("a group is called by lower-case letters, digits and . _ - within")
    return {name: frozenset(member.made(_member) for member in place.items()) for name, place in groups.items()}


def _member(text: str) -> str:
    """An account or a robot."""
    if text.startswith(ROBOT):
        return ROBOT + robot_name(text.removeprefix(ROBOT))
    return account_name(text)


def _rule(place: Place, groups: Collection[str]) -> Rule:
    fields = place.fields(("name", "who", "repositories", "actions"), required=("name", "who", "actions"))
    actions = _actions(fields["actions"])
    if "repositories" not in fields and actions != {Action.CATALOG}:
        place.fail("'repositories' is missing")
    who = [one.made(lambda text: _somebody(text, groups)) for one in fields["who"].items()]
    return Rule(
        fields["name"].text(),
        _repositories(fields["repositories"]) if "repositories" in fields else (),
        actions,
        principals=frozenset(one for one in who if not one.startswith(_GROUP)),
        groups=frozenset(one.removeprefix(_GROUP) for one in who if one.startswith(_GROUP)),
    )


def _somebody(text: str, groups: Collection[str]) -> str:
    """One of those whom a rule names: an account, a robot, a group, or a pattern of the first two."""
    if text.startswith(_GROUP):
        group = text.removeprefix(_GROUP)
        if group not in groups:
            near = f"; the nearest is {nearest(group, groups)!r}" if groups else ": there is no 'groups' in this file"
            raise ValueError(f"there is no group {group!r}{near}")
        return text
    if text.startswith((OIDC, PUBLISHER)):
        raise ValueError("what a CI job may do stands under 'publishers'")
    if text.startswith(ISSUER):
        raise ValueError("what others' tokens may do stands under 'token_issuers'")
    if text == "anonymous":
        raise ValueError("what everybody may do stands under 'anonymous'")
    if text.endswith("*"):
        prefix = text[:-1]
        return text if prefix in ("", ROBOT) else _member(f"{prefix}x")[:-1] + "*"
    return _member(text)


def _anonymous_rule(place: Place) -> Rule:
    fields = place.fields(("name", "repositories", "actions"), required=("repositories", "actions"))
    name = fields["name"].text() if "name" in fields else place.way
    return Rule(name, _repositories(fields["repositories"]), _actions(fields["actions"]))


def _immutable(place: Place) -> ImmutableTags:
    fields = place.fields(("repositories", "tags"), required=("repositories", "tags"))
    return ImmutableTags(_repositories(fields["repositories"]), _texts(fields["tags"]))


def _actions(place: Place) -> frozenset[Action]:
    return frozenset().union(*(_ACTIONS[one.choice(_ACTIONS)] for one in place.items()))


def _repositories(place: Place) -> tuple[RepositoryPattern, ...]:
    return tuple(one.made(RepositoryPattern) for one in place.items())


def _texts(place: Place) -> tuple[TextPattern, ...]:
    return tuple(one.made(TextPattern) for one in place.items())


def _issuer(place: Place) -> IssuerConfig:
    known = ("name", "url", "audience", "algorithms", "ca", "keys")
    fields = place.fields(known, required=("name", "url", "audience"))
    return IssuerConfig(
        _name(fields["name"]),
        fields["url"].made(_url),
        fields["audience"].text(),
        _algorithms(fields, ("RS256",)),
        ca=_file(fields, "ca"),
        keys=_file(fields, "keys"),
    )


def _token_issuers(top: Mapping[str, Place]) -> tuple[TokenIssuerConfig, ...]:
    found = _each(top, "token_issuers", _token_issuer)
    if sum(one.realm is not None for one in found) > 1:
        top["token_issuers"].fail("clients can be sent to one token server only: leave one 'realm'")
    return found


def _token_issuer(place: Place) -> TokenIssuerConfig:
    sources = ("certificates", "jwks_file", "jwks_url")
    needed = ("name", "issuer", "service", "repositories")
    fields = place.fields((*needed, *sources, "algorithms", "ca", "realm"), required=needed)
    if sum(source in fields for source in sources) != 1:
        place.fail("exactly one of 'certificates', 'jwks_file' and 'jwks_url' is needed")
    return TokenIssuerConfig(
        _name(fields["name"]),
        fields["issuer"].text(),
        fields["service"].text(),
        _algorithms(fields, ALGORITHMS),
        _repositories(fields["repositories"]),
        certificates=_file(fields, "certificates"),
        jwks_file=_file(fields, "jwks_file"),
        jwks_url=fields["jwks_url"].made(_url) if "jwks_url" in fields else None,
        ca=_file(fields, "ca"),
        realm=fields["realm"].made(_url) if "realm" in fields else None,
    )


def _publisher(place: Place, issuers: Iterable[IssuerConfig]) -> PublisherConfig:
    needed = ("name", "issuer", "claims", "repositories", "actions")
    fields = place.fields((*needed, "ttl"), required=needed)
    urls = {one.name: one.url for one in issuers}
    if not urls:
        place.fail("there is no 'issuers' in this file that it could name")
    issuer, claims = fields["issuer"].choice(urls), tuple(_claims(fields["claims"], ()))
    _require_owner(fields["claims"], claims, urls[issuer])
    if Action.CATALOG in (actions := _actions(fields["actions"])):
        fields["actions"].fail("a CI job is not shown the catalog")
    repositories = _repositories(fields["repositories"])
    ttl = fields["ttl"].seconds(60, 3600) if "ttl" in fields else _PUBLISHER_TTL
    return PublisherConfig(_name(fields["name"]), issuer, claims, repositories, actions, ttl)


def _claims(place: Place, path: tuple[str, ...]) -> Iterable[ClaimRule]:
    """The claims, those of nested objects too."""
    if len(path) == _DEEPEST:
        place.fail("claims do not lie that deep")
    for name, value in place.entries().items():
        if value.is_mapping():
            yield from _claims(value, (*path, name))
        else:
            allowed = value.items() if value.is_list() else (value,)
            yield ClaimRule((*path, name), tuple(_claim(one) for one in allowed))


def _claim(place: Place) -> TextPattern:
    match place.scalar():
        case bool() as switch:
            return TextPattern(str(switch).lower())
        case int() as number:
            return TextPattern(str(number))
    return place.made(TextPattern)


def _require_owner(place: Place, claims: Collection[ClaimRule], issuer: str) -> None:
    """Refuses a publisher that would admit every customer of the issuer."""
    if all(pattern.is_everything for rule in claims for pattern in rule.allowed):
        place.fail("these claims let in whoever the issuer gives a token: name a repository, a project or a subject")
    host = urlsplit(issuer).hostname or ""
    if (owning := _TENANTS.get(host)) and not any(rule.path[0] in owning and _is_owned(rule) for rule in claims):
        place.fail(
            f"everybody can get a token from {host}: say whose jobs these are by one of {', '.join(owning)}, "
            "without a '*' before its first '/'"
        )


def _is_owned(rule: ClaimRule) -> bool:
    return all("*" not in pattern.text.partition("/")[0] for pattern in rule.allowed)


def _name(place: Place) -> str:
    if _NAME.fullmatch(place.text()) is None:
        place.fail(f"{place.text()!r} is no name here: lower-case letters, digits and . _ - within are, 64 at most")
    return place.text()


def _algorithms(fields: Mapping[str, Place], default: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(one.choice(ALGORITHMS) for one in fields["algorithms"].items()) if "algorithms" in fields else default


def _url(text: str) -> str:
    """An https URL; http for loopback alone, where nobody listens."""
    parts = urlsplit(text)
    host = parts.hostname
    if not host or parts.username is not None or parts.query or parts.fragment or "\\" in text:
        raise ValueError("expected an https URL, without user, query and fragment")
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(host)):
        raise ValueError("expected https: over http anybody on the way could put in keys of their own")
    if _SAMPLE_HOST.fullmatch(host):
        raise ValueError("that is a sample: put in your own")
    return text


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _file(fields: Mapping[str, Place], key: str) -> str | None:
    """The path of a file that there is, whatever it holds."""
    if key not in fields:
        return None
    place = fields[key]
    path = os.path.join(os.path.dirname(place.path), place.text())
    if not os.path.isfile(path):
        place.fail(f"there is no file {path}")
    return path


def _htpasswd(top: Mapping[str, Place]) -> str | None:
    """The htpasswd file, which is not taken when a line in it is wrong."""
    if path := _file(top, "htpasswd"):
        Htpasswd.load(path)
    return path
