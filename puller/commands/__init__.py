"""What the client's verbs do, as functions of the values that the command line gives.

    fetching   pull unpack                sending   push copy delete
    looking    tags inspect               keeping   images history tag rm prune verify
    accounts   login logout explain-auth  arguments  what several of them parse

Law: a verb is a function of its module, named like it; it yields what to print on stdout, progress and remarks go to
stderr. Only the module of the verb is loaded. Failures that the world can cause become one line and exit status 1 in
``run``, those of stdout itself in ``cli.main``; anything else is a defect and keeps its traceback.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import click
from moorage.puller.errors import BadReference
from moorage.puller.show.console import say
from moorage.puller.show.text import printable
from moorage.registry.oci import MoorageError, OciError

__all__ = ["run"]

_SHOWN_DETAIL = 500
_MODULES: Mapping[str, str] = {
    "pull": "fetching",
    "unpack": "fetching",
    "push": "sending",
    "copy": "sending",
    "delete": "sending",
    "tags": "looking",
    "inspect": "looking",
    "images": "keeping",
    "history": "keeping",
    "tag": "keeping",
    "rm": "keeping",
    "prune": "keeping",
    "verify": "keeping",
    "login": "accounts",
    "logout": "accounts",
    "explain-auth": "accounts",
}


def run(verb: str, options: Mapping[str, Any]) -> None:
    """Runs a verb with the options of its command; ends the process with status 1 where it fails.

    Raises:
        click.UsageError: an argument is not well written.
    """
    module = importlib.import_module(f"{__name__}.{_MODULES[verb]}")
    function: Callable[..., Iterator[str]] = getattr(module, verb.replace("-", "_"))
    if not gc.get_freeze_count():
        gc.freeze()  # what was loaded stays; ``verbs.run`` had stopped the collector meanwhile
    gc.enable()
    try:
        for line in function(**options):
            print(line)
    except BrokenPipeError:
        raise  # whoever read what we print has left
    except BadReference as exc:
        raise click.UsageError(printable(str(exc))) from exc
    except OciError as exc:
        detail = f" {json.dumps(exc.detail)[:_SHOWN_DETAIL]}" if exc.detail else ""
        say(f"moorage: {exc.message}{detail}")
        sys.exit(1)
    except (MoorageError, OSError) as exc:
        if isinstance(exc, OSError) and isinstance(exc.filename, bytes):
            exc.filename = os.fsdecode(exc.filename)  # people do not write b'...'
        say(f"moorage: {exc}")
        sys.exit(1)
