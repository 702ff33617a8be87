"""sluice rule: what is sent for each option, what is printed, and how it is refused."""

from typing import Any

import pytest
from cli_shell import Shell

NONE = dict.fromkeys(
    ("source", "destination", "service", "protocol", "source_ports", "ports", "tcp_flags", "length")
)
LIMIT = {"unit": "packets", "burst": None, "per": "source", "ipv4_length": 32, "ipv6_length": 64}

ADDED: list[tuple[list[str], dict[str, Any]]] = [
    (["--action", "drop", "--force"], {}),
    (
        [
            *(
                "--action",
                "drop",
                "--source",
                "10.0.0.0/8",
                "--destination",
                "192.0.2.1",
                "--protocol",
                "udp",
            ),
            *("--port", "53,443", "--source-port", "1-1023", "--length", "0-64", "--fragments", "none"),
            *("--count-only", "--priority", "7", "--reason", "why not"),
        ],
        {
            "source": "10.0.0.0/8",
            "destination": "192.0.2.1/32",
            "protocol": "udp",
            "ports": "53,443",
            "source_ports": "1-1023",
            "length": "0-64",
            "fragments": "none",
            "count_only": True,
            "priority": 7,
            "reason": "why not",
        },
    ),
    (["--action", "allow", "--service", "web"], {"action": "allow", "service": "web"}),
    (["--action", "count", "--protocol", "tcp", "--tcp-flags", "syn,!ack"], {"action": "count"}),
    (["--rate", "1000/s"], {"action": "limit", "limit": {**LIMIT, "rate": 1000}}),
    (["--action", "limit", "--rate", "600k/m"], {"action": "limit", "limit": {**LIMIT, "rate": 10_000}}),
    (
        ["--rate", "10MB/s", "--burst", "20000000", "--per", "rule"],
        {
            "action": "limit",
            "limit": {**LIMIT, "rate": 10**7, "unit": "bytes", "burst": 2 * 10**7, "per": "rule"},
        },
    ),
    (
        ["--rate", "5", "--unit", "new-flows", "--per", "source/24/56", "--ban", "10m"],
        {
            "action": "limit",
            "limit": {**LIMIT, "rate": 5, "unit": "new-flows", "ipv4_length": 24, "ipv6_length": 56},
            "ban_seconds": 600,
        },
    ),
]


@pytest.mark.parametrize(("options", "expected"), ADDED)
def test_options_become_the_rule(web: Shell, options: list[str], expected: dict[str, Any]) -> None:
    """Each option is its field; what is not said has its default."""
    made = web.json("rule", "add", "r", *options)

    read = web.rest("/rules/r")
    assert made == {**read, "warnings": []}
    assert read.items() >= {"name": "r", "action": "drop", "count_only": False, **expected}.items()
    assert {key for key in NONE if read[key] is not None} <= {*expected, "protocol", "tcp_flags"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "--action, or --rate"),
        (["--action", "drop", "--burst", "5"], "need --rate"),
        (["--action", "drop", "--ban", "5m"], "need --rate"),
        (["--rate", "5kB/s", "--unit", "packets"], "--unit says packets"),
        (["--rate", "fast"], "is not a rate"),
        (["--rate", "7/m"], "not a whole number"),
        (["--rate", "0"], "not a whole number"),
        (["--rate", "5", "--per", "net"], "is none of the choices"),
        (["--action", "reject"], "Invalid value"),
    ],
)
def test_usage_is_refused(shell: Shell, options: list[str], words: str) -> None:
    """Exit code 2, one line, and nothing was sent."""
    result = shell.run("rule", "add", "r", *options)

    assert (result.exit_code, words in result.stderr) == (2, True)
    assert shell.rest("/rules")["total"] == 0


def test_refusals_name_the_field(shell: Shell) -> None:
    """What the daemon refuses is said with its field; a name that is taken is a conflict, one unknown not found."""
    refused = shell.run("rule", "add", "r", "--action", "drop", "--protocol", "icmp", "--port", "80")
    assert (refused.exit_code, refused.stderr.split(":")[1].strip()) == (1, "/ports")

    shell.ok("rule", "add", "r", "--action", "drop")
    assert shell.run("rule", "add", "r", "--action", "drop").exit_code == 4
    assert shell.run("rule", "show", "none").exit_code == 3
    assert shell.run("rule", "promote", "none").exit_code == 3
    assert shell.run("rule", "remove", "none").exit_code == 3


def test_rules_are_listed_and_shown(web: Shell) -> None:
    """In their order, each in words, with what it has matched."""
    web.ok(
        "rule",
        "add",
        "syn-rate",
        "--service",
        "web",
        "--tcp-flags",
        "syn,!ack",
        "--rate",
        "9",
        "--count-only",
    )
    web.ok("rule", "add", "office", "--action", "allow", "--source", "198.51.100.0/24")

    header, first, second = web.ok("rule", "list").splitlines()
    assert header.split()[:6] == ["NAME", "PRIORITY", "ACTION", "MATCHES", "LIMIT", "PACKETS"]
    assert first.split()[:5] == ["office", "1000", "allow", "from", "198.51.100.0/24"]
    assert "limit (count only)" in second
    assert "service web flags syn,!ack" in second
    assert "9 packets/s, each source /32 /64" in second
    shown = web.ok("rule", "show", "syn-rate")
    assert "that would have been dropped" in shown
    assert "evaluated as number 2" in shown
    assert [rule["name"] for rule in web.json("rule", "list")["items"]] == ["office", "syn-rate"]


def test_promote_and_remove(shell: Shell) -> None:
    """A trial is put in force by its name; then it is removed."""
    shell.ok("rule", "add", "scan", "--action", "drop", "--protocol", "47", "--count-only")

    assert shell.ok("rule", "promote", "scan") == "rule scan is in force: drops gre\n"
    assert shell.ok("rule", "remove", "scan", "--yes") == "rule scan removed\n"
    assert shell.rest("/rules")["total"] == 0


def test_warnings_go_to_standard_error(shell: Shell) -> None:
    """A rule behind another is added, and the line beside says so; of a document too."""
    shell.ok("rule", "add", "wide", "--action", "drop", "--source", "10.0.0.0/8")

    added = shell.run("rule", "add", "zz", "--action", "drop", "--source", "10.1.0.0/16")
    assert added.exit_code == 0
    assert added.stderr.startswith('sluice: warning: rule "zz" is never reached')
    document = shell.ok("export").replace("name: zz", "name: zzz")
    applied = shell.run("apply", "-f", "-", stdin=document)
    assert applied.exit_code == 0
    assert applied.stderr.startswith('sluice: warning: rule "zzz" is never reached')


def test_stats_have_rules(shell: Shell) -> None:
    """What a rule matched is among the statistics."""
    shell.ok("rule", "add", "scan", "--action", "drop")
    number = shell.reconciler._plans.rules.numbers["scan"]
    shell.dataplane.tables.rule_counters.add(number, 5, 500)

    lines = [line.split() for line in shell.ok("stats").splitlines()]
    assert ["scan", "5", "500", "B"] in lines
