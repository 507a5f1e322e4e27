"""Somebody who guesses passwords: ``python -m tests.bench.guessers HOST PORT SOURCE KIND``.

Law: in a process of its own, or what a measurement shows is how its threads and the probe wait for one interpreter.
Says ``ready``, begins when it is sent a line, and ends with the statuses it was answered with and how often, as JSON.
"""

from __future__ import annotations

import base64
import http.client
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType

from tests.bench.engine import Address

__all__ = ["REQUESTS", "SECONDS", "ask"]

REQUESTS = 1000
"""How many are sent, by ``_GUESSERS`` side by side, each on a connection of its own."""

SECONDS = 2.5
"""For which they go on if each is answered at once."""

_GUESSERS = 20


def ask(
    address: Address,
    method: str,
    target: str,
    headers: Mapping[str, str] = MappingProxyType({}),
    body: bytes | None = None,
    *,
    source: str = "",
) -> tuple[int, bytes]:
    """Status and body of one answer. ``source``: the address to ask from."""
    connection = http.client.HTTPConnection(*address, timeout=60, source_address=(source, 0) if source else None)
    try:
        connection.request(method, target, body, dict(headers))
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def _guess(address: Address, source: str, kind: str, statuses: Counter[int]) -> None:
    for number in range(REQUESTS // _GUESSERS):
        wrong = base64.b64encode(f"alice:wrong {threading.get_ident()} {number}".encode()).decode()
        headers = {"Authorization": f"Basic {wrong}"} if kind == "wrong" else {}
        statuses[ask(address, "GET", "/token?service=moorage", headers, source=source)[0]] += 1
        time.sleep(SECONDS * _GUESSERS / REQUESTS)


def main(host: str, port: str, source: str, kind: str) -> None:
    """Guesses. ``kind``: ``wrong``: passwords; ``harmless``: as many requests for a token for nobody."""
    counted: list[Counter[int]] = [Counter() for _ in range(_GUESSERS)]
    threads = [threading.Thread(target=_guess, args=((host, int(port)), source, kind, one)) for one in counted]
    print("ready", flush=True)
    sys.stdin.readline()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps(sum(counted, Counter())))


if __name__ == "__main__":
    main(*sys.argv[1:])
