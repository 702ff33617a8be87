"""sluice status, stats and version."""

import click
import pytest
from cli_shell import Shell

from lb import __version__
from lb.cli.status import stats_lines, status_lines
from lb.dataplane.layout import layout

PROGRAM = {
    "interface": "eth0",
    "in_force": True,
    "features": ["ipip", "deny4"],
    "instructions": 2345,
    "jited_bytes": 14_200,
    "verified_instructions": 51_653,
    "stack_bytes": 288,
    "compiled_at": 1_000_001.0,
    "compile_seconds": 0.84,
    "load_seconds": 0.05,
    "check_seconds": 0.07,
}
STATUS = {
    "version": "0.1.0",
    "revision": 12,
    "pending": None,
    "ready": False,
    "reasons": ["eth1: the interface is gone"],
    "started_at": 1_000_000.0,
    "interfaces": [
        {
            "name": "eth0",
            "index": 2,
            "mac": "02:00:00:00:00:01",
            "mtu": 1500,
            "attached": True,
            "xdp_mode": "native",
            "xdp_mode_reason": "its driver takes XDP programs",
            "link": "up",
            "program_id": 42,
        },
        {
            "name": "eth1",
            "index": None,
            "mac": None,
            "mtu": None,
            "attached": False,
            "xdp_mode": "none",
            "xdp_mode_reason": "",
            "link": "gone",
            "program_id": None,
        },
    ],
    "program": PROGRAM,
    "programs": [PROGRAM, {**PROGRAM, "in_force": False, "compile_seconds": 0.0, "stack_bytes": None}],
    "services": [],
    "tables": [{"name": "flows", "entries": 262_144, "capacity": 1_048_576}],
}
STATS = {
    "verdicts": {
        "PASS_X": {"packets": 0, "bytes": 0},
        "DROP_Y": {"packets": 12_345, "bytes": 1_500_000},
        "TX_Z": {"packets": 20_000, "bytes": 64},
    },
    "services": {},
    "backends": {"web": {"10.0.0.1": {"packets": 5, "bytes": 300}}},
    "owners": {},
    "rules": {},
    "flow_table": {"hits": 1_200_000, "misses": 3},
    "quic": {"by_id": 0, "unknown": 0, "without": 0},
    "nat": {"opened": 0, "reopened": 0, "no_port": {"ipv4": 0, "keep": 0}, "ended": 0, "ended_early": 0},
}


def plain(lines: object) -> list[str]:
    """Lines without their colours."""
    return [click.unstyle(line) for line in lines]  # type: ignore[attr-defined]


def test_status_sums_up_all_there_is_to_know() -> None:
    """State and reasons come first, then interfaces, program and how full the tables are."""
    text = plain(status_lines(STATUS, 1_007_500.0))

    assert text[:2] == [
        "Sluice 0.1.0: not ready, revision 12, up 2h 5m",
        "  ! eth1: the interface is gone",
    ]
    assert [line.split() for line in text[4:6]] == [
        ["eth0", "yes", "up", "native", "02:00:00:00:00:01", "1500", "42"],
        ["eth1", "no", "gone", "none", "-", "-", "-"],
    ]
    assert text[6] == "  eth0 is native: its driver takes XDP programs"
    sizes = "2.3 k instructions, 14.2 kB of machine code, {} of stack, 51.7 k instructions verified"
    assert text[8] == "program, eth0: " + sizes.format("288 B")
    assert text[9].endswith(" in 0.84 s, loaded in 0.05 s, checked in 0.07 s")
    assert text[10] == "  features: ipip, deny4"
    assert text[11] == "kept ready, eth0: " + sizes.format("?")
    assert text[12].endswith(" or before, by an earlier run")
    assert text[-1].split() == ["flows", "262.1", "k", "1.0", "M", "25.0", "%"]


def test_status_without_a_program_says_so() -> None:
    """Nothing loaded is not an empty line."""
    assert "program: none is loaded" in plain(
        status_lines({**STATUS, "program": None, "programs": []}, 1_000_000.0)
    )


