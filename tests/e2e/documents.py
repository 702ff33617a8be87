"""The commands that the documents show, as one script a document.

A block ```sh is typed as it stands; of a block ```console the lines after "$ " are, and the rest is what was seen.
`<!-- before: COMMAND -->` is run and not shown: what an example takes for granted. `<!-- not run: WHY -->` before a
block says why it cannot be run here.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
COMMANDS = {
    "sluice",
    ".venv/bin/sluice",
    "curl",
    "make",
    "netns-lab/lab.py",
    "systemctl",
    "ethtool",
    "tcpdump",
}
MARK = "@@"
_FENCE = re.compile(r"^```(\w*)$")
_BEFORE = re.compile(r"^<!-- before: (.*) -->$")
_NOT_RUN = re.compile(r"^<!-- not run: (.+) -->$")
_ENDLESS = re.compile(
    r"^sluice .*(--follow|--watch)|^sluice (top|capture)(?!.*(--once|-c |--seconds|--help))"
)
_ENDLESS_SECONDS = 3


@dataclass(frozen=True, slots=True)
class Block:
    """One block of a document: its first line's number, its kind (sh, console, before, or another), and its lines."""

    document: str
    line: int
    kind: str
    lines: tuple[str, ...]
    not_run: str | None = None

    @property
    def is_run(self) -> bool:
        """Whether it holds commands that are run."""
        return self.kind in {"sh", "console", "before"} and self.not_run is None

    @property
    def typed(self) -> Iterator[str]:
        """The lines that are typed; what would go on for ever is ended after some seconds, as by Ctrl-C."""
        more = False
        for line in self.lines:
            if self.kind == "console" and not more and not line.startswith("$ "):
                continue
            text = line if more or self.kind != "console" else line.removeprefix("$ ")
            more = text.endswith("\\")
            yield f"ended_after {_ENDLESS_SECONDS} {text}" if _ENDLESS.search(text) else text


def documents() -> list[Path]:
    """Those that people read to use Sluice."""
    lab, deploy = (CHECKOUT / name / "README.md" for name in ("netns-lab", "deploy"))
    return [CHECKOUT / "README.md", *sorted((CHECKOUT / "docs").glob("*.md")), lab, deploy]


def blocks(path: Path) -> list[Block]:
    """All of a document, in order."""
    found: list[Block] = []
    name = str(path.relative_to(CHECKOUT))
    kind: str | None = None
    lines: list[str] = []
    start, not_run = 0, None
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if kind is not None and line == "```":
            found.append(Block(name, start, kind, tuple(lines), not_run))
            kind = not_run = None
        elif kind is not None:
            lines.append(line)
        elif match := _FENCE.match(line):
            kind, lines, start = match[1], [], number
        elif match := _BEFORE.match(line):
            found.append(Block(name, number, "before", (match[1],)))
        elif match := _NOT_RUN.match(line):
            not_run = match[1]
    return found


def script(path: Path) -> str:
    """All that a document has people type, for bash; before each block its place is written to standard error."""
    lines = [
        "set -euo pipefail",
        'ended_after() { timeout --preserve-status -s INT "$@" || [ $? -eq 130 ]; }',
    ]
    for block in blocks(path):
        if block.is_run:
            lines += [f"echo '{MARK} {block.document}:{block.line}' >&2", *block.typed]
    return "\n".join(lines) + "\n"
