"""The operator's verb about signing keys: ``moorage auth rotate-key``.

Law: a rotation changes a file and nothing else; servers that run look at it within a second. Nothing private is shown.
"""

from __future__ import annotations

from typing import Any

import click
from moorage.auth.keys import KeyRing
from moorage.registry.operating import Refused, one_line, say, server_settings

__all__ = ["rotate_key"]


@click.command("rotate-key")
@click.option("--signing-key", metavar="FILE", help="The file of keys.  [default: beside the root, ROOT.key]")
@click.option("--root", metavar="DIR|URL", help="The server's root.  [default: ./moorage-data]")
@click.option("--config", metavar="FILE", help="The server's YAML file with settings.")
def rotate_key(signing_key: str | None, **where: Any) -> None:
    """Let the next key sign tokens, and make another one for the next time.

    Nobody is logged out and nothing is restarted: the key that signed until now is still taken, until the next
    rotation. So leave an hour between two, or what the older one signed is refused.
    """
    with one_line():
        path = signing_key or server_settings(where).signing_key_file
        ring = KeyRing(path)
        try:
            has_changed = ring.rotate()
        except OSError as exc:
            raise Refused(f"cannot replace {path}: {exc.strerror}") from exc
    if has_changed:
        say(f"{path}: the key {KeyRing(path).current().signing.kid} signs now, and the next one is in the file")
    else:
        say(f"{path}: the next key is in the file; rotate again when every server has seen it, for it to sign")
