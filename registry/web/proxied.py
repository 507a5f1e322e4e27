"""Where a request comes from and what address it used, when there are reverse proxies in front.

Law (rule T12): what a client says about that is believed of nobody but the proxies that the operator named, and of a
list only the part that they wrote: its end.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from moorage.registry.settings import Networks
from moorage.registry.web.exchange import App, Message, Scope

__all__ = ["base_url", "proxied"]

_HOST: Final = re.compile(r"(?:[A-Za-z0-9_.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_FORWARDED: Final = (b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host")


def proxied(app: App, trusted: Networks) -> App:
    """``app``, which sees the client's own address, scheme and host where a trusted proxy tells them."""

    async def ask(
        scope: Scope, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        if scope["type"] == "http" and scope["client"][0] in trusted:
            _believe(scope, trusted)
        await app(scope, receive, send)

    return ask


def base_url(scope: Scope) -> str:
    """The scheme and host that the client used, as far as we know: ``https://registry.example:5000``."""
    host = scope.get("moorage.host") or next((v.decode("latin-1") for k, v in scope["headers"] if k == b"host"), "")
    if not host:  # HTTP/1.0
        address, port = scope["server"]
        host = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    return f"{scope['scheme']}://{host}"


def _believe(scope: Scope, trusted: Networks) -> None:
    told = {name: _elements(scope["headers"], name) for name in _FORWARDED}
    client = _client(told[b"x-forwarded-for"], trusted)
    if client is not None:
        scope["client"] = (client, 0)
    match told[b"x-forwarded-proto"]:
        case [*_, "http" | "https" as scheme]:
            scope["scheme"] = scheme
    match told[b"x-forwarded-host"]:
        case [*_, host] if _HOST.fullmatch(host):
            scope["moorage.host"] = host


def _client(chain: Sequence[str], trusted: Networks) -> str | None:
    """The last address that no trusted proxy has; the first, where all of them are trusted."""
    found: str | None = None
    for text in reversed(chain):
        try:
            found = str(ipaddress.ip_address(text.strip("[]")))
        except ValueError:
            break  # unreadable: whatever stands before it was written by others
        if found not in trusted:
            break
    return found


def _elements(headers: Any, name: bytes) -> list[str]:
    value = b",".join(v for k, v in headers if k == name).decode("latin-1")
    return [part.strip() for part in value.split(",") if part.strip()]
