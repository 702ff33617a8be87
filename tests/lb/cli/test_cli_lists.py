"""sluice block, unblock, blocklist and allowlist, against the real application."""

import json
from pathlib import Path

import pytest
import yaml
from cli_shell import Shell

from lb.cli import pages


def prefixes(shell: Shell, name: str = "blocklist") -> list[str]:
    """What is on a list."""
    return [item["prefix"] for item in shell.rest(f"/{name}")["items"]]


def test_block_and_unblock(shell: Shell) -> None:
    """What is blocked is on the list, and off it when unblocked."""
    assert shell.ok("block", "203.0.113.7") == "203.0.113.7/32 is blocked\n"
    assert prefixes(shell) == ["203.0.113.7/32"]

    assert shell.ok("unblock", "203.0.113.7") == "203.0.113.7 is no longer on the blocklist\n"

    assert prefixes(shell) == []


def test_block_takes_several_with_reason_and_ttl(shell: Shell) -> None:
    """All prefixes get what the options say."""
    shell.ok("block", "198.51.100.0/24", "2001:db8:bad::/48", "--ttl", "1h", "--reason", "port scan")

    items = shell.rest("/blocklist")["items"]

    assert [(i["prefix"], i["ttl_seconds"], i["reason"], i["action"]) for i in items] == [
        ("198.51.100.0/24", 3600, "port scan", "drop"),
        ("2001:db8:bad::/48", 3600, "port scan", "drop"),
    ]


def test_count_only_blocks_nothing(shell: Shell) -> None:
    """The entry counts, and the sentence says so."""
    assert shell.ok("block", "203.0.113.0/24", "--count-only") == "203.0.113.0/24 is counted, not blocked\n"

    assert shell.rest("/blocklist/203.0.113.0%2F24")["action"] == "count"


def test_block_prints_the_document_of_the_answer(shell: Shell) -> None:
    """One prefix: its entry. Several: the answer to several."""
    one = shell.json("block", "203.0.113.7")
    several = shell.json("block", "203.0.113.8", "203.0.113.9")

    assert one == {k: v for k, v in shell.rest("/blocklist/203.0.113.7").items() if k != "entries"}
    assert several["changed"]["added"] == 2
    assert [item["prefix"] for item in several["items"]] == ["203.0.113.8/32", "203.0.113.9/32"]


@pytest.mark.parametrize(
    ("words", "where"),
    [
        (("203.0.113.7/24",), "/prefix"),
        (("192.0.2.1", "nonsense"), "/items/1/prefix"),
        (("192.0.2.1", "--ttl", "soon"), "/ttl_seconds"),
    ],
)
def test_a_wrong_prefix_or_ttl_blocks_nothing(shell: Shell, words: tuple[str, ...], where: str) -> None:
    """The daemon is the one that checks; its field is named and nothing is added."""
    result = shell.run("block", *words)

    assert result.exit_code == 1
    assert result.stderr.startswith(f"sluice: {where}: ")
    assert prefixes(shell) == []


def test_unblock_goes_on_past_what_is_not_there(shell: Shell) -> None:
    """The others are taken off, and the exit code is that of not found."""
    shell.ok("block", "203.0.113.7", "203.0.113.9")

    result = shell.run("unblock", "203.0.113.7", "203.0.113.8", "203.0.113.9")

    assert result.exit_code == 3
    assert result.stderr.startswith("sluice: 203.0.113.8/32 is not on the blocklist")
    assert prefixes(shell) == []


def test_unblock_prints_no_document(shell: Shell) -> None:
    """A 204 has no body, so -o json prints nothing."""
    shell.ok("block", "203.0.113.7")

    assert shell.ok("unblock", "203.0.113.7", "-o", "json") == ""


def test_show_tells_all_of_an_entry(shell: Shell) -> None:
    """Reason, owner, times and hits, one a line."""
    shell.ok("block", "203.0.113.0/24", "--reason", "abuse", "--ttl", "2h")

    lines = shell.ok("blocklist", "show", "203.0.113.0/24").splitlines()

    told = {line[:8].strip(): line[8:].strip() for line in lines}
    assert set(told) == {"prefix", "action", "reason", "owner", "created", "expires", "hits", "last hit"}
    assert (told["reason"], told["owner"], told["hits"]) == ("abuse", "operator", "0 packets, 0 B")
    assert told["created"] < told["expires"]


def test_show_of_another_prefix_is_not_found(shell: Shell) -> None:
    """Only the very prefix counts."""
    shell.ok("block", "203.0.113.0/24")

    assert shell.run("blocklist", "show", "203.0.113.0/25").exit_code == 3


