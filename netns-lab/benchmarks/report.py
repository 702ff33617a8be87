"""What was measured, as a document (bench.json) and as tables. Pure but for the machine's name."""

import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure

GROUPS = {
    "program": "The program alone: ns a packet, net of an empty program",
    "lab": "A packet's whole way over a veth pair, one core: ns a packet",
    "control": "The control plane: from the call to its effect",
}


@dataclass(frozen=True, slots=True)
class Versus:
    """Another figure of the same rounds, to compare with."""

    name: str
    figure: Figure


@dataclass(frozen=True, slots=True)
class Result:
    """A case that was measured. recorded: a peer's figure from elsewhere. goal: to stay below, in the case's unit."""

    group: str
    name: str
    unit: str
    figure: Figure
    versus: Versus | None = None
    recorded: Versus | None = None
    goal: float | None = None


@dataclass(frozen=True, slots=True)
class Point:
    """A sweep's figure where there are x of what it changes."""

    x: int
    figure: Figure


@dataclass
class Report:
    """Everything of one run. programs: instructions and features of each setup's program; left_out: why, by case."""

    effort: str
    results: list[Result] = field(default_factory=list)
    sweeps: dict[str, list[Point]] = field(default_factory=dict)
    programs: dict[str, dict[str, Any]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0


def machine() -> dict[str, Any]:
    """What figures depend on: processor, kernel, how many CPUs. Nothing that names this very machine."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine()
    )
    return {
        "cpu": model,
        "cpus": sum(line.startswith("processor") for line in lines),
        "kernel": ".".join(platform.release().split("-")[0].split(".")[:2]),
    }


def document(report: Report, machine: Mapping[str, Any]) -> dict[str, Any]:
    """bench.json."""
    return {
        "machine": dict(machine),
        "effort": report.effort,
        "seconds": round(report.seconds, 1),
        "cases": [_case(result) for result in report.results],
        "sweeps": [
            {
                "name": name,
                "unit": "ns",
                "points": [{"x": point.x, **_figure(point.figure)} for point in points],
            }
            for name, points in report.sweeps.items()
        ],
        "programs": [{"name": name, **facts} for name, facts in report.programs.items()],
        "left_out": [{"name": name, "reason": reason} for name, reason in report.left_out.items()],
    }


def _case(result: Result) -> dict[str, Any]:
    case = {"group": result.group, "name": result.name, "unit": result.unit, **_figure(result.figure)}
    for key, versus in (("versus", result.versus), ("recorded", result.recorded)):
        if versus is not None:
            case[key] = {"name": versus.name, **_figure(versus.figure, rounds=False)}
    if result.goal is not None:
        case["goal"] = result.goal
    return case


def _figure(figure: Figure, *, rounds: bool = True) -> dict[str, Any]:
    numbers = {"min": round(figure.minimum, 3), "median": round(figure.median, 3)}
    if figure.p99 is not None:
        numbers["p99"] = round(figure.p99, 3)
    return numbers | ({"rounds": figure.rounds} if rounds else {})


HEADER = ("case", "unit", "min", "median", "goal", "beside", "its min", "ratio")


def table(found: Mapping[str, Any]) -> str:
    """A document as text for a terminal, a part a group."""
    parts = []
    for group, title in GROUPS.items():
        rows = _rows(found, group)
        if rows:
            parts.append(f"{title}\n{_aligned([HEADER, *rows])}")
    parts.extend(_notes(found))
    return "\n\n".join(parts) + "\n"


def markdown(found: Mapping[str, Any]) -> str:
    """A document as tables for a page, with a line of what they were measured on."""
    machine = found["machine"]
    parts = [
        f"Measured on one core of {machine['cpu']}, Linux {machine['kernel']}. Minimum and median of many rounds, "
        "in which all cases and peers take turns; 64-byte frames."
    ]
    for group, title in GROUPS.items():
        rows = _rows(found, group)
        if rows:
            lines = [HEADER, ("---", "---", *["---:"] * 3, "---", "---:", "---:"), *rows]
            parts.append(f"{title}.\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines))
    parts.extend(_notes(found))
    return "\n\n".join(parts) + "\n"


def _rows(found: Mapping[str, Any], group: str) -> list[tuple[str, ...]]:
    return [_row(case) for case in found["cases"] if case["group"] == group]


def _row(case: Mapping[str, Any]) -> tuple[str, ...]:
    other = case.get("versus") or case.get("recorded")
    name = "" if other is None else other["name"]
    beside_us = "versus" in case  # a record is of another run, if not of another machine: no ratio
    ratio = f"{case['min'] / other['min']:.2f}" if beside_us and other["min"] > 0 else ""
    shown = _number(case["median"])
    if "p99" in case:
        shown += f" (p99 {_number(case['p99'])})"
    goal = _number(case["goal"]) if "goal" in case else ""
    beside = _number(other["min"]) if other else ""
    return (case["name"], case["unit"], _number(case["min"]), shown, goal, name, beside, ratio)


def _number(value: float) -> str:
    """Three digits, and no more than one needs."""
    if value == int(value):
        return str(int(value))
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _notes(found: Mapping[str, Any]) -> Iterable[str]:
    programs = [f"{p['name']} {p['instructions']}" for p in found["programs"]]
    if programs:
        yield f"Instructions of each setup's program: {', '.join(programs)}."
    reasons: dict[str, list[str]] = {}
    for left in found["left_out"]:
        reasons.setdefault(left["reason"], []).append(left["name"])
    for reason, names in reasons.items():
        yield f"Left out ({reason}): {', '.join(names)}."


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """Text in columns: names to the left, numbers to the right."""
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    left = {0, 1, 5}
    lines = []
    for row in rows:
        cells = (
            cell.ljust(width) if at in left else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  " + "  ".join(cells).rstrip())
    return "\n".join(lines)
