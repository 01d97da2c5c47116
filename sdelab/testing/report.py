"""Findings of a check, and a report of them that a person can read."""

import dataclasses
import enum
import math


class Level(enum.Enum):
    """How much a finding matters: a note is a property to know of, a failure is an error."""

    OK = "ok"
    NOTE = "note"
    FAILURE = "FAILURE"


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    `name` says what; `figure` is what was measured and `tolerance` what is accepted (NaN where there is no number);
    `message` says it in words.
    """

    name: str
    level: Level
    figure: float
    tolerance: float
    message: str

    def __str__(self) -> str:
        figure = "" if math.isnan(self.figure) else f" [{self.figure:.2e}, accepted {self.tolerance:.0e}]"
        return f"{self.level.value:>7}  {self.name}: {self.message}{figure}"


@dataclasses.dataclass(frozen=True)
class Report:
    """All findings on `subject`, in the order in which they were made."""

    subject: str
    findings: tuple[Finding, ...]

    @property
    def failures(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.level is Level.FAILURE)

    @property
    def notes(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.level is Level.NOTE)

    def __str__(self) -> str:
        count = len(self.failures)
        verdict = "everything fits together" if count == 0 else f"{count} of {len(self.findings)} checks failed"
        return "\n".join([f"{self.subject}: {verdict}", *map(str, self.findings)])

    __repr__ = __str__


def bounded(name: str, figure: float, tolerance: float, *, fine: str, broken: str) -> Finding:
    """A finding that fails where the figure is not within the tolerance; NaN fails."""
    good = figure <= tolerance
    return Finding(name, Level.OK if good else Level.FAILURE, float(figure), tolerance, fine if good else broken)


def failure(name: str, message: str) -> Finding:
    return Finding(name, Level.FAILURE, math.nan, math.nan, message)


def passed(name: str, message: str) -> Finding:
    return Finding(name, Level.OK, math.nan, math.nan, message)
