"""The face of the client as a library: what importing it costs, and what is public."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from moorage.puller import AsyncClient, Client, Event
from moorage.registry.testing import LoopbackRegistry


def test_the_library_loads_nothing_of_the_server(registry: LoopbackRegistry, tmp_path: Path) -> None:
    """Nor what it does not need: the import alone costs next to nothing, a pull no httpx and no rich."""
    registry.add_image("team/app:v1", {"motd": "hello"})
    image = f"{registry.host}/team/app:v1"
    program = f"""
import sys
import moorage.puller
small = set(sys.modules)
from moorage.puller import Client
with Client({str(tmp_path / "store")!r}) as client:
    client.pull({image!r})
server = ("moorage.registry.web", "moorage.registry.store", "moorage.registry.wrap", "moorage.storage_backends")
loaded = [name for name in sys.modules if name.startswith(server)]
print(loaded, sorted({{"starlette", "uvicorn", "boto3", "rich", "httpx", "click", "yaml"}} & set(sys.modules)))
print(sorted({{"asyncio", "moorage.puller.client", "moorage.registry.oci"}} & small))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines() == ["[] []", "[]"]


def test_both_clients_have_the_same_methods() -> None:
    """With the same parameters and defaults."""
    for name in (name for name in vars(AsyncClient) if not name.startswith("_") and name != "store"):
        blocking, original = (inspect.signature(getattr(kind, name)) for kind in (Client, AsyncClient))
        assert blocking.parameters == original.parameters, name
    assert inspect.signature(Client).parameters == inspect.signature(AsyncClient).parameters


def test_what_signatures_name_is_public() -> None:
    """Nobody has to import from where nothing is promised to call a method, or to tell events apart."""
    import moorage.puller  # noqa: PLC0415

    members = [member for kind in (Client, AsyncClient) for member in inspect.getmembers(kind, inspect.isfunction)]
    methods = [method for name, method in members if name == "__init__" or not name.startswith("_")]
    hints = (hint for method in methods for hint in method.__annotations__.values())
    named = {word for hint in hints for word in re.findall(r"\b[A-Z]\w+", hint)}
    assert named - {"None", "PathLike"} <= set(moorage.puller.__all__)
    assert {event.__name__ for event in get_args(Event)} <= set(moorage.puller.__all__)


def test_every_public_name_can_be_had() -> None:
    """And a wrong one is an AttributeError."""
    import moorage.puller  # noqa: PLC0415

    for name in moorage.puller.__all__:
        assert getattr(moorage.puller, name) is not None
    assert set(moorage.puller.__all__) <= set(dir(moorage.puller))
    with pytest.raises(AttributeError):
        _ = moorage.puller.NoSuchThing
