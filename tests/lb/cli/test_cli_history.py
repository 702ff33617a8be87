"""sluice apply with bounds and deadlines, confirm, rollback, and diff of revisions, against the real application."""

import pytest
from cli_shell import Shell

SERVICE = "services: [{name: web, vip: 192.0.2.10, port: 80, protocol: tcp, backends: [%s]}]\n"


def document(*backends: str) -> str:
    """The service "web" over these backends."""
    return SERVICE % ", ".join(f"{{address: {address}}}" for address in backends)


@pytest.fixture
def web(shell: Shell) -> Shell:
    """Revision 1 has one backend, revision 2 two."""
    shell.ok("apply", "-f", "-", stdin=document("10.0.0.11"))
    shell.ok("apply", "-f", "-", stdin=document("10.0.0.11", "10.0.0.12"))
    return shell


def backends(shell: Shell) -> list[str]:
    """The addresses that the service now has."""
    return [b["address"] for b in shell.rest("/services/web/backends")["items"]]


def test_apply_bounds_what_moves(web: Shell) -> None:
    """More than the bound is a conflict (4) that says how much; --force does it, and a wrong bound is usage (2)."""
    one = document("10.0.0.11")

    refused = web.run("apply", "-f", "-", "--max-moved", "5%", stdin=one)
    assert refused.exit_code == 4
    assert 'for service "web", 50.0 % of the ring (32,769 of 65,537 slots)' in refused.stderr
    assert "--force" in refused.stderr
    assert len(backends(web)) == 2

    assert web.run("apply", "-f", "-", "--max-moved", "many", stdin=one).exit_code == 2
    assert web.run("apply", "-f", "-", "--max-moved", "101%", stdin=one).exit_code == 2
    said = web.ok("apply", "-f", "-", "--max-moved", "5%", "--force", stdin=one)
    assert said.splitlines() == [
        "- backend web/10.0.0.12",
        "  web: 50.0 % of the ring moves, and 0 of 0 live flows",
        "applied: 1 backend removed",
    ]


def test_a_bound_in_the_settings_holds_for_every_command(web: Shell) -> None:
    """What moves packets elsewhere asks for --force; what does not goes through."""
    text = document("10.0.0.11", "10.0.0.12") + "settings: {max_moved_percent: 10}\n"
    web.ok("apply", "-f", "-", stdin=text)

    for words in (
        ("backend", "drain", "web", "10.0.0.11"),
        ("backend", "disable", "web", "10.0.0.11"),
        ("backend", "set", "web", "10.0.0.11", "--weight", "9"),
        ("backend", "add", "web", "10.0.0.13"),
        ("backend", "remove", "web", "10.0.0.11"),
        ("service", "set", "web", "--affinity", "source"),
        ("service", "remove", "web", "--yes"),
    ):
        assert web.run(*words).exit_code == 4, words
    web.ok("service", "set", "web", "--mode", "gue")
    web.ok("backend", "drain", "web", "10.0.0.11", "--force")
    web.ok("backend", "enable", "web", "10.0.0.11", "--force")
    web.ok("service", "remove", "web", "--yes", "--force")


def test_what_is_confirmed_stays(web: Shell) -> None:
    """apply says until when, status too; a second change is refused meanwhile, with the way out."""
    said = web.ok("apply", "-f", "-", "--confirm-within", "5m", stdin=document("10.0.0.11"))
    assert said.splitlines()[-1].startswith("revision 3 is rolled back to revision 2 in 4m 5")
    assert "! revision 3 is rolled back to revision 2 in " in web.ok("status")

    second = web.run("backend", "add", "web", "10.0.0.13")
    assert second.exit_code == 4
    assert "sluice confirm" in second.stderr and "sluice rollback" in second.stderr

    assert web.run("confirm", "2").exit_code == 4
    assert web.ok("confirm", "3") == "revision 3 is confirmed\n"
    assert web.run("confirm").exit_code == 4
    assert web.rest("/status")["pending"] is None
    web.ok("backend", "add", "web", "10.0.0.13")


def test_rollback_takes_back_what_waits(web: Shell) -> None:
    """Without a revision it is the one that waits; its line in the history stays."""
    web.ok("apply", "-f", "-", "--confirm-within", "60s", stdin=document("10.0.0.11"))

    assert web.ok("rollback").splitlines() == [
        "+ backend web/10.0.0.12",
        *MOVED,
        "rolled back: 1 backend added",
    ]
    assert web.rest("/status")["pending"] is None
    assert [row.split()[0] for row in web.ok("revisions").splitlines()[1:]] == ["4", "3", "2", "1"]


MOVED = ["  web: 50.0 % of the ring moves, and 0 of 0 live flows"]


def test_rollback_goes_to_any_revision_and_back(web: Shell) -> None:
    """Each is a new revision; --dry-run only says; without a number it is the newest that differs."""
    web.ok("block", "192.0.2.77", "--owner", "fail2ban")
    would = web.ok("rollback", "1", "--dry-run")
    assert would.splitlines() == ["- backend web/10.0.0.12", *MOVED, "would change: 1 backend removed"]
    assert len(backends(web)) == 2

    assert web.ok("rollback").splitlines()[-1] == "rolled back: 1 backend removed"
    assert backends(web) == ["10.0.0.11"]
    twice = web.run("rollback")
    assert (twice.exit_code, backends(web)) == (4, ["10.0.0.11"])
    assert "would put revision 2 in force again" in twice.stderr
    web.ok("rollback", "2")
    assert len(backends(web)) == 2
    assert web.rest("/blocklist")["total"] == 1
    assert web.run("rollback", "99").exit_code == 3


def test_diff_of_revisions(web: Shell) -> None:
    """From the present state, or from another revision; what is to be compared has to be said."""
    past = web.run("diff", "--revision", "1")
    assert (past.exit_code, past.stdout.splitlines()) == (1, ["- backend web/10.0.0.12", *MOVED])
    assert web.run("diff", "--revision", "2").exit_code == 0
    between = web.run("diff", "--revision", "2", "--since", "1")
    assert (between.exit_code, between.stdout) == (1, "+ backend web/10.0.0.12\n")
    assert web.run("diff", "--revision", "99").exit_code == 3
    for words in ((), ("--since", "1"), ("--revision", "1", "-f", "-")):
        assert web.run("diff", *words, stdin="").exit_code == 2


def test_times_and_revisions_that_cannot_be(shell: Shell) -> None:
    """Usage errors (2), and nothing is asked of the daemon."""
    for time in ("0s", "2d", "soon", "-1", ""):
        words = ("apply", "-f", "-", "--confirm-within", time)
        assert shell.run(*words, stdin=document("10.0.0.11")).exit_code == 2
    assert shell.run("rollback", "0").exit_code == 2
    assert shell.run("rollback").exit_code == 3
    assert shell.rest("/config/revisions")["total"] == 0
