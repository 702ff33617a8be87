"""A finding of the doctor about one thing, and the report of all findings."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

HERE = "balancer"
"""Where a command is to be run, unless it says otherwise."""


class Severity(StrEnum):
    """ok: as it should be; warn: works, but not well or not always; fail: packets are lost, or will be."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    check: which of the doctor's checks, a word that stays; subject: what it is of (an interface, a backend, a VIP).
    summary: what was found, in one sentence; effect: what that means for packets; command: what mends it, null
    where there is nothing to mend; run_on: where to run it: "balancer", "router", or a backend's address.
    """

    check: str
    severity: Severity
    subject: str
    summary: str
    effect: str = ""
    command: str | None = None
    run_on: str = HERE


def ok(check: str, subject: str, summary: str) -> Finding:
    """It is as it should be."""
    return Finding(check, Severity.OK, subject, summary)


def warn(
    check: str, subject: str, summary: str, *, effect: str, command: str | None, run_on: str = HERE
) -> Finding:
    """It works, but not well or not always."""
    return Finding(check, Severity.WARN, subject, summary, effect, command, run_on)


def fail(
    check: str, subject: str, summary: str, *, effect: str, command: str | None, run_on: str = HERE
) -> Finding:
    """Packets are lost, or will be."""
    return Finding(check, Severity.FAIL, subject, summary, effect, command, run_on)


@dataclass(frozen=True, slots=True)
class Report:
    """The document of GET /v1/doctor. healthy: nothing fails; warnings do not count. The worst findings come first."""

    healthy: bool
    fails: int
    warnings: int
    findings: list[Finding]


def report(findings: Iterable[Finding]) -> Report:
    """Put the findings in order, and count them."""
    order = [Severity.FAIL, Severity.WARN, Severity.OK]
    listed = sorted(findings, key=lambda one: order.index(one.severity))
    fails, warnings = (sum(one.severity is level for one in listed) for level in order[:2])
    return Report(not fails, fails, warnings, listed)
