"""sluice feed, against the real application. The lists are files."""

from pathlib import Path

import pytest
from cli_shell import Shell


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A list of four addresses."""
    path = tmp_path / "list.txt"
    path.write_text("".join(f"203.0.113.{n}\n" for n in range(4)))
    return path


def test_add_waits_for_the_entries(shell: Shell, path: Path) -> None:
    """A feed that is added has its entries when the command returns."""
    said = shell.ok("feed", "add", "drop", "--file", str(path), "--refresh", "10m", "--reason", "known bad")

    assert said == "feed drop is added, with 4 entries\n"
    found = shell.rest("/feeds/drop")
    assert (found["refresh_seconds"], found["reason"], found["observed"]["entries"]) == (600, "known bad", 4)


def test_add_says_when_it_replaces(shell: Shell, path: Path) -> None:
    """A feed of that name is replaced, and it is said."""
    shell.ok("feed", "add", "drop", "--file", str(path))

    assert shell.ok("feed", "add", "drop", "--file", str(path), "--count-only") == (
        "feed drop is replaced, with 4 entries\n"
    )
    assert shell.rest("/feeds/drop")["action"] == "count"


def test_add_says_every_option(shell: Shell) -> None:
    """Each option is a field of the feed."""
    shell.ok(
        *(
            "feed",
            "add",
            "cs",
            "--url",
            "http://127.0.0.1:9",
            "--format",
            "crowdsec",
            "--api-key-file",
            "/key",
        ),
        *("--jitter", "0", "--max-change", "2", "--count-only", "--allow-private-url", "--allow-protected"),
        *("--refresh", "90", "--no-wait"),
    )

    found = {k: v for k, v in shell.rest("/feeds/cs").items() if k != "observed"}
    assert found == {
        "name": "cs",
        "url": "http://127.0.0.1:9",
        "file": None,
        "format": "crowdsec",
        "action": "count",
        "refresh_seconds": 90,
        "jitter": 0,
        "max_change": 2,
        "allow_private_url": True,
        "allow_protected": True,
        "api_key_file": "/key",
        "reason": "",
    }


def test_add_of_what_cannot_be_had(shell: Shell) -> None:
    """The feed is there all the same, and a line on stderr says why it holds nothing."""
    result = shell.run("feed", "add", "drop", "--file", "/no/such/list")

    assert (result.exit_code, result.stdout) == (0, "feed drop is added\n")
    assert result.stderr.startswith("sluice: feed drop was not refreshed")
    assert "No such file" in result.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--file", "/list", "--url", "http://a/"), "exclude each other"),
        ((), "one of url and file is needed"),
        (
            ("--file", "/list", "--refresh", "5s"),
            "/refresh_seconds: it should be greater than or equal to 60",
        ),
    ],
)
def test_add_of_what_is_wrong(shell: Shell, words: tuple[str, ...], says: str) -> None:
    """What the daemon refuses is said, and nothing is added."""
    result = shell.run("feed", "add", "drop", *words)

    assert result.exit_code == 1
    assert says in result.stderr
    assert shell.rest("/feeds")["total"] == 0


def test_times(shell: Shell) -> None:
    """--refresh takes seconds or a unit; anything else is a fault of usage."""
    result = shell.run("feed", "add", "drop", "--file", "/list", "--refresh", "soon")

    assert result.exit_code == 2
    assert "write 10m, 1h or 1d" in result.stderr


def test_list_and_show(shell: Shell, path: Path) -> None:
    """Both show what is seen, and as JSON the document of the API."""
    shell.ok("feed", "add", "drop", "--file", str(path))

    header, row = shell.ok("feed", "list").splitlines()
    assert header.split()[:5] == ["NAME", "FROM", "ACTION", "ENTRIES", "PACKETS"]
    assert row.split()[:5] == ["drop", str(path), "drop", "4", "0"]
    lines = dict(line.split("  ", 1) for line in shell.ok("feed", "show", "drop").splitlines())
    assert lines["entries"].strip() == "4"
    assert shell.json("feed", "show", "drop") == shell.rest("/feeds/drop")
    assert shell.json("feed", "list") == shell.rest("/feeds")


def test_refresh(shell: Shell, path: Path) -> None:
    """A refresh takes over what the list now says; one that is refused is an error with its reason."""
    shell.ok("feed", "add", "drop", "--file", str(path))
    path.write_text("".join(f"203.0.113.{n}\n" for n in range(1, 5)))
    assert shell.ok("feed", "refresh", "drop") == "feed drop is refreshed, with 4 entries\n"
    assert [e["prefix"] for e in shell.rest("/blocklist")["items"]] == [
        f"203.0.113.{n}/32" for n in range(1, 5)
    ]

    path.write_text("<html>\n")
    result = shell.run("feed", "refresh", "drop")

    assert result.exit_code == 1
    assert "it is an HTML (or XML) page" in result.stderr
    assert shell.rest("/feeds/drop")["observed"]["entries"] == 4
    assert shell.run("feed", "refresh", "none").exit_code == 3


def test_remove(shell: Shell, path: Path) -> None:
    """A feed goes with its entries; one that is not there is not found."""
    shell.ok("feed", "add", "drop", "--file", str(path))

    assert shell.ok("feed", "remove", "drop") == "feed drop is removed, with its entries\n"

    assert shell.rest("/blocklist")["total"] == 0
    assert shell.run("feed", "remove", "drop").exit_code == 3
