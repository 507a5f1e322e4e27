"""The operator's verbs about who may do what: ``moorage user``, ``moorage token`` and ``moorage auth test``.

Law: a password comes from the terminal or from stdin, never from the command line; a robot's secret is printed once, on
stdout and alone, everything said about it on stderr. This module is loaded when one of its verbs runs.
Exit status: 0 done (``auth test``: allowed), 1 failed or denied with one clear line, 2 wrong usage.
"""

from __future__ import annotations

import dataclasses
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

import click
from moorage.auth.configuration import AuthConfig
from moorage.auth.errors import ConfigurationError, StateConflict
from moorage.auth.htpasswd import Htpasswd, account_name
from moorage.auth.htpasswd_writer import change_account, check_password, hash_password, read_account
from moorage.auth.policy import Action, Decision
from moorage.auth.principal import ROBOT, Principal
from moorage.auth.robots import Robot, Robots, robot_name
from moorage.registry.explained import doubt_about, explain, parse_target, parse_user, rules_about
from moorage.registry.keys_cli import rotate_key
from moorage.registry.oci import OciError
from moorage.registry.operating import (
    Refused,
    accounts_file,
    loaded,
    one_line,
    print_rows,
    require_owner,
    say,
    server_settings,
    with_robots,
)
from moorage.registry.settings import Settings

__all__ = ["auth", "token", "user"]

_T = TypeVar("_T")
_F = TypeVar("_F", bound=Callable[..., Any])
_LIFE = re.compile(r"(?P<number>[0-9]{1,6})(?P<unit>[mhd])")
_UNITS = {"m": 60, "h": 3600, "d": 86_400}
_LONGEST_LIFE = 366 * _UNITS["d"]
_WORDS = {one: (one,) for one in ("pull", "create", "update", "delete", "catalog")} | {"push": ("create", "update")}
_BY_DEFAULT = ("pull", "push", "delete")


class _Checked(click.ParamType[str]):
    """An argument that a function takes, or refuses by a ValueError that says why."""

    name = "text"

    def __init__(self, check: Callable[[str], str]) -> None:
        self._check = check

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return self._check(value)
        except ValueError as exc:
            self.fail(str(exc), param, ctx)


_account = click.argument("name", type=_Checked(account_name))
_robot = click.argument("name", type=_Checked(robot_name))
_config = click.option("--config", metavar="FILE", help="The server's YAML file with settings.")
_htpasswd = click.option("--htpasswd", metavar="FILE", help="The accounts; as for `serve`.")
_auth = click.option("--auth", metavar="FILE", help="Who may do what; as for `serve`.")
_root = click.option(
    "--root", metavar="DIR|URL", help="The server's root, where robots are kept.  [default: ./moorage-data]"
)
_json = click.option("--json", "as_json", is_flag=True, help="One JSON document per line.")
_stdin = click.option("--password-stdin", is_flag=True, help="Read the password from stdin instead of asking for it.")


def _accounts(command: _F) -> _F:
    """The options that say which accounts are meant."""
    return _htpasswd(_auth(_config(command)))


def _server(command: _F) -> _F:
    """The options that say which server is meant."""
    return _root(_accounts(command))


@click.group()
def user() -> None:
    """Keep the accounts of people: a file that `serve --htpasswd` reads.

    Which file: --htpasswd, $MOORAGE_HTPASSWD, or what the --auth file names. A running server takes a change within
    a second.
    """


@user.command("add")
@_account
@_stdin
@_accounts
def add_user(name: str, password_stdin: bool, **where: Any) -> None:
    """Add an account; the file is made if there is none."""
    with one_line():
        file = accounts_file(where)
        _absent(read_account(file, name), name, file)
        hashed, is_new = _hash_new_password(name, from_stdin=password_stdin), not os.path.exists(file)

        def made(present: str | None) -> str:
            _absent(present, name, file)  # nobody else added it meanwhile
            return hashed

        change_account(file, name, made)
        _doubt_file(file)
    say(f"{name} is added to {file}{', which is new' if is_new else ''}")


