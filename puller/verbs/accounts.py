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
@click.option("--oidc", is_flag=True, help="Log in with the token of the CI job that this runs in.")
@click.option("--audience", metavar="NAME", help="Whom that token must be for.  [default: on GitHub, the registry]")
def login(**options: Any) -> None:
    """Log in to a registry, for docker and podman too.

    The login is checked with the registry and kept in docker's config.json or the file in use, or by the credential
    helper that this file names. REGISTRY is host[:port]; docker.io is Docker Hub.

    With --oidc there is no password: the job's own token is taken from GitHub, from $MOORAGE_OIDC_TOKEN (a GitLab
    id_token), or from $MOORAGE_OIDC_TOKEN_FILE or /var/run/secrets/moorage/token (Kubernetes).
    """
    if options["oidc"] and (options["username"] or options["password_stdin"]):
        raise click.UsageError("--oidc takes the place of --username and --password-stdin")
    if options["audience"] and not options["oidc"]:
        raise click.UsageError("--audience belongs to --oidc")
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
