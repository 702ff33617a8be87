"""CONFORMANCE.md names tests that there are."""

import re
from pathlib import Path

HERE = Path(__file__).parent
TABLE = (HERE / "CONFORMANCE.md").read_text()


def names_in(file: str) -> set[str]:
    """The names of the tests in a file; a path with folders is from the checkout's root."""
    path = HERE.parents[1] / file if "/" in file else HERE / file
    return set(re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE))


def test_every_test_that_is_named_exists() -> None:
    """A test that was renamed or removed is missed here."""
    named = re.findall(r"`((?:tests/e2e/)?test_\w+\.py)(?:::(\w+))?`", TABLE)

    assert len(named) > 80
    assert [(f, t) for f, t in named if not names_in(f) or (t and t not in names_in(f))] == []


def test_tags_are_kept_is_in_the_files_said_to_have_it() -> None:
    """The one test that is named for several files at once."""
    (line,) = [line for line in TABLE.splitlines() if "`test_tags_are_kept`" in line]
    files = re.findall(r"`(\w+\.py)`", line.partition("`test_tags_are_kept` in")[2])

    assert len(files) == 4
    assert all("test_tags_are_kept" in names_in(file) for file in files)
