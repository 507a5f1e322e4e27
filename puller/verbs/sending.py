"""Verbs that change a registry."""

from __future__ import annotations

from typing import Any

import click
from moorage.puller.verbs import as_json, deadline, plan, platform, run, store

__all__ = ["copy", "delete", "push"]


referrers = click.option(
    "--referrers", is_flag=True, help="Also signatures, SBOMs and whatever else refers to the image."
)
foreign = click.option("--foreign", is_flag=True, help="Also foreign layers, which otherwise stay at their vendor's.")


@click.command()
@click.argument("source")
@click.argument("reference")
@click.option("--compression", metavar="NAME[:LEVEL]", help="Of a directory: gzip or zstd.  [default: gzip]")
@click.option("--owner", metavar="UID:GID|keep", help="Of a directory: whose its files become.  [default: 0:0]")
@click.option("--ignore-file", metavar="FILE", help="Of a directory: what stays out, as in a .dockerignore.")
@referrers
@foreign
@store
@platform
@deadline
@plan
@as_json
def push(**options: Any) -> None:
    """Push a directory, an OCI layout, an archive or an image of the store.

    SOURCE is a directory (packed into one layer, reproducibly), an OCI layout (DIR, DIR:NAME or oci:DIR:NAME), an
    archive (docker-archive:FILE or oci-archive:FILE, with :NAME where it holds several images), or a reference that
    the store holds.
    """
    run("push", **options)


@click.command()
@click.argument("source")
@click.argument("destination")
@click.option("--all-platforms", is_flag=True, help="Copy the whole index.")
@referrers
@foreign
@store
@platform
@deadline
@plan
@as_json
def copy(**options: Any) -> None:
    """Copy an image from anywhere to anywhere, digests unchanged.

    SOURCE and DESTINATION are references of registries, store:REFERENCE, oci:DIR[:NAME], docker-archive:FILE[:NAME] or
    oci-archive:FILE[:NAME]. A docker archive from an old docker has no manifest: one is made, the same every time.
    """
    if options["platform"] and options["all_platforms"]:
        raise click.UsageError("--platform and --all-platforms exclude each other")
    run("copy", **options)


@click.command()
@click.argument("reference")
def delete(**options: Any) -> None:
    """Delete a tag, or by digest a manifest with all its tags, from a registry."""
    run("delete", **options)
