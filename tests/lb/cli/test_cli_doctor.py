"""sluice doctor and backend-setup: what they print, and how they end."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cli_shell import Shell

from lb.doctor.facts import Answer, BackendAnswers

SLUICE = Path(sys.executable).with_name("sluice")


def test_report_names_faults_and_their_remedies(web: Shell) -> None:
    """What fails comes first, with what it means and the command; warnings alone do not fail."""
    web.dataplane.answers["10.0.0.11"] = BackendAnswers(unwrapped=Answer.REFUSED)
    bad = web.run("doctor", "--seconds", "0")
    web.dataplane.answers.clear()
    good = web.run("doctor", "--seconds", "0")

    assert (bad.exit_code, good.exit_code) == (1, 0)
    lines = bad.stdout.splitlines()
    assert lines[0].startswith("FAIL  encapsulation: 10.0.0.11 does not strip the outer header")
    assert lines[2] == "      → sluice backend-setup web 10.0.0.11 --script | ssh root@10.0.0.11 sh"
    assert lines[-1].startswith("1 failure, ")
    assert "WARN  vip: no packet for 192.0.2.10" in good.stdout
    assert "→ on router: ip route replace 192.0.2.10/32" in good.stdout


def test_an_interface_is_not_passed_over_in_silence(web: Shell) -> None:
    """Where a daemon answers, it looks at its own interfaces: who names another is told so."""
    told = web.run("doctor", "--seconds", "0", "--interface", "eth7")

    assert told.exit_code == 0
    assert "--interface was ignored" in told.stderr
    assert not web.run("doctor", "--seconds", "0").stderr


def test_all_shows_what_is_well(web: Shell) -> None:
    """Without --all what is as it should be is counted, and of packets it is said what becomes of them."""
    short, long = web.ok("doctor", "--seconds", "0"), web.ok("doctor", "--seconds", "0", "--all")

    assert "ok    kernel" in long
    assert "ok    kernel" not in short
    assert "no packet for any VIP came" in short


def test_json_is_the_document_of_rest(web: Shell) -> None:
    """-o json is what GET /v1/doctor answers."""
    document = json.loads(web.ok("doctor", "web", "-o", "json"))

    assert document["healthy"] is True
    assert {f["severity"] for f in document["findings"]} <= {"ok", "warn"}
    assert set(document["findings"][0]) == {
        *("check", "severity", "subject", "summary", "effect", "command", "run_on")
    }


@pytest.mark.parametrize(("words", "code"), [(("nix",), 3), (("web", "10.9.9.9"), 3), (("web", "x"), 1)])
def test_what_is_not_there(web: Shell, words: tuple[str, ...], code: int) -> None:
    """A service or backend that is not there is an error, as everywhere."""
    assert web.run("doctor", *words).exit_code == code
    assert web.run("backend-setup", *words).exit_code == code


def local(tmp_path: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command where no daemon is."""
    server = f"unix://{tmp_path}/none.sock"
    return subprocess.run(
        [str(SLUICE), "--server", server, "doctor", *words],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_machine_is_looked_at_without_a_daemon(tmp_path: Path) -> None:
    """It says that no daemon answers, and looks at kernel, bcc, headers, bpffs and capabilities all the same."""
    done = local(tmp_path, "-o", "json")
    document = json.loads(done.stdout)

    assert done.returncode == 1
    assert {f["check"] for f in document["findings"]} >= {
        *("daemon", "kernel", "bcc", "headers", "bpffs", "capabilities", "clock")
    }
    (daemon,) = (f for f in document["findings"] if f["check"] == "daemon")
    assert (daemon["severity"], "none.sock" in daemon["summary"]) == ("fail", True)


def test_headers_that_are_none_are_named(tmp_path: Path) -> None:
    """A BCC_KERNEL_SOURCE that holds nothing is told, and the command that mends it is the one that does."""
    broken = json.loads(local(tmp_path, "-o", "json", BCC_KERNEL_SOURCE=str(tmp_path)).stdout)
    (found,) = (f for f in broken["findings"] if f["check"] == "headers")

    assert found["severity"] == "fail"
    assert found["command"] == "unset BCC_KERNEL_SOURCE"


def test_interface_that_is_named_is_looked_at(tmp_path: Path) -> None:
    """Before a daemon is started its interface can be looked at."""
    document = json.loads(local(tmp_path, "-o", "json", "--interface", "nothere0").stdout)
    (found,) = (f for f in document["findings"] if f["check"] == "interface")

    assert found["subject"] == "nothere0"


def test_remote_daemon_that_is_unreachable_says_nothing_of_this_machine(tmp_path: Path) -> None:
    """Another machine may be meant: exit 5, and no report."""
    done = subprocess.run(
        [str(SLUICE), "--server", "http://127.0.0.1:1", "doctor"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stdout) == (5, "")


def test_backend_setup_prints_commands_or_a_script(web: Shell) -> None:
    """Commands for each backend to read and paste; a script to run; what takes it back."""
    read, script = web.ok("backend-setup", "web", "10.0.0.11"), web.ok("backend-setup", "web", "--script")

    assert read.splitlines()[:2] == ["# on 10.0.0.11, as root (mode ipip)", "own=10.0.0.11"]
    assert "ip address replace 192.0.2.10/32 dev lo" in read
    assert script.startswith("#!/bin/sh\n")
    assert "mine 10.0.0.11 10.0.0.12" in script
    assert "ip address del 192.0.2.10/32 dev lo" in web.ok("backend-setup", "web", "--undo")
    assert json.loads(web.ok("backend-setup", "web", "-o", "json"))["items"][0]["mode"] == "ipip"
