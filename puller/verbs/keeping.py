"""Verbs that look after the store."""

from __future__ import annotations

from typing import Any

import click
from moorage.puller.verbs import as_json, run, store

__all__ = ["history", "images", "prune", "rm", "tag", "verify"]


@click.command()
@store
@as_json
def images(**options: Any) -> None:
    """List the images of the store."""
    run("images", **options)


@click.command()
@click.argument("reference")
@store
@as_json
def history(**options: Any) -> None:
    """Show the layers of an image of the store, and what made them."""
    run("history", **options)


@click.command()
@click.argument("source")
@click.argument("reference")
@store
@as_json
def tag(**options: Any) -> None:
    """Give an image of the store one more name."""
    run("tag", **options)


@click.command()
@click.argument("targets", metavar="IMAGE...", nargs=-1, required=True)
@store
@as_json
def rm(**options: Any) -> None:
    """Remove images from the store.

    IMAGE is a reference, or the beginning of a digest (sha256:0123abcd), which removes every name of the image. What
    another image needs stays.
    """
    run("rm", **options)


@click.command()
@click.option("--older-than", metavar="AGE", help="Also images that were not used for AGE: 90m, 12h, 7d, 2w.")
@click.option("--max-size", metavar="SIZE", help="Also images, least recently used first, down to SIZE: 500MB, 5GB.")
@store
@as_json
def prune(**options: Any) -> None:
    """Remove what no image of the store needs, and unfinished downloads older than a day."""
    run("prune", **options)


@click.command()
@click.option("--mend", is_flag=True, help="Remove what is damaged and its names; the next pull fetches it again.")
@store
@as_json
def verify(**options: Any) -> None:
    """Check every byte of the store."""
    run("verify", **options)
