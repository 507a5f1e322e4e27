"""The command line: the root of ``moorage`` and the client's verbs.

Law: a verb parses, calls one function of ``commands``, and prints. What it needs is imported when it runs, so that help
is instant; the server's verbs are attached by name and loaded when they are called.
Exit status: 0 done, 1 failed with one clear line on stderr, 2 wrong usage.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

import click

__all__ = ["main", "root"]

_SERVER_VERBS = {"serve": "Serve a registry.", "config": "Look at the server's settings."}


class _Root(click.Group):
    """The client's verbs, and the server's by name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*sorted(self.commands), *_SERVER_VERBS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _SERVER_VERBS:
            return super().get_command(ctx, cmd_name)
        command: click.Command = getattr(importlib.import_module("moorage.registry.cli"), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Lists the verbs without loading those of the server."""
        client = [(name, self.commands[name].get_short_help_str(90)) for name in sorted(self.commands)]
        with formatter.section("Images"):
            formatter.write_dl(client)
        with formatter.section("Server"):
            formatter.write_dl(list(_SERVER_VERBS.items()))


def _show_version(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value:
        from importlib.metadata import version  # noqa: PLC0415 (see the law)

        click.echo(f"moorage {version('moorage')}")
        ctx.exit()


_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document per line on stdout.")
_store = click.option("--store", metavar="DIR", help="The local store.  [default: $MOORAGE_STORE or the user's data]")
_platform = click.option("--platform", metavar="OS/ARCH", help="Which image of an index.  [default: this machine's]")


@click.group(cls=_Root, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--version", is_flag=True, expose_value=False, is_eager=True, callback=_show_version, help="Print it.")
def root() -> None:
    """An OCI registry, and the image client that belongs to it.

    A REFERENCE is host[:port]/repository[:tag][@digest]; oci:DIR[:NAME] is an image in an OCI layout.
    """


@root.command()
@click.argument("reference")
@click.option("--unpack", "target", metavar="DIR", help="Unpack the image into DIR, which must not exist or be empty.")
@click.option("--no-unpack", is_flag=True, help="Only fetch.")
@_store
@_platform
@_json
def pull(**options: Any) -> None:
    """Fetch an image into the store and unpack its layers."""
    if options["target"] and options["no_unpack"]:
        raise click.UsageError("--unpack and --no-unpack exclude each other")
    _run("pull", **options)


@root.command()
@click.argument("source")
@click.argument("reference")
@_store
@_platform
@_json
def push(**options: Any) -> None:
    """Push a directory, an OCI layout or an image of the store.

    SOURCE is a directory (packed into one layer, reproducibly), an OCI layout (DIR, DIR:NAME or oci:DIR:NAME), or a
    reference that the store holds.
    """
    _run("push", **options)


@root.command()
@click.argument("source")
@click.argument("destination")
@click.option("--all-platforms", is_flag=True, help="Copy the whole index.")
@_platform
@_json
def copy(**options: Any) -> None:
    """Copy an image between registries and OCI layouts."""
    if options["platform"] and options["all_platforms"]:
        raise click.UsageError("--platform and --all-platforms exclude each other")
    _run("copy", **options)


@root.command()
@click.argument("repository")
@_json
def tags(**options: Any) -> None:
    """List the tags of a repository."""
    _run("tags", **options)


@root.command()
@click.argument("reference")
@_platform
@_json
def inspect(**options: Any) -> None:
    """Show what a reference names."""
    _run("inspect", **options)


@root.command()
@_store
@_json
def images(**options: Any) -> None:
    """List the images of the store."""
    _run("images", **options)


@root.command()
@click.argument("reference")
@click.argument("target")
@_store
@_platform
@_json
def unpack(**options: Any) -> None:
    """Unpack an image of the store into a directory."""
    _run("unpack", **options)


@root.command()
@click.argument("reference")
def delete(**options: Any) -> None:
    """Delete a tag, or by digest a manifest with all its tags, from a registry."""
    _run("delete", **options)


def _run(verb: str, **options: Any) -> None:
    from moorage.puller import commands  # noqa: PLC0415 (see the law)

    commands.run(verb, options)


def main() -> None:
    """The console script: no traceback reaches a user for what the world does."""
    try:
        status = root(standalone_mode=False)
        sys.exit(status if isinstance(status, int) else 0)
    except click.ClickException as exc:
        exc.show()
        sys.exit(exc.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("moorage: interrupted", err=True)
        sys.exit(1)
