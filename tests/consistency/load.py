"""Clients that use tags as registers, through any replica, and write down what they were told.

Law of honesty: an answer that is neither yes nor no (none at all, 500, 503) leaves the outcome open; only a connection
that was refused is known to have done nothing. An answer that a registry must never give is a complaint at once.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import threading
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import httpx

from tests.consistency.checker import judge
from tests.consistency.history import Kind, Operation

__all__ = ["CLIENTS", "TagLoad"]

CLIENTS: Final = 8
_TAGS: Final = 3
"""Tags that all clients are at, until the next ones have their turn."""

_ROUND: Final = 100
"""Operations on these tags, all together: the search stays quick."""

_TYPE: Final = "application/vnd.oci.image.index.v1+json"
_NOTHING: Final = "sha256:" + "0" * 64
_WEIGHTS: Final = {Kind.READ: 40, Kind.PUT: 15, Kind.CREATE: 15, Kind.SWAP: 20, Kind.DELETE: 10}
_ANSWERS: Final = {
    Kind.READ: {200: True, 404: False},
    Kind.PUT: {201: True},
    Kind.CREATE: {201: True, 412: False},
    Kind.SWAP: {201: True, 412: False},
    Kind.DELETE: {202: True, 404: False},
}
"""What each status means; 5xx leaves it open."""


@dataclass
class TagLoad:
    """``operations`` in all, by eight clients, on tags of repository ``name``.

    ``urls``: where the replicas are just now. ``outcomes``: how often each kind ended how.
    """

    urls: Callable[[], list[str]]
    operations: int
    seed: int
    name: str = "team/register"
    complaints: list[str] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._clock = itertools.count(1)
        self._numbers = itertools.count()
        self._histories: dict[str, list[Operation]] = defaultdict(list)
        self._known: dict[str, str] = {}
        self._lock = threading.Lock()

    def run(self) -> None:
        """Works until all is done."""
        threads = [threading.Thread(target=self._work, args=(number,)) for number in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def judge(self) -> list[str]:
        """Complaints about what was seen, tag by tag."""
        verdicts = [judge(f"{self.name}:{tag}", history) for tag, history in self._histories.items()]
        return [*self.complaints, *(verdict for verdict in verdicts if verdict is not None)]

    @property
    def events(self) -> int:
        """Operations that the judgement rests on."""
        return sum(map(len, self._histories.values()))

    def _work(self, client: int) -> None:
        dice = random.Random(f"{self.seed}-{client}")
        with httpx.Client(timeout=30) as http:
            while (number := next(self._numbers)) < self.operations:
                tag = f"t{number // _ROUND}-{number % _TAGS}"
                try:
                    self._act(http, dice, tag, number)
                except Exception as failure:  # noqa: BLE001  # whatever it is, it must be heard of
                    self._complain(f"operation {number} on {tag}: {failure!r}")

    def _act(self, http: httpx.Client, dice: random.Random, tag: str, number: int) -> None:
        replicas = self.urls()
        if not replicas:
            return
        kind = dice.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0]
        value, content = _manifest(number)
        expected = self._known.get(tag, _NOTHING)
        request = _request(kind, f"{dice.choice(replicas)}/v2/{self.name}/manifests/{tag}", dice, content, expected)
        called = next(self._clock)
        try:
            answer = http.send(request)
        except httpx.ConnectError:
            return
        except httpx.TransportError:
            answer = httpx.Response(599)
        done = self._understood(kind, answer)
        returned = None if done is None else next(self._clock)
        if kind is Kind.READ:
            operation = Operation(kind, called, returned, _read(answer, request.method) if done else None)
        else:
            operation = Operation(kind, called, returned, value, expected, done is not False)
        if done and operation.value is not None:
            self._known[tag] = operation.value
        self._note(tag, operation, done)

    def _understood(self, kind: Kind, answer: httpx.Response) -> bool | None:
        done = _ANSWERS[kind].get(answer.status_code)
        if done is None and answer.status_code < 503:
            self._complain(f"{kind.value} was answered {answer.status_code}: {answer.text[:300]}")
        return done

    def _note(self, tag: str, operation: Operation, done: bool | None) -> None:
        with self._lock:
            answer = "open" if done is None else "done" if done else "refused"
            self.outcomes[f"{operation.kind.value}: {answer}"] += 1
            if operation.kind is not Kind.READ or done is not None:
                self._histories[tag].append(operation)

    def _complain(self, text: str) -> None:
        with self._lock:
            self.complaints.append(text)


def _manifest(number: int) -> tuple[str, bytes]:
    """The digest and the bytes of an index that nobody else ever wrote."""
    content = json.dumps(
        {"schemaVersion": 2, "mediaType": _TYPE, "manifests": [], "annotations": {"number": str(number)}}
    ).encode()
    return f"sha256:{hashlib.sha256(content).hexdigest()}", content


def _request(kind: Kind, url: str, dice: random.Random, content: bytes, expected: str) -> httpx.Request:
    headers = {"Content-Type": _TYPE}
    match kind:
        case Kind.READ:
            return httpx.Request(dice.choice(("GET", "HEAD")), url)
        case Kind.DELETE:
            return httpx.Request("DELETE", url)
        case Kind.CREATE:
            headers["If-None-Match"] = "*"
        case Kind.SWAP:
            headers["If-Match"] = f'"{expected}"'
        case Kind.PUT:
            pass
    return httpx.Request("PUT", url, headers=headers, content=content)


def _read(answer: httpx.Response, method: str) -> str:
    """What was read; torn or wrong content is a value that nobody wrote, so no order will explain it."""
    digest: str = answer.headers.get("Docker-Content-Digest", "no digest")
    found = f"sha256:{hashlib.sha256(answer.content).hexdigest()}"
    return digest if method == "HEAD" or found == digest else f"content {found} under {digest}"
