"""What it costs to ask who one is: ``python -m tests.bench.auth [ROUNDS]``.

Two figures, each of one run in turns, as what else the machine does must meet both sides alike:

- A manifest is read, with a token, from a registry that asks nobody and from one that checks it with each request:
  requests per second and processor time of the second over the first (issue 6: a token check adds at most 10 %). Each
  round has servers of its own: what two of the same kind cost differs by up to 7 % from start to start.
- The same with a token, one request every 5 ms, by itself and while somebody else sends 1,000 wrong logins: the p99 of
  the second over the first (issue 6: at most twice). For comparison, as many requests for a token that are not refused.
"""

from __future__ import annotations

import base64
import http.client
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

from tests.bench.engine import Address
from tests.bench.flows import ACCEPT
from tests.bench.guessers import REQUESTS, ask
from tests.bench.processes import Tree
from tests.bench.wrk import hammer
from tests.interop.secured import ALICE, account_line
from tests.servers import MoorageProcess

_NAME = "bench/read"
_TARGET = f"/v2/{_NAME}/manifests/latest"
_INDEX = b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}'
_SECONDS = 1.0
_TURNS = 4
_PROBES = 1000
_PACE = 0.005

_BASIC = {"Authorization": "Basic " + base64.b64encode(":".join(ALICE).encode()).decode()}


def _address(server: MoorageProcess) -> Address:
    parts = urlsplit(server.url)
    assert parts.hostname and parts.port  # noqa: PT018  # it listens
    return parts.hostname, parts.port


def _fill(address: Address, headers: dict[str, str]) -> None:
    kind = {"Content-Type": "application/vnd.oci.image.index.v1+json"}
    status, said = ask(address, "PUT", _TARGET, headers | kind, _INDEX)
    assert status == 201, said


def _token(address: Address) -> dict[str, str]:
    status, said = ask(address, "GET", f"/token?service=moorage&scope=repository:{_NAME}:pull", _BASIC)
    assert status == 200, said
    return {"Authorization": f"Bearer {json.loads(said)['token']}"}


def _check(place: Path, words: tuple[str, ...], rounds: int) -> None:
    """Prints what the check of a token costs."""
    found = [_compare(place / f"round{number}", words, turned=number % 2 == 1) for number in range(rounds)]
    rate, cost = (statistics.median(one[i] for one in found) for i in range(2))
    print(f"GET manifest by tag, with a token checked: rate {rate:.3f}, processor time {cost:.3f} times as much")
    print(f"  processor time by round: {' '.join(f'{one[1]:.3f}' for one in sorted(found, key=lambda one: one[1]))}")


def _compare(place: Path, words: tuple[str, ...], *, turned: bool) -> tuple[float, float]:
    """Rate and processor time of a registry that asks over those of one that does not, both just started."""
    spent = {"plain": 0.0, "asking": 0.0}
    answered, seconds = dict.fromkeys(spent, 0), dict.fromkeys(spent, 0.0)
    with (
        MoorageProcess(place / "plain", workers=1) as plain,
        MoorageProcess(place / "asking", *words, workers=1) as asking,
    ):
        _fill(_address(plain), {})
        _fill(_address(asking), _BASIC)
        sides = [("plain", plain), ("asking", asking)]
        for turn in range(_TURNS):
            headers = _token(_address(asking))  # for both: what half a kilobyte more of a head costs is not the check
            for name, server in reversed(sides) if turned ^ (turn % 2 == 1) else sides:
                tree = Tree(server.process.pid)
                before = tree.cpu_seconds()
                counted = hammer(_address(server), _TARGET, seconds=_SECONDS, headers=headers)
                spent[name] += tree.cpu_seconds() - before
                answered[name] += counted.requests
                seconds[name] += counted.seconds
    rate, cost = (
        {name: of[name] / per[name] for name in spent} for of, per in ((answered, seconds), (spent, answered))
    )
    return rate["asking"] / rate["plain"], cost["asking"] / cost["plain"]


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


def _probe_beside(address: Address, headers: dict[str, str], *, kind: str, source: str) -> tuple[float, Counter[str]]:
    """The p99 while somebody else asks for tokens, and what they were answered."""
    command = [sys.executable, "-m", "tests.bench.guessers", *map(str, address), source, kind]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as guesser:
        assert guesser.stdin is not None
        assert guesser.stdout is not None
        assert guesser.stdout.readline() == "ready\n"
        guesser.stdin.write("go\n")
        guesser.stdin.flush()
        took = _probe(address, headers)
        answered: Counter[str] = Counter(json.loads(guesser.stdout.readline()))
    assert sum(answered.values()) == REQUESTS
    return took, answered


def _attack(attacked: MoorageProcess, rounds: int) -> None:
    """Prints what wrong logins cost others."""
    address = _address(attacked)
    found: dict[str, list[float]] = {"quiet": [], "harmless": [], "wrong": []}
    statuses: Counter[str] = Counter()
    headers = _token(address)
    for number in range(rounds):
        found["quiet"].append(_probe(address, headers))
        for kind in ("harmless", "wrong"):
            took, answered = _probe_beside(address, headers, kind=kind, source=f"127.0.1.{number + 1}")
            found[kind].append(took)
        statuses += answered
    quiet, harmless, wrong = (statistics.median(times) for times in found.values())
    print(f"p99 of a manifest GET: {quiet * 1e3:.2f} ms, during {REQUESTS} wrong logins {wrong * 1e3:.2f} ms:")
    print(f"  {wrong / quiet:.2f} times as long, during as many that are not refused {harmless / quiet:.2f} times")
    for kind, times in found.items():
        print(f"  {kind}: {' '.join(f'{one * 1e3:.2f}' for one in times)} ms")
    print(f"  the wrong logins were answered with {dict(statuses)}")


def main(rounds: int = 7) -> None:
    """Runs both."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        (place / "htpasswd").write_text(account_line(*ALICE))
        words = ("--htpasswd", str(place / "htpasswd"))
        _check(place, words, rounds)
        with MoorageProcess(place / "attacked", *words, workers=2) as attacked:
            _fill(_address(attacked), _BASIC)
            _attack(attacked, rounds)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
