"""Verbs that change a registry."""

from __future__ import annotations

from typing import Any

import click
from moorage.puller.verbs import as_json, deadline, platform, run, store

__all__ = ["copy", "delete", "push"]


@click.command()
@click.argument("source")
@click.argument("reference")
@click.option("--compression", metavar="NAME[:LEVEL]", help="Of a directory: gzip or zstd.  [default: gzip]")
@click.option("--owner", metavar="UID:GID|keep", help="Of a directory: whose its files become.  [default: 0:0]")
@click.option("--ignore-file", metavar="FILE", help="Of a directory: what stays out, as in a .dockerignore.")
@store
@platform
@deadline
@as_json
def push(**options: Any) -> None:
    """Push a directory, an OCI layout or an image of the store.

    SOURCE is a directory (packed into one layer, reproducibly), an OCI layout (DIR, DIR:NAME or oci:DIR:NAME), or a
    reference that the store holds.
    """
    run("push", **options)


@click.command()
@click.argument("source")
@click.argument("destination")
@click.option("--all-platforms", is_flag=True, help="Copy the whole index.")
@click.option("--referrers", is_flag=True, help="Also copy signatures, SBOMs and whatever else refers to the image.")
@platform
@deadline
@as_json
def copy(**options: Any) -> None:
    """Copy an image between registries and OCI layouts."""
    if options["platform"] and options["all_platforms"]:
        raise click.UsageError("--platform and --all-platforms exclude each other")
    run("copy", **options)


@click.command()
@click.argument("reference")
def delete(**options: Any) -> None:
    """Delete a tag, or by digest a manifest with all its tags, from a registry."""
    run("delete", **options)
