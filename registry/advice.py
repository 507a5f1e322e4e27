"""What is dangerous about a server's login settings, though it may be meant: ``config check`` and ``serve`` say it.

Law: a warning says who can do what by it, and which setting changes that. What cannot work at all is an error.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Final

from moorage.auth.certificates import Certificates
from moorage.auth.configuration import AuthConfig
from moorage.auth.errors import ConfigurationError
from moorage.auth.htpasswd import Htpasswd
from moorage.auth.issuers import token_issuers
from moorage.auth.keys import KeyRing
from moorage.auth.policy import Action, Rule
from moorage.auth.publishers import Publishers
from moorage.auth.tokens import TokenSigner
from moorage.registry.outbound import Outbound
from moorage.registry.settings import Settings

__all__ = ["check_login", "login_warnings"]

_SOON: Final = timedelta(days=30)
"""Before its end a certificate is warned of for this long."""


def check_login(settings: Settings) -> None:
    """Reads what ``serve`` would read, and makes nothing: the signing key may still be missing.

    Raises:
        ConfigurationError: a file cannot be used.
    """
    config = _config(settings)
    if config.htpasswd is not None:
        Htpasswd.load(config.htpasswd)
    source = Outbound()
    token_issuers(config, source)
    Publishers.of(config, source)
    if config.certificates is not None:
        Certificates.load(config.certificates)
    if os.path.lexists(settings.signing_key_file):
        ring = KeyRing(settings.signing_key_file)
        TokenSigner(ring, issuer="", service="", certificates=config.certificates)


def login_warnings(settings: Settings) -> list[str]:
    """What is dangerous; nothing about files that cannot be read, which is an error of its own."""
    found = list(_about_network(settings))
    try:
        config = _config(settings)
    except ConfigurationError:
        return found
    files = {"the auth file": settings.auth, "the htpasswd file": config.htpasswd}
    for name, path in files.items():
        if path is not None:
            found += _about_file(name, path, is_secret=path == config.htpasswd)
    for rule in config.policy.anonymous:
        found += _about_anonymous(rule)
    with suppress(ConfigurationError):
        found += _about_strangers(config)
    with suppress(ConfigurationError):
        found += _about_certificates(config)
    return found


def _config(settings: Settings) -> AuthConfig:
    if settings.auth is not None:
        return AuthConfig.load(settings.auth)
    return AuthConfig.open_to_accounts(settings.htpasswd or "")


def _about_network(settings: Settings) -> Iterator[str]:
    if any(network.prefixlen == 0 for network in settings.trusted_proxies.networks):
        yield "--trusted-proxies names everybody: any client can choose the address that logs and limits see"
    url = settings.external_url
    if url is not None and url.startswith("http:"):
        yield f"clients are sent to {url} to log in: passwords and tokens pass in the clear; an https URL hides them"


def _about_file(name: str, path: str, *, is_secret: bool) -> Iterator[str]:
    try:
        mode = stat.S_IMODE(os.stat(path).st_mode)
    except OSError:
        return
    if mode & 0o022:
        yield f"others may change {name} {path}, and with it who may do what: chmod go-w it"
    if is_secret and mode & 0o004:
        yield f"everybody on this machine may read {name} {path} and try passwords at leisure: chmod o-r it"


def _about_anonymous(rule: Rule) -> Iterator[str]:
    where = ", ".join(map(str, rule.repositories))
    if changing := sorted(str(action) for action in rule.actions - {Action.PULL, Action.CATALOG}):
        yield f"anybody, without a login, may {', '.join(changing)} in {where}"
    if Action.PULL in rule.actions and any(str(pattern) == "**" for pattern in rule.repositories):
        yield "anybody, without a login, may pull from every repository, also from those that are made later"


def _about_strangers(config: AuthConfig) -> Iterator[str]:
    """Names that nobody has. Robots are in the store, and a pattern may be meant for those who come."""
    accounts = Htpasswd.load(config.htpasswd).accounts if config.htpasswd is not None else {}
    named = [(f"the rule {rule.name!r}", rule.principals) for rule in config.policy.rules]
    named += [(f"the group {name!r}", members) for name, members in config.groups.items()]
    for where, names in named:
        for name in sorted(name for name in names - accounts.keys() if ":" not in name and not name.endswith("*")):
            if config.htpasswd is None:
                yield f"{where} names the account {name}, and there are no accounts: 'htpasswd' names their file"
            else:
                yield (
                    f"{where} names the account {name}, which is not in {config.htpasswd}: whoever is given an account "
                    "of that name has its rights; correct the name, or take it out"
                )


def _about_certificates(config: AuthConfig) -> Iterator[str]:
    uses = [(f"the tokens of {one.name!r} that it vouches for", one.certificates) for one in config.token_issuers]
    now = datetime.now(UTC)
    for what, path in [*uses, ("those of our tokens that it vouches for", config.certificates)]:
        for subject, end in (Certificates.load(path).ends() if path is not None else {}).items():
            if end - now < _SOON:
                tense, refused = ("ended", "are") if end <= now else ("ends", "will then be")
                yield (
                    f"{path}: the certificate of {subject} {tense} on {end:%Y-%m-%d}, and {what} {refused} refused: "
                    "put a newer one into the file"
                )
