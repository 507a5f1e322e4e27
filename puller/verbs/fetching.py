"""Verbs that bring images here."""

from __future__ import annotations

from typing import Any

import click
from moorage.puller.verbs import as_json, deadline, named, plan, platform, run, store

__all__ = ["pull", "unpack"]

_owner = click.option(
    "--owner",
    type=click.Choice(["keep", "squash", "record"]),
    help="Whose the files become: the image's owners (without root in a user namespace, if there is one), yours, or "
    "yours with the image's recorded in user.rootlesscontainers.  [default: keep for root, else squash]",
)


@click.command()
@click.argument("reference")
@click.option(
    "--unpack",
    "target",
    metavar="DIR",
    callback=named,
    help="Unpack the image into DIR, which must not exist or be empty.",
)
@click.option("--no-unpack", is_flag=True, help="Only fetch.")
@_owner
@store
@platform
@deadline
@plan
@as_json
def pull(**options: Any) -> None:
    """Fetch an image into the store and unpack its layers.

    What the store has is not fetched, and what an earlier run had begun is gone on with. Each layer gets a directory of
    its own in the store, shared by all images; --unpack makes one tree of them instead.
    """
    if options["target"] and options["no_unpack"]:
        raise click.UsageError("--unpack and --no-unpack exclude each other")
    if options["owner"] and not options["target"]:
        raise click.UsageError("--owner is for --unpack: layers in the store belong to you, or to whom the image says")
    run("pull", **options)


@click.command()
@click.argument("reference")
@click.argument("target", callback=named)
@_owner
@store
@platform
@as_json
def unpack(**options: Any) -> None:
    """Unpack an image of the store into a directory."""
    run("unpack", **options)