def test_import_adds_the_lines_of_a_file(shell: Shell, tmp_path: Path) -> None:
    """Comments and blank lines apart, each line is an entry of the operator's."""
    file = tmp_path / "drop.txt"
    file.write_text("# bad\n198.51.100.0/24 ; net\n\n2001:db8::/32\n")

    assert shell.ok("blocklist", "import", str(file), "--reason", "list") == (
        "2 added, 0 replaced, 0 removed; the operator now holds 2\n"
    )
    assert [(i["prefix"], i["owner"], i["reason"]) for i in shell.rest("/blocklist")["items"]] == [
        ("198.51.100.0/24", "operator", "list"),
        ("2001:db8::/32", "operator", "list"),
    ]


def test_import_of_a_feed_replaces_what_it_held(shell: Shell) -> None:
    """Standard input is read at "-"; the feed then holds these lines and no others."""
    shell.ok("blocklist", "import", "-", "--feed", "drop", stdin="192.0.2.0/24\n198.51.100.0/24\n")

    changed = shell.json(
        "blocklist", "import", "-", "--feed", "drop", stdin="198.51.100.0/24\n203.0.113.0/24\n"
    )

    assert changed == {"added": 1, "replaced": 0, "removed": 1, "total": 2}
    assert {i["owner"] for i in shell.rest("/blocklist")["items"]} == {"feed:drop"}


def test_import_names_the_faulty_lines(shell: Shell) -> None:
    """Each fault has its line, and nothing is added."""
    result = shell.run("blocklist", "import", "-", stdin="192.0.2.0/24\nfoo\n192.0.2.1/24\n")

    assert result.exit_code == 1
    assert [line.split(": ")[1] for line in result.stderr.splitlines()] == ["line 2", "line 3"]
    assert prefixes(shell) == []


def test_a_missing_file_is_a_usage_error(shell: Shell) -> None:
    """Exit code 2, before anything is sent."""
    result = shell.run("blocklist", "import", "/no/such/file")

    assert result.exit_code == 2
    assert "/no/such/file" in result.stderr


def test_a_file_over_the_limit_is_refused_with_the_limit(shell: Shell, tmp_path: Path) -> None:
    """The daemon's answer is read although it came before the file was all sent."""
    file = tmp_path / "huge.txt"
    with file.open("wb") as huge:
        huge.truncate(65 << 20)

    result = shell.run("blocklist", "import", str(file))

    assert result.exit_code == 1
    assert "64 MiB" in result.stderr


def test_clear_takes_the_operators_entries_only(shell: Shell) -> None:
    """Feeds keep theirs unless they are named, or all are meant."""
    for feed in ("one", "two"):
        shell.ok("blocklist", "import", "-", "--feed", feed, stdin=f"192.0.2.{len(feed)}\n198.51.100.0/24\n")
    shell.ok("block", "203.0.113.7")

    shell.ok("blocklist", "clear", "--yes")
    owners = {owner for item in shell.rest("/blocklist")["items"] for owner in item["owners"]}
    assert owners == {"feed:one", "feed:two"}

    shell.ok("blocklist", "clear", "--feed", "one", "--yes")
    owners = {owner for item in shell.rest("/blocklist")["items"] for owner in item["owners"]}
    assert owners == {"feed:two"}

    shell.ok("blocklist", "clear", "--all", "--yes")
    assert prefixes(shell) == []


