"""The README's figures: the last results, copied to where git keeps them and put between two marks."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import plots, report
from lb.errors import NotFoundError

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
KEPT = ROOT / "netns-lab" / "results" / "snapshot"
BEGIN, END = "<!-- make bench-snapshot writes from here -->", "<!-- to here -->"


def take(results: Path) -> list[Path]:
    """Keep the results, and show them in the README; the files written. NotFoundError if there are none."""
    source = results / "bench.json"
    if not source.exists():
        raise NotFoundError(f"there are no results in {results}: run `make bench` first")
    found = json.loads(source.read_text())
    KEPT.mkdir(parents=True, exist_ok=True)
    kept = []
    for path in (source, *(results / name for name in plots.NAMES)):
        if path.exists():
            shutil.copyfile(path, KEPT / path.name)
            kept.append(KEPT / path.name)
    README.write_text(filled(README.read_text(), section(found, KEPT.relative_to(ROOT))))
    return [*kept, README]


def section(found: Mapping[str, Any], folder: Path) -> str:
    """What the README shows of a document: plots that there is data for, then the tables."""
    images = [f"![{title}]({folder / name})" for name, title in plots.titles(found).items()]
    return "\n\n".join([*images, report.markdown(found).strip()])


def filled(page: str, text: str) -> str:
    """The page with the text between the marks. NotFoundError if it has no marks."""
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not (begin and end):
        raise NotFoundError(f"the page has no place for figures: put {BEGIN} and {END} where they belong")
    return f"{head}{BEGIN}\n{text}\n{END}{tail}"
