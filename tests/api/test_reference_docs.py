"""docs/reference/ says what the code says."""

import runpy
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES: dict[str, str] = runpy.run_path(str(DOCS / "generate.py"))["pages"]()


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_what_the_code_makes_it(name: str) -> None:
    """Who changes a command, an operation, a field, a verdict or a metric runs `make docs`."""
    assert (DOCS / "reference" / name).read_text() == PAGES[name]


def test_no_page_is_left_over() -> None:
    """A page that the code does not make any more is gone."""
    assert {path.name for path in (DOCS / "reference").iterdir()} == set(PAGES)


def test_every_command_and_operation_is_in_it() -> None:
    """The pages are not empty by mistake."""
    assert "## sluice service add" in PAGES["cli.md"]
    assert "## PUT /v1/services/{name}" in PAGES["rest.md"]
    assert "`DROP_BLOCKLIST`" in PAGES["verdicts.md"]
    assert "`sluice_backend_up`" in PAGES["metrics.md"]
    assert "`udp_idle_seconds`" in PAGES["document.md"]
