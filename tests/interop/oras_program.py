"""The Python package oras as a program: ``login HOST USER``, ``logout HOST``, ``push REF FILE``, ``pull REF DIR``."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

oras = import_module("oras.client")  # it has no types
import_module("oras.decorator").time.sleep = lambda _: (
    None
)  # it tries five times, with long breaks, what was refused too


def _main(verb: str, target: str, *rest: str) -> None:
    host = target.partition("/")[0]
    client = oras.OrasClient(hostname=host)
    if verb == "login":
        client.login(hostname=host, username=rest[0], password=sys.stdin.read())
    elif verb == "logout":
        (Path.home() / ".docker" / "config.json").unlink()  # its own forgets within the process only
    elif verb == "push":
        client.push(target=target, files=[rest[0]], disable_path_validation=True, quiet=True)
    else:
        assert client.pull(target=target, outdir=rest[0]), "nothing was pulled"


if __name__ == "__main__":
    _main(*sys.argv[1:])
