"""Who we are to a registry and why: what ``moorage explain-auth`` tells.

Law: a user's name is told, a secret never is; not even its length.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

from moorage.puller.credentials.keychain import Keychain
from moorage.puller.credentials.model import Finding, Target
from moorage.registry.oci.values import dataclass

__all__ = ["Explanation", "Outcome", "explain"]

Outcome = Literal["used", "nothing", "not used", "cannot be used"]


@dataclass(frozen=True, slots=True)
class Explanation:
    """What each place said about one registry, in the order in which they are asked."""

    reference: str
    target: Target
    findings: Sequence[tuple[Outcome, Finding]]
    remarks: Sequence[str] = ()

    @property
    def who(self) -> str | None:
        """As whom we log in, if the registry asks; None: as nobody."""
        return next((_who(finding) for outcome, finding in self.findings if outcome == "used"), None)

    def to_json(self) -> dict[str, Any]:
        """Everything, as one JSON object."""
        return {
            "reference": self.reference,
            "registry": str(self.target.origin),
            "repository": self.target.repository,
            "user": self.who,
            "places": [
                {"place": finding.source, "outcome": outcome, "user": _who(finding), "reason": finding.reason}
                for outcome, finding in self.findings
            ],
            "remarks": list(self.remarks),
        }

    def to_lines(self) -> Iterator[str]:
        """The same for people."""
        yield f"{self.target.origin}, repository {self.target.repository}: {self._summary()}"
        for outcome, finding in self.findings:
            who = _who(finding)
            yield f"  {outcome + ':':<15} {finding.source}: {finding.reason}{f' ({who})' if who else ''}"
        yield from (f"  {'mind:':<15} {remark}" for remark in self.remarks)

    def _summary(self) -> str:
        if self.who is not None:
            return f"logs in as {self.who}"
        is_broken = any(outcome == "cannot be used" for outcome, _ in self.findings)
        return "cannot log in" if is_broken else "logs in as nobody"


def explain(keychain: Keychain, target: Target, *, reference: str, remarks: Sequence[str] = ()) -> Explanation:
    """Asks every place, as for a login. Blocks; may run one helper program.

    Args:
        reference: what was asked about, to show.
        remarks: what there is to say of the way to the registry.
    """
    findings, is_open = [], True
    for finding in keychain.explain(target):
        outcome = _outcome(finding, is_open=is_open)
        is_open = is_open and outcome == "nothing"
        findings.append((outcome, finding))
    return Explanation(reference, target, tuple(findings), remarks)


def _outcome(finding: Finding, *, is_open: bool) -> Outcome:
    if finding.is_failure:
        return "cannot be used"
    if finding.credentials is None and finding.helper is None:
        return "nothing"
    return "used" if is_open else "not used"


def _who(finding: Finding) -> str | None:
    return finding.credentials.username or finding.credentials.who if finding.credentials else None