@user.command("passwd")
@_account
@_stdin
@_accounts
def change_password(name: str, password_stdin: bool, **where: Any) -> None:
    """Give an account another password; one that is disabled is let in again by it."""
    with one_line():
        file = accounts_file(where)
        was_disabled = _existing(read_account(file, name), name, file).startswith("!")
        hashed = _hash_new_password(name, from_stdin=password_stdin)

        def made(present: str | None) -> str:
            _existing(present, name, file)
            return hashed

        change_account(file, name, made)
        _doubt_file(file)
    say(f"{name} has another password now{', and is no longer disabled' if was_disabled else ''}")


@user.command("disable")
@_account
@_accounts
def disable_user(name: str, **where: Any) -> None:
    """Lock an account out. Its line stays; `moorage user passwd` lets it in again."""
    with one_line():
        file = accounts_file(where)
        change_account(file, name, lambda present: "!" + _existing(present, name, file).removeprefix("!"))
        _doubt_file(file)
    say(f"{name} is disabled: it cannot log in, and the tokens it holds are refused")


@user.command("list")
@_json
@_accounts
def list_users(as_json: bool, **where: Any) -> None:
    """List the accounts."""
    with one_line():
        accounts = Htpasswd.load(accounts_file(where)).accounts.values()
    print_rows(
        [{"name": one.name, "state": "disabled" if one.is_disabled else "enabled"} for one in accounts],
        as_json=as_json,
    )


@click.group()
def token() -> None:
    """Keep robots: names and secrets for programs, each with an end.

    They are kept in the server's root, and every server of it knows a change within two seconds.
    """


@token.command("create")
@_robot
@click.option("--expires", metavar="TIME", default="90d", show_default=True, help="How long it lives: 12h, 30d.")
@_server
def create_token(name: str, expires: str, **where: Any) -> None:
    """Make a robot and print its secret, which nobody can show again.

    Programs log in as the user robot+NAME, with the secret as password; the --auth file calls it robot:NAME.
    """
    life = _life(expires)
    with one_line():
        settings = server_settings(where)
        config = loaded(settings)
        require_owner(settings.root)
        robot, secret = with_robots(settings, lambda robots: _create(robots, name, life))
    say(f"robot:{name} is made, and ends {_time(robot.expires)}. Its secret is shown this once:")
    click.echo(secret)
    say(f"to log in with it: moorage login HOST -u robot+{name} --password-stdin")
    if config and not any(rule.names(_grouped(config, robot.principal)) for rule in config.policy.rules):
        say(f"warning: no rule in {settings.auth} names robot:{name}, so it may do no more than everybody may")


@token.command("revoke")
@_robot
@_server
def revoke_token(name: str, **where: Any) -> None:
    """Take a robot away; its secret, and tokens that it got, are refused within two seconds."""
    with one_line():
        settings = server_settings(where)
        require_owner(settings.root)
        if not with_robots(settings, lambda robots: robots.revoke(name)):
            raise Refused(f"there is no robot {name} in {settings.root}; `moorage token list` shows those there are")
    say(f"robot:{name} is revoked")


@token.command("list")
@_json
@_server
def list_tokens(as_json: bool, **where: Any) -> None:
    """List the robots, and when each ends."""
    with one_line():
        rows = with_robots(server_settings(where), _rows)
    print_rows(rows, as_json=as_json)


@click.group()
def auth() -> None:
    """Look at who may do what, and at the keys of tokens."""


auth.add_command(rotate_key)


@auth.command("test")
@click.argument("who", metavar="USER")
@click.argument("reference", metavar="REF")
@click.option("--action", "words", multiple=True, type=click.Choice(list(_WORDS)), help="Ask about this alone.")
@_json
@_server
def explain_decision(who: str, reference: str, words: tuple[str, ...], as_json: bool, **where: Any) -> None:
    """Say what USER may do with REF, by which rule, or why not.

    USER is an account, robot:NAME, publisher:NAME (a CI job it matches) or anonymous; REF a repository, with or
    without host and tag. The status is 1 if an --action that was asked about is denied.
    """
    with one_line():
        settings = server_settings(where)
        config = loaded(settings)
        if config is None:
            raise Refused("no rules: name them by --htpasswd FILE or --auth FILE, as for `serve`")
        target, principal = _parsed(parse_target, reference), _parsed(parse_user, who, config)
        doubt = doubt_about(config, principal, _robot_now(settings, principal))
    decisions = {
        action: explain(config, principal, target, Action(action), doubt=doubt)
        for word in words or _BY_DEFAULT
        for action in _WORDS[word]
    }
    if as_json:
        _print_decisions(str(principal), str(target), decisions)
    else:
        _show_decisions(f"{principal} in {target}", decisions, rules_about(config, principal))
    if words and not all(decisions.values()):
        sys.exit(1)