def test_clear_asks_at_a_terminal(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever says no at a terminal keeps the list."""
    shell.ok("block", "203.0.113.7")
    monkeypatch.setattr("lb.cli.session.at_terminal", lambda: True)

    assert shell.run("blocklist", "clear", stdin="n\n").exit_code == 1
    assert prefixes(shell) == ["203.0.113.7/32"]


def test_the_allowlist_is_kept_apart(shell: Shell) -> None:
    """add, list and remove work on the allowlist alone."""
    assert (
        shell.ok("allowlist", "add", "198.51.100.7", "--reason", "monitoring")
        == "198.51.100.7/32 is allowed\n"
    )
    assert shell.json("allowlist", "list") == shell.rest("/allowlist")
    assert prefixes(shell) == []

    assert shell.ok("allowlist", "remove", "198.51.100.7") == "198.51.100.7 is no longer on the allowlist\n"

    assert prefixes(shell, "allowlist") == []
    assert shell.run("allowlist", "remove", "198.51.100.7").exit_code == 3


def test_the_list_is_a_row_an_entry(shell: Shell) -> None:
    """A reason that holds an escape sequence is refused or made harmless, and columns line up."""
    shell.ok("block", "203.0.113.7", "--reason", "scan of ports")

    header, row = shell.ok("blocklist", "list").splitlines()

    assert header.split() == ["PREFIX", "ACTION", "PACKETS", "OWNER", "EXPIRES", "REASON"]
    assert row[header.index("REASON") :] == "scan of ports"


def test_pages_are_joined_to_one_document(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list of several pages is printed whole in each form, each entry once and in order."""
    monkeypatch.setattr(pages, "FIRST_PAGE", 2)
    monkeypatch.setattr(pages, "PAGE", 3)
    wanted = [f"192.0.2.{n}/32" for n in range(7)]
    shell.ok("blocklist", "import", "-", stdin="\n".join(wanted))
    whole = shell.rest("/blocklist")

    assert json.loads(shell.ok("blocklist", "list", "-o", "json")) == whole
    assert yaml.safe_load(shell.ok("blocklist", "list", "-o", "yaml")) == whole
    assert [line.split()[0] for line in shell.ok("blocklist", "list").splitlines()[1:]] == wanted


def test_a_prefix_stays_until_its_last_owner_leaves(shell: Shell) -> None:
    """--owner names whose entry it is; show tells of each, --all-owners takes all."""
    shell.ok("block", "203.0.113.7", "--reason", "mine")
    shell.ok("block", "203.0.113.7", "--owner", "fail2ban", "--ttl", "1h")

    lines = shell.ok("blocklist", "show", "203.0.113.7").splitlines()
    owners = [line.split()[1] for line in lines if line.startswith("owner")]
    ends = [line for line in lines if line.startswith("expires")]
    assert owners == ["operator", "fail2ban"]
    assert ends[0].endswith("never")
    assert ends[1].endswith("left)")
    shell.ok("unblock", "203.0.113.7")
    assert shell.rest("/blocklist")["items"][0]["owners"] == ["fail2ban"]
    assert shell.run("unblock", "203.0.113.7").exit_code == 4
    shell.ok("block", "203.0.113.7")
    shell.ok("unblock", "203.0.113.7", "--all-owners")
    assert prefixes(shell) == []


def test_list_of_one_owner(shell: Shell) -> None:
    """--owner leaves the others' entries out."""
    shell.ok("block", "203.0.113.7")
    shell.ok("block", "203.0.113.8", "--owner", "fail2ban")

    items = shell.json("blocklist", "list", "--owner", "fail2ban")["items"]

    assert [item["prefix"] for item in items] == ["203.0.113.8/32"]


def test_what_locks_out_needs_force(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry over the SSH session's address is refused, with the option that does it all the same."""
    monkeypatch.setenv("SSH_CONNECTION", "198.51.100.9 50000 192.0.2.1 22")

    refused = shell.run("block", "198.51.100.0/24")

    assert refused.exit_code == 4
    assert "198.51.100.9, the address that you call from" in refused.stderr
    assert "--force" in refused.stderr
    assert prefixes(shell) == []
    shell.ok("block", "198.51.100.0/24", "--force")
    assert prefixes(shell) == ["198.51.100.0/24"]


def test_a_blocked_backend_is_warned_of(web: Shell) -> None:
    """A backend that is added under an entry is taken, and standard error tells what will not work."""
    web.ok("block", "10.0.1.0/24")

    added = web.run("backend", "add", "web", "10.0.1.5")

    assert added.exit_code == 0
    assert "warning: 10.0.1.0/24 (operator) covers 10.0.1.5" in added.stderr


@pytest.mark.parametrize("form", ["plain", "json"])
def test_an_export_can_be_imported_again(shell: Shell, tmp_path: Path, form: str) -> None:
    """What is dropped comes back; in JSON with owners, reasons and TTLs too. Plain text leaves out what only counts."""
    shell.ok("block", "203.0.113.7", "2001:db8::/32", "--reason", "scan")
    shell.ok("block", "198.51.100.0/24", "--count-only")
    shell.ok("block", "192.0.2.9", "--owner", "fail2ban", "--ttl", "1h")
    before = shell.rest("/blocklist")["items"]
    file = tmp_path / "out"
    file.write_text(shell.ok("blocklist", "export", "--format", form))
    shell.ok("blocklist", "clear", "--all", "--yes")

    shell.ok("blocklist", "import", str(file))

    after = shell.rest("/blocklist")["items"]
    if form == "json":
        keys = ("prefix", "owner", "reason", "action", "ttl_seconds")
        assert [[e[k] for k in keys] for e in after] == [[e[k] for k in keys] for e in before]
    else:
        assert [e["prefix"] for e in after] == [e["prefix"] for e in before if e["action"] == "drop"]


def test_export_of_one_owner(shell: Shell) -> None:
    """--owner leaves the others' entries out."""
    shell.ok("block", "203.0.113.7")
    shell.ok("block", "203.0.113.8", "--owner", "fail2ban")

    assert shell.ok("blocklist", "export", "--owner", "fail2ban") == "203.0.113.8/32\n"
    assert shell.ok("allowlist", "export") == ""
