"""The audit log: who did what to which content, and by which rule; one JSON object per line.

Law of secrets: a record has no field for a password, a token, a header or a query. Law of lines: each record is written
at once, by one ``write`` to a descriptor that appends, and fits what a pipe takes whole; whatever a client sends stays
inside its string, in printable ASCII of limited length. A log that cannot be written stops nobody: it is said once.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, Literal

import msgspec

_log: Final = logging.getLogger(__name__)

__all__ = ["AuditLog", "Event"]

_LONGEST: Final = {
    "event": 8,
    "who": 400,
    "claimed": 64,
    "action": 200,
    "repository": 255,
    "tag": 128,
    "digest": 140,
    "rule": 200,
    "why": 200,
    "client": 64,
    "id": 64,
}
"""Characters of each text; twice their sum fits what a pipe takes whole."""

_STANDARD_OUTPUT: Final = 1


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was decided. Texts may be anything; they are made fit for a line when it is written.

    Args:
        event: ``login``: a password, a secret or a CI's token was shown; ``token``: one was asked for;
            ``access``: content was.
        allowed: the decision.
        who: the principal, as it writes itself; empty: nobody.
        claimed: the user's name as it was sent, where it was not believed.
        action: ``pull``, ``create``, ``update``, ``delete``, ``catalog``, or the scope that was granted.
        repository: what it was about; as ``tag`` and ``digest``.
        rule: of the policy, which decided.
        why: in words, where a rule alone does not tell.
        client: the address.
        id: of the request, the same as in the access log and the answer.
    """

    event: Literal["login", "token", "access"]
    allowed: bool
    who: str = ""
    claimed: str = ""
    action: str = ""
    repository: str = ""
    tag: str = ""
    digest: str = ""
    rule: str = ""
    why: str = ""
    client: str = ""
    id: str = ""


class AuditLog:
    """Appends events to a descriptor, which is closed with the log. ``clock``: seconds since 1970."""

    def __init__(self, descriptor: int, *, clock: Callable[[], float] = time.time) -> None:
        self._descriptor = descriptor
        self._clock = clock
        self._encode = msgspec.json.Encoder().encode
        self._begin = b""
        self._broken = False

    @classmethod
    def open(cls, place: str) -> AuditLog:
        """A log in the file ``place``, which only its owner can read when it is new; ``-``: on standard output.

        Raises:
            OSError: the file cannot be opened.
        """
        if place == "-":
            return cls(os.dup(_STANDARD_OUTPUT))
        return cls(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600))

    def record(self, event: Event) -> None:
        """Writes one line."""
        now = datetime.fromtimestamp(self._clock(), UTC).isoformat(timespec="milliseconds")
        texts = {
            name: _fit(value, _LONGEST[name]) if isinstance(value, str) else value
            for name in event.__struct_fields__
            if (value := getattr(event, name)) != ""
        }
        self._write(self._encode({"time": now.replace("+00:00", "Z"), **texts}) + b"\n")

    def close(self) -> None:
        """Closes the descriptor."""
        os.close(self._descriptor)

    def _write(self, line: bytes) -> None:
        try:
            line = self._begin + line
            self._begin = b"\n" if os.write(self._descriptor, line) < len(line) else b""  # a full disk took a part
            self._broken = False
        except OSError as exc:
            if not self._broken:
                _log.warning("cannot write the audit log, its lines are lost: %s", exc.strerror)
            self._broken = True


def _fit(text: str, longest: int) -> str:
    """At most ``longest`` characters of printable ASCII; JSON at most doubles them."""
    if not (text.isascii() and text.isprintable()):
        text = text[:longest].encode("unicode_escape").decode("ascii")
    return text if len(text) <= longest else f"{text[: longest - 3]}..."
