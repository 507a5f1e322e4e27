"""Verbs about who we are."""

from __future__ import annotations

from typing import Any

import click
from moorage.puller.verbs import as_json, run

__all__ = ["explain_auth", "login", "logout"]


@click.command()
@click.argument("registry")
@click.option("-u", "--username", metavar="USER", help="Who to log in as.  [default: asked for]")
@click.option("--password-stdin", is_flag=True, help="Read the password from stdin instead of asking for it.")
def login(**options: Any) -> None:
    """Log in to a registry, for docker and podman too.

    The login is checked with the registry and kept in docker's config.json or the file in use, or by the credential
    helper that this file names. REGISTRY is host[:port]; docker.io is Docker Hub.
    """
    run("login", **options)


@click.command()
@click.argument("registry")
def logout(**options: Any) -> None:
    """Forget the login to a registry."""
    run("logout", **options)


@click.command("explain-auth")
@click.argument("reference")
@as_json
def explain_auth(**options: Any) -> None:
    """Tell where the login for a reference comes from, and why not from elsewhere."""
    run("explain-auth", **options)