def test_stats_leave_out_zeros_and_begin_with_the_largest() -> None:
    """A table for each kind that has packets, then the flow table."""
    text = plain(stats_lines(STATS))

    assert [line.split()[0] for line in text if line.startswith(("PASS", "DROP", "TX"))] == ["TX_Z", "DROP_Y"]
    assert any(line.split() == ["web", "10.0.0.1", "5", "300", "B"] for line in text)
    assert not any(line.startswith("SERVICE") for line in text)
    assert text[-1] == "flow table: 1.2 M hits, 3 misses"


def test_stats_of_quic_are_shown_once_there_are_any() -> None:
    """What connection ids said is the last line, if a service with quic has had packets."""
    text = plain(stats_lines({**STATS, "quic": {"by_id": 5000, "unknown": 1, "without": 2}}))

    assert text[-1] == "quic: 5.0 k by id, 1 with an unknown id, 2 without an id"


def test_stats_of_nat_are_shown_once_there_are_any() -> None:
    """What became of flows of mode nat is the last line, also if none has found a port."""
    nat = {"opened": 0, "reopened": 0, "no_port": {"ipv4": 2, "keep": 3}, "ended": 0, "ended_early": 0}
    text = plain(stats_lines({**STATS, "nat": nat}))

    assert text[-1] == "nat: flows 0 opened, 0 reopened, 0 ended, 0 ended early, 5 refused for lack of a port"


def test_flows_of_the_daemon(web: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """By kind, or each; an entry of the flow table has no addresses to show. With -o json it is the real document."""
    monkeypatch.setattr(web.dataplane, "clock_seconds", lambda: 100_000)
    plan = web.reconciler._plans.services.by_name["web"]
    flow = web.dataplane.tables.arrays.flows.reshape(-1)[9:10]
    flow["tag_backend"] = 0xABC << 16
    flow["state"] = (
        web.dataplane.clock_seconds() << 32 | plan.number << 16 | layout().constants["FLOW_ESTABLISHED"]
    )

    by_kind, each = web.ok("flows").splitlines(), web.ok("flows", "web", "--list").splitlines()

    assert by_kind[1].split()[:5] == ["web", "10.0.0.11", "tcp", "established", "1"]
    assert each[1].split()[:4] == ["web", "10.0.0.11", "tcp", "established"]
    assert each[1].split()[5:] == ["-"] * 4
    assert len(web.ok("flows", "--backend", "10.0.0.12", "--list").splitlines()) == 1
    assert web.json("flows", "--list") == web.rest("/flows")


def test_status_of_the_daemon(web: Shell) -> None:
    """The real document is summed up with its services, and printed as it is with -o json."""
    text = web.ok("status")

    assert f"Sluice {__version__}: ready, revision 1" in text
    assert "2/2 active" in text
    document = web.json("status")
    assert document == web.rest("/status")


def test_stats_of_the_daemon(web: Shell) -> None:
    """The real document has a table and is printed as it is with -o json."""
    assert "flow table: 0 hits" in web.ok("stats")
    assert web.json("stats") == web.rest("/stats")


@pytest.mark.parametrize("output", ["json", "yaml"])
def test_version_has_every_form(shell: Shell, output: str) -> None:
    """The version of the package, as text and as a document."""
    assert shell.ok("version") == f"sluice {__version__}\n"
    assert __version__ in shell.ok("version", "-o", output)


def test_the_output_form_can_come_from_the_environment(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """SLUICE_OUTPUT counts where no -o is given; -o beats it."""
    monkeypatch.setenv("SLUICE_OUTPUT", "yaml")

    assert shell.ok("version") == f"version: {__version__}\n"
    assert shell.ok("version", "-o", "table") == f"sluice {__version__}\n"


def test_a_pipe_gets_no_colour(web: Shell) -> None:
    """Where standard output is no terminal there is no escape sequence."""
    assert "\x1b" not in web.ok("status")