def _print_decisions(who: str, target: str, decisions: Mapping[str, Decision]) -> None:
    rows = [
        {"user": who, "target": target, "action": action, "allowed": one.allowed, "rule": one.rule, "why": one.why}
        for action, one in decisions.items()
    ]
    print_rows(rows, as_json=True)


def _show_decisions(title: str, decisions: Mapping[str, Decision], rules: Sequence[Mapping[str, object]]) -> None:
    click.echo(f"{title}:")
    answers = [(f"  {action}", "allowed" if one else "DENIED", one.why) for action, one in decisions.items()]
    print_rows([dict(enumerate(answer)) for answer in answers], as_json=False)
    click.echo("rules that count:" if rules else "no rule counts")
    print_rows([{**rule, "rule": f"  {rule['rule']}"} for rule in rules], as_json=False)


def _existing(present: str | None, name: str, file: str) -> str:
    if present is None:
        raise Refused(f"there is no account {name} in {file}; `moorage user list` shows those there are")
    return present


def _absent(present: str | None, name: str, file: str) -> None:
    if present is not None:
        raise Refused(f"{name} has an account in {file} already; `moorage user passwd` changes its password")


def _hash_new_password(name: str, *, from_stdin: bool) -> str:
    if from_stdin:
        password = sys.stdin.read().removesuffix("\n").removesuffix("\r")
    elif sys.stdin.isatty():
        password = click.prompt(f"Password for {name}", hide_input=True, confirmation_prompt=True, err=True)
    else:
        raise click.UsageError("there is no terminal to ask for the password on: use --password-stdin")
    try:
        check_password(password, user=name)
    except ValueError as exc:
        raise Refused(str(exc)) from None
    return hash_password(password)


def _doubt_file(file: str) -> None:
    """Warns of lines that servers refuse; ours is not one of them."""
    try:
        Htpasswd.load(file)
    except ConfigurationError as exc:
        say(f"warning: no server takes the file yet: {exc}")


async def _create(robots: Robots, name: str, life: int) -> tuple[Robot, str]:
    try:
        return await robots.create(name, life=life)
    except StateConflict:
        raise Refused(
            f"there is a robot {name} already, and nobody can show its secret again; "
            f"for a new one `moorage token revoke {name}` first, or choose another name"
        ) from None


async def _rows(robots: Robots) -> list[dict[str, object]]:
    return [
        {
            "name": f"robot:{robot.name}",
            "state": "expired" if robots.has_expired(robot) else "enabled",
            "created": _time(robot.created),
            "expires": _time(robot.expires),
        }
        async for robot in robots.list()
    ]


def _robot_now(settings: Settings, principal: Principal) -> Robot | None:
    if not principal.name.startswith(ROBOT):
        return None
    return with_robots(settings, lambda robots: robots.current(principal.name.removeprefix(ROBOT)))


def _grouped(config: AuthConfig, principal: Principal) -> Principal:
    return dataclasses.replace(principal, groups=config.groups_of(principal.name))


def _life(raw: str) -> int:
    match = _LIFE.fullmatch(raw)
    seconds = int(match["number"]) * _UNITS[match["unit"]] if match else 0
    if not 60 <= seconds <= _LONGEST_LIFE:
        raise click.BadParameter(f"expected 1m to 366d, such as 12h or 30d, got {raw!r}", param_hint="'--expires'")
    return seconds


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _parsed(parse: Callable[..., _T], *arguments: object) -> _T:
    """What a parser makes of an argument, or wrong usage."""
    try:
        return parse(*arguments)
    except (ValueError, OciError) as exc:
        raise click.UsageError(f"{arguments[0]!r}: {exc}") from None
