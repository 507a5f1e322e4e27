"""What it costs to ask who one is: ``python -m tests.bench.auth [ROUNDS]``.

Two figures, each of one run in turns, as what else the machine does must meet both sides alike:

- A manifest is read, with a token, from a registry that asks nobody and from one that checks it with each request:
  requests per second and processor time of the second over the first (issue 6: a token check adds at most 10 %).
- The same with a token, one request every 5 ms, by itself and while somebody else sends 1,000 wrong logins: the p99 of
  the second over the first (issue 6: at most twice).
"""

from __future__ import annotations

import base64
import http.client
import json
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

from tests.bench.engine import Address
from tests.bench.flows import ACCEPT
from tests.bench.processes import Tree
from tests.bench.wrk import hammer
from tests.interop.secured import ALICE, account_line
from tests.servers import MoorageProcess

_NAME = "bench/read"
_TARGET = f"/v2/{_NAME}/manifests/latest"
_INDEX = b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}'
_SECONDS = 3.0
_PROBES = 1000
_PACE = 0.005
_WRONG = 1000
_GUESSERS = 20
"""Who send the wrong logins, side by side."""

_BASIC = {"Authorization": "Basic " + base64.b64encode(":".join(ALICE).encode()).decode()}


def _address(server: MoorageProcess) -> Address:
    parts = urlsplit(server.url)
    assert parts.hostname and parts.port  # noqa: PT018  # it listens
    return parts.hostname, parts.port


def _ask(
    address: Address, method: str, target: str, headers: dict[str, str], body: bytes = b"", *, source: str = ""
) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(*address, timeout=60, source_address=(source, 0) if source else None)
    try:
        connection.request(method, target, body or None, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def _fill(address: Address, headers: dict[str, str]) -> None:
    kind = {"Content-Type": "application/vnd.oci.image.index.v1+json"}
    status, said = _ask(address, "PUT", _TARGET, headers | kind, _INDEX)
    assert status == 201, said


def _token(address: Address) -> dict[str, str]:
    status, said = _ask(address, "GET", f"/token?service=moorage&scope=repository:{_NAME}:pull", _BASIC)
    assert status == 200, said
    return {"Authorization": f"Bearer {json.loads(said)['token']}"}


def _check(plain: MoorageProcess, asking: MoorageProcess, rounds: int) -> None:
    """Prints what the check of a token costs."""
    rates: dict[str, list[float]] = {"plain": [], "token": []}
    costs: dict[str, list[float]] = {"plain": [], "token": []}
    for number in range(rounds):
        headers = _token(_address(asking))  # for both: what half a kilobyte more of a head costs is not the check
        sides = [("plain", plain), ("token", asking)]
        for name, server in sides if number % 2 else reversed(sides):
            tree = Tree(server.process.pid)
            before = tree.cpu_seconds()
            counted = hammer(_address(server), _TARGET, seconds=_SECONDS, headers=headers)
            rates[name].append(counted.requests / counted.seconds)
            costs[name].append((tree.cpu_seconds() - before) / counted.requests)
    rate, cost = ({name: statistics.median(found) for name, found in kind.items()} for kind in (rates, costs))
    print(f"GET manifest by tag: {rate['plain']:.0f}/s without a login, {rate['token']:.0f}/s with a token checked")
    print(
        f"  rate {rate['token'] / rate['plain']:.3f}, processor time {cost['token'] / cost['plain']:.3f} times as much"
    )


def _probe(address: Address, headers: dict[str, str]) -> float:
    """The p99 of single requests at a fixed pace, in seconds."""
    connection, took = http.client.HTTPConnection(*address, timeout=60), []
    due = time.perf_counter()
    for _ in range(_PROBES):
        time.sleep(max(0.0, due - time.perf_counter()))
        began = time.perf_counter()
        connection.request("GET", _TARGET, headers=headers | {"Accept": ACCEPT})
        answer = connection.getresponse()
        answer.read()
        took.append(time.perf_counter() - began)
        assert answer.status == 200, answer.status
        due += _PACE
    connection.close()
    return statistics.quantiles(took, n=100)[98]


def _guess(address: Address, statuses: list[int], *, source: str) -> None:
    """Sends its share of the wrong logins, evenly over the time of a probe. ``source``: its address."""
    for number in range(_WRONG // _GUESSERS):
        wrong = base64.b64encode(f"alice:wrong {threading.get_ident()} {number}".encode()).decode()
        headers = {"Authorization": f"Basic {wrong}"}
        statuses.append(_ask(address, "GET", "/token?service=moorage", headers, source=source)[0])
        time.sleep(_PROBES * _PACE * _GUESSERS / _WRONG / 2)


def _attack(asking: MoorageProcess, rounds: int) -> None:
    """Prints what wrong logins cost others."""
    address = _address(asking)
    found: dict[str, list[float]] = {"quiet": [], "attacked": []}
    statuses: list[int] = []
    headers = _token(address)
    for number in range(2 * rounds):
        if number % 2 == 0:
            found["quiet"].append(_probe(address, headers))
            continue
        count = len(statuses)
        guessers = [
            threading.Thread(target=_guess, args=(address, statuses), kwargs={"source": f"127.0.1.{number}"})
            for _ in range(_GUESSERS)
        ]
        for guesser in guessers:
            guesser.start()
        found["attacked"].append(_probe(address, headers))
        for guesser in guessers:
            guesser.join()
        assert len(statuses) == count + _WRONG
    quiet, attacked = (statistics.median(found[name]) for name in ("quiet", "attacked"))
    refused = {status: statuses.count(status) for status in sorted(set(statuses))}
    print(f"p99 of a manifest GET: {quiet * 1e3:.2f} ms, during {_WRONG} wrong logins {attacked * 1e3:.2f} ms:")
    print(f"  {attacked / quiet:.2f} times as long; the wrong logins were answered with {refused}")


def main(rounds: int = 5) -> None:
    """Runs both."""
    with tempfile.TemporaryDirectory() as place:
        accounts = Path(place, "htpasswd")
        accounts.write_text(account_line(*ALICE))
        words = ("--htpasswd", str(accounts))
        with (
            MoorageProcess(Path(place, "plain"), workers=1) as plain,
            MoorageProcess(Path(place, "asking"), *words, workers=1) as asking,
            MoorageProcess(Path(place, "attacked"), *words, workers=2) as attacked,
        ):
            _fill(_address(plain), {})
            _fill(_address(asking), _BASIC)
            _fill(_address(attacked), _BASIC)
            _check(plain, asking, rounds)
            _attack(attacked, rounds)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
