"""What clients did to one register, and when: the material of the checker.

Law: ``called`` and ``returned`` come from one counter that all clients share, so "A was over before B began" is
``A.returned < B.called``. An operation whose answer was lost has not returned: it may take effect at any later time, or
never. A read whose answer was lost tells nothing and is no part of a history.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

__all__ = ["Kind", "Operation"]


class Kind(Enum):
    """What was asked for."""

    READ = "read"
    PUT = "put"
    CREATE = "create-only put"
    SWAP = "conditional put"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation on a register that holds a value, or None where there is none.

    ``value``: what was read or is to be written; ``expected``: what a conditional put must find; ``done``: the answer
    was yes, not no (a create-only put of what exists, a delete of nothing); ``returned``: None if there was no answer.
    """

    kind: Kind
    called: int
    returned: int | None
    value: str | None = None
    expected: str | None = None
    done: bool = True

    def __str__(self) -> str:
        condition = f" if it is {self.expected}" if self.kind is Kind.SWAP else ""
        answer = "lost" if self.returned is None else "done" if self.done else "refused"
        value = f" {self.value}" if self.kind is not Kind.DELETE else ""
        return f"{self.called:>8}-{self.returned or '':<8} {self.kind.value}{value}{condition}: {answer}"

    def applied_to(self, value: str | None) -> str | None:
        """What the register holds afterwards, if this takes effect while it holds ``value``."""
        match self.kind:
            case Kind.READ:
                return value
            case Kind.PUT:
                return self.value
            case Kind.CREATE:
                return self.value if value is None else value
            case Kind.SWAP:
                return self.value if value == self.expected else value
            case Kind.DELETE:
                return None

    def agrees_with(self, value: str | None) -> bool:
        """Whether the answer is the right one, if this takes effect while the register holds ``value``."""
        match self.kind:
            case Kind.READ:
                return self.value == value
            case Kind.PUT:
                return self.done
            case Kind.CREATE:
                return self.done == (value is None)
            case Kind.SWAP:
                return self.done == (value == self.expected)
            case Kind.DELETE:
                return self.done == (value is not None)
