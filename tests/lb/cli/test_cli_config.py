"""sluice apply, diff, export and revisions, against the real application."""

from pathlib import Path

import pytest
import yaml
from cli_shell import Shell

from lb.cli.changes import difference_lines

DOCUMENT = """\
services:
- name: web
  vip: 192.0.2.10
  port: 80
  protocol: tcp
  backends:
  - address: 10.0.0.11
  - address: 10.0.0.12
    weight: 2
blocklist:
- prefix: 203.0.113.0/24
  reason: abuse
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The document as a file."""
    path = tmp_path / "edge.yaml"
    path.write_text(DOCUMENT)
    return path


def test_apply_makes_the_document_the_state(shell: Shell, file: Path) -> None:
    """It says what changed; a second time there is nothing to do."""
    assert shell.ok("apply", "-f", str(file)) == (
        "+ service web\n+ blocklist 203.0.113.0/24\napplied: 1 service added, 1 blocklist entry added\n"
    )
    assert shell.rest("/services/web")["backends"][1]["weight"] == 2

    assert shell.ok("apply", "-f", str(file)) == "nothing to change\n"


def test_a_dry_run_changes_nothing(shell: Shell, file: Path) -> None:
    """The sentence is in the conditional, and no service is there."""
    assert "would change: 1 service added" in shell.ok("apply", "-f", str(file), "--dry-run")

    assert shell.rest("/services")["total"] == 0


def test_what_is_exported_can_be_applied(shell: Shell, file: Path) -> None:
    """export writes YAML, or JSON if told; apply takes both from standard input and finds no change."""
    shell.ok("apply", "-f", str(file))
    as_yaml, as_json = shell.ok("export"), shell.ok("export", "-o", "json")

    assert yaml.safe_load(as_yaml) == yaml.safe_load(as_json) == shell.rest("/config")
    for text in (as_yaml, as_json):
        assert shell.ok("apply", "-f", "-", stdin=text) == "nothing to change\n"


def test_diff_is_0_when_the_same_and_1_when_not(shell: Shell, file: Path) -> None:
    """The lines say what apply would do, before and after; nothing is changed."""
    shell.ok("apply", "-f", str(file))
    assert shell.run("diff", "-f", str(file)).exit_code == 0
    file.write_text(DOCUMENT.replace("weight: 2", "weight: 5").replace("203.0.113.0/24", "198.51.100.0/24"))

    result = shell.run("diff", "-f", str(file))

    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        "~ backend web/10.0.0.12: weight 2 -> 5",
        "+ blocklist 198.51.100.0/24",
        "- blocklist 203.0.113.0/24",
        "  web: 16.7 % of the ring moves, and 0 of 0 live flows",
    ]
    assert shell.rest("/services/web")["backends"][1]["weight"] == 2


@pytest.mark.parametrize("text", ["services: [", "services:\n- name: web\n", "nonsense: 1\n", ""])
def test_diff_of_a_broken_document_is_an_error_over_1(shell: Shell, text: str) -> None:
    """A script does not take a fault for a difference."""
    result = shell.run("diff", "-f", "-", stdin=text)

    assert result.exit_code > 1
    assert result.stderr.startswith("sluice: ")


def test_diff_without_a_daemon_is_an_error_over_1(file: Path, shell: Shell) -> None:
    """The daemon that is not there is exit code 5 as everywhere."""
    assert shell.run("--server", "/no/such.sock", "diff", "-f", str(file)).exit_code == 5


def test_a_fault_in_a_document_names_line_and_field(shell: Shell, file: Path) -> None:
    """What is printed leads to the place."""
    file.write_text(DOCUMENT.replace("port: 80", "port: 99999"))

    result = shell.run("apply", "-f", str(file))

    assert result.exit_code == 1
    assert result.stderr.startswith("sluice: line 4, /services/0/port: ")


def test_long_differences_say_how_many_are_left_out(shell: Shell) -> None:
    """The API shows the first hundred entries; the rest is counted."""
    lines = "".join(f"- 10.{n}.0.0/16\n" for n in range(150))

    out = shell.ok("apply", "-f", "-", stdin=f"blocklist:\n{lines}").splitlines()

    assert len(out) == 102
    assert out[-2:] == ["  and 50 more of blocklist", "applied: 150 blocklist entries added"]


def test_a_difference_is_in_the_words_of_the_document() -> None:
    """Nothing is a dash, a list and a truth are JSON; an entry that is not the operator's names its owner."""
    changes = [
        {
            "op": "change",
            "kind": "feed",
            "name": "drop",
            "before": {"url": None, "allow_private_url": False},
            "after": {"url": "https://lists.example.net/drop.txt", "allow_private_url": True},
        },
        {"op": "change", "kind": "setting", "name": "nat_pools", "before": [], "after": ["192.0.2.1"]},
        {
            "op": "remove",
            "kind": "blocklist",
            "name": "192.0.2.7/32",
            "before": {"owner": "feed:drop"},
            "after": None,
        },
        {"op": "add", "kind": "blocklist", "name": "192.0.2.7/32", "before": None, "after": {"reason": ""}},
    ]

    assert list(difference_lines({"changes": changes, "counts": {}})) == [
        "~ feed drop: url - -> https://lists.example.net/drop.txt, allow_private_url false -> true",
        '~ setting nat_pools: [] -> ["192.0.2.1"]',
        "- blocklist 192.0.2.7/32 (feed:drop)",
        "+ blocklist 192.0.2.7/32",
    ]


def test_revisions_tell_the_history(shell: Shell, file: Path) -> None:
    """The newest first, with what was done."""
    shell.ok("apply", "-f", str(file))
    shell.ok("block", "192.0.2.1")

    header, *rows = shell.ok("revisions").splitlines()

    assert header.split() == ["REVISION", "TIME", "ACTOR", "SUMMARY"]
    assert [row.split()[0] for row in rows] == ["2", "1"]
    assert rows[0].endswith("POST /v1/blocklist")
    assert shell.json("revisions") == shell.rest("/config/revisions")
    assert len(shell.json("revisions", "--limit", "1")["items"]) == 1
