"""Verbs that read a registry."""

from __future__ import annotations

from typing import Any

import click
from moorage.puller.verbs import as_json, platform, run, store

__all__ = ["inspect", "tags"]


@click.command()
@click.argument("repository")
@as_json
def tags(**options: Any) -> None:
    """List the tags of a repository."""
    run("tags", **options)


@click.command()
@click.argument("reference")
@store
@platform
@as_json
def inspect(**options: Any) -> None:
    """Show what a reference names.

    store:REFERENCE is an image of the store.
    """
    run("inspect", **options)
