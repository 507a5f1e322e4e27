"""The command line: the root of ``moorage``.

Law: a verb is found by name and its module loaded when it is called, so that help is instant; the client's verbs are in
``verbs``, the server's in ``moorage.registry.cli``.
Exit status: 0 done, 1 failed with one clear line on stderr, 2 wrong usage. Nothing is left to ``atexit``.
"""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Mapping

import click

__all__ = ["main", "root"]

_VERBS = "moorage.puller.verbs"
_SERVER = "moorage.registry.cli"
_GROUPS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "Images": {
        f"{_VERBS}.fetching": ("pull", "unpack"),
        f"{_VERBS}.sending": ("push", "copy", "delete"),
        f"{_VERBS}.looking": ("inspect", "tags"),
    },
    "Store": {f"{_VERBS}.keeping": ("images", "history", "tag", "rm", "prune", "verify")},
    "Accounts": {f"{_VERBS}.accounts": ("login", "logout", "explain-auth")},
    "Shell": {f"{_VERBS}.completing": ("completion",)},
    "Server": {_SERVER: ("serve", "config"), "moorage.registry.accounts_cli": ("user", "token", "auth")},
}
_SERVER_HELP = {  # not loaded for a list
    "serve": "Serve a registry.",
    "config": "Look at the server's settings.",
    "user": "Keep the accounts of people.",
    "token": "Keep robots: names and secrets for programs.",
    "auth": "Look at who may do what.",
}
_MODULES = {verb: module for group in _GROUPS.values() for module, verbs in group.items() for verb in verbs}


class _Root(click.Group):
    """Verbs by name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = _MODULES.get(cmd_name)
        if module is None:
            return None
        command: click.Command = getattr(importlib.import_module(module), cmd_name.replace("-", "_"))
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Names the nearest verbs where there is no such one."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as exc:
            from difflib import get_close_matches  # noqa: PLC0415 (only mistakes need it)

            near = " or ".join(get_close_matches(args[0], _MODULES, n=2))
            raise click.UsageError(f"{exc.message} Did you mean {near}?" if near else exc.message, ctx) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Lists the verbs by group, without loading those of the server."""
        for title, group in _GROUPS.items():
            verbs = [verb for names in group.values() for verb in names]
            with formatter.section(title):
                formatter.write_dl([(verb, self._short_help(ctx, verb)) for verb in verbs])

    def _short_help(self, ctx: click.Context, verb: str) -> str:
        if verb in _SERVER_HELP:
            return _SERVER_HELP[verb]
        command = self.get_command(ctx, verb)
        return command.get_short_help_str(90) if command else ""


def _show_version(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value:
        from importlib.metadata import version  # noqa: PLC0415 (see the law)

        click.echo(f"moorage {version('moorage')}")
        ctx.exit()


@click.group(cls=_Root, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--version", is_flag=True, expose_value=False, is_eager=True, callback=_show_version, help="Print it.")
def root() -> None:
    """An OCI registry, and the image client that belongs to it.

    A REFERENCE is host[:port]/repository[:tag][@digest]; oci:DIR[:NAME] is an image in an OCI layout.
    """


def main() -> None:
    """The console script: no traceback reaches a user for what the world does."""
    _prepare_streams()
    try:
        status = root(standalone_mode=False)
        sys.stdout.flush()
        sys.stderr.flush()
        # The verb has closed what must be closed. To take apart all that was loaded takes 6 ms, 6 % of a small pull.
        os._exit(status if isinstance(status, int) else 0)
    except click.ClickException as exc:
        exc.show()
        sys.exit(exc.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("moorage: interrupted", err=True)
        sys.exit(1)
    except OSError as exc:
        _give_stdout_up(exc)
        sys.exit(1)


def _prepare_streams() -> None:
    """What our caller closed is /dev/null, before a file of ours gets its number; what the encoding of stdout lacks is
    escaped there, as it is on stderr."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 (for as long as we live)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _give_stdout_up(failure: OSError) -> None:
    """Says why, unless its reader has left on purpose (``| head``); what is buffered is not tried again at the exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if not isinstance(failure, BrokenPipeError):
        click.echo(f"moorage: stdout: {failure}", err=True)
