"""Formatting for people and for scripts: pure functions, no daemon."""

import json
from typing import Any

import click
import pytest
import yaml

from lb.cli.client import LINES_MAX, problem_lines
from lb.cli.output import Figure, cell, count, encoded, percent, span, table
from lb.cli.session import ServerUrl

DOCUMENT = {"name": "web", "total": 2, "next": None, "items": [{"reason": 'größer: "x"'}, {"on": True}]}


@pytest.mark.parametrize(
    ("number", "unit", "text"),
    [
        (0, "", "0"),
        (999, "", "999"),
        (1000, "", "1.0 k"),
        (1234, "", "1.2 k"),
        (999_949, "", "999.9 k"),
        (999_999, "", "1.0 M"),
        (3_400_000, "", "3.4 M"),
        (999, "B", "999 B"),
        (1_200_000, "B", "1.2 MB"),
        (2**64, "B", "18.4 EB"),
    ],
)
def test_numbers_are_rounded_to_units_people_read(number: int, unit: str, text: str) -> None:
    """A number keeps one decimal in the unit it falls in, and never reads "1000.0 k"."""
    assert count(number, unit) == text


def test_percent_has_one_decimal() -> None:
    """A share of one is shown as per cent."""
    assert percent(1 / 3) == "33.3 %"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (45, "45s"), (3570, "59m 30s"), (7500, "2h 5m"), (3600, "1h"), (273_600, "3d 4h")],
)
def test_spans_show_their_two_largest_units(seconds: int, text: str) -> None:
    """What is below the second unit is left out."""
    assert span(seconds) == text


def test_columns_are_aligned_and_figures_stand_to_the_right(monkeypatch: pytest.MonkeyPatch) -> None:
    """Text is set left and numbers right, and no line ends in blanks."""
    monkeypatch.setenv("NO_COLOR", "1")

    lines = table(("name", "flows"), [("web", Figure("7")), ("dns-long", Figure("1.2 k"))])

    assert lines == ["NAME      FLOWS", "web           7", "dns-long  1.2 k"]


def test_a_table_without_rows_is_its_header(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty listing still says what would stand there."""
    monkeypatch.setenv("NO_COLOR", "1")

    assert table(("name", "flows"), []) == ["NAME  FLOWS"]


def test_control_characters_do_not_reach_the_terminal() -> None:
    """An escape sequence or line break in a reason cannot move the cursor or fake a row."""
    assert cell("scan\x1b[2J\nroot") == "scan?[2J?root"


def test_nothing_is_a_dash() -> None:
    """An absent value is seen to be absent."""
    assert [cell(None), cell(""), cell(0)] == ["-", "-", "0"]


def test_json_and_yaml_say_the_same_document() -> None:
    """Both encodings read back as the document, with keys in their order."""
    as_json = encoded("json", DOCUMENT)

    assert json.loads(as_json) == DOCUMENT
    assert yaml.safe_load(encoded("yaml", DOCUMENT)) == DOCUMENT
    assert list(json.loads(as_json)) == list(DOCUMENT)
    assert "größer" in as_json


@pytest.mark.parametrize("text", ["", "localhost", "ftp://x", "unix://", "unix://relative", "http://"])
def test_what_is_no_server_is_a_usage_error(text: str) -> None:
    """The message shows how to write one."""
    with pytest.raises(click.UsageError, match="is not a server: write unix:///"):
        ServerUrl().convert(text, None, None)


def test_a_bare_path_is_a_unix_socket() -> None:
    """--server /run/x.sock is short for unix:///run/x.sock."""
    assert ServerUrl().convert("/run/x.sock", None, None) == "unix:///run/x.sock"


@pytest.mark.parametrize(
    ("problem", "line"),
    [
        ({"detail": "no services"}, "no services"),
        ({"title": "Conflict"}, "Conflict"),
        (
            {"detail": "x", "errors": [{"pointer": "/port", "detail": "is not a port"}]},
            "/port: is not a port",
        ),
        ({"detail": "x", "errors": [{"pointer": "", "detail": "bad", "line": 3}]}, "line 3: bad"),
        ({"detail": "x", "errors": [{"pointer": "", "parameter": "after", "detail": "bad"}]}, "after: bad"),
        ({"errors": [{"pointer": "", "parameter": "after", "detail": "after: bad"}]}, "after: bad"),
        ({"detail": "x", "errors": [{"pointer": "", "detail": "bad"}]}, "bad"),
        (None, "the server answered 500 and no reason; check --server"),
    ],
)
def test_a_problem_document_is_one_line_that_names_the_field(problem: Any, line: str) -> None:
    """The line, parameter or pointer stands first; without errors it is the detail, or else the title."""
    assert problem_lines(500, problem) == [line]


def test_many_faults_are_cut_with_their_number() -> None:
    """At most LINES_MAX lines are printed, and the last says how many more there are."""
    errors = [{"pointer": "", "detail": f"bad {n}", "line": n} for n in range(1, 101)]

    lines = problem_lines(422, {"detail": "x", "errors": errors})

    assert len(lines) == LINES_MAX
    assert lines[-1] == f"line {LINES_MAX}: bad {LINES_MAX} (and {100 - LINES_MAX} more)"
