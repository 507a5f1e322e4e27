"""Verbs that look after the store."""

from __future__ import annotations

from typing import Any

import click
from moorage.puller.verbs import as_json, run, store

__all__ = ["images"]


@click.command()
@store
@as_json
def images(**options: Any) -> None:
    """List the images of the store."""
    run("images", **options)
