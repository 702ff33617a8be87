"""sluice token, audit and whoami, and what the command shows to a daemon over TCP."""

from pathlib import Path

import pytest
from cli_shell import Shell

from lb.cli.client import Client
from lb.cli.credentials import Credentials, CredentialsError


def test_a_token_from_its_making_to_its_end(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is printed alone, so that a script can keep it; it is listed without; with it the daemon knows its bearer."""
    made = shell.run("token", "create", "ci", "--role", "operator", "--expires", "30d")
    text = made.stdout.strip()
    assert (made.exit_code, text.startswith("sluice_"), " " in text) == (0, True, False)
    assert made.stderr.startswith("sluice: token ci is operator, until ")
    listed = shell.ok("token", "list")
    assert "ci" in listed and "operator" in listed and text not in listed
    old = shell.json("token", "create", "old", "--role", "viewer", "--expires", "never")
    assert old["expires_at"] is None

    file = tmp_path / "ci.token"
    file.touch(mode=0o600)
    file.write_text(f"{text}\n")
    monkeypatch.setenv("SLUICE_TOKEN_FILE", str(file))
    assert shell.json("whoami")["name"] == "token ci"
    monkeypatch.delenv("SLUICE_TOKEN_FILE")
    monkeypatch.setenv("SLUICE_TOKEN", text)
    assert "token ci" in shell.ok("whoami")
    refused = shell.run("token", "list")
    assert (refused.exit_code, "needs the role admin" in refused.stderr) == (1, True)
    monkeypatch.delenv("SLUICE_TOKEN")

    assert shell.ok("token", "revoke", "ci", "old") == "token ci is revoked\ntoken old is revoked\n"
    assert shell.run("token", "revoke", "ci").exit_code == 3
    monkeypatch.setenv("SLUICE_TOKEN", text)
    gone = shell.run("whoami")
    assert (gone.exit_code, "there is no such token" in gone.stderr) == (1, True)


@pytest.mark.parametrize("expires", ["", "30", "1y", "-1d", "1.5h", "for ever"])
def test_a_lifetime_that_cannot_be(shell: Shell, expires: str) -> None:
    """A usage error, before anything is asked."""
    assert shell.run("token", "create", "x", "--role", "viewer", "--expires", expires).exit_code == 2


def test_the_audit(shell: Shell) -> None:
    """A line for each write, the newest first, with the revisions; chosen by who and what became of it."""
    shell.ok("block", "192.0.2.1")
    shell.ok("block", "192.0.2.2")
    shell.run("unblock", "192.0.2.99")

    shown = shell.ok("audit").splitlines()
    assert shown[0].split() == ["TIME", "ACTOR", "ROLE", "FROM", "STATUS", "REQUEST", "REVISION", "WHY"]
    assert "DELETE /v1/blocklist/192.0.2.99" in shown[1] and " 404 " in shown[1]
    assert "POST /v1/blocklist" in shown[2] and "1 -> 2" in shown[2]
    assert len(shell.json("audit", "--refused")["items"]) == 1
    assert len(shell.json("audit", "--done", "--all")["items"]) == 2
    assert shell.json("audit", "--actor", "nobody")["total"] == 0


def test_token_files_that_are_not_used(tmp_path: Path) -> None:
    """One that others can read, an empty one, one that is not there: each is named, with the remedy."""
    file = tmp_path / "token"
    file.write_text("sluice_x")
    file.chmod(0o644)
    with pytest.raises(CredentialsError, match=f"holds a token and can be read by everyone: chmod o= {file}"):
        Credentials(file).token()
    file.chmod(0o600)
    for text in ("", "two words", "tökén", "a\nb"):
        file.write_text(text)
        with pytest.raises(CredentialsError, match="holds no token"):
            Credentials(file).token()
    with pytest.raises(CredentialsError, match="cannot be read"):
        Credentials(tmp_path / "no").token()
    file.write_text(" sluice_x \n")
    assert Credentials(file).token() == "sluice_x"
    with pytest.raises(CredentialsError, match=r"cannot be used .*: check --ca-file"):
        Credentials(ca_file=file).context()


def test_a_token_does_not_go_over_the_network_in_the_clear(tmp_path: Path) -> None:
    """By http only to this very machine."""
    file = tmp_path / "token"
    file.touch(mode=0o600)
    file.write_text("sluice_x")
    with pytest.raises(CredentialsError, match=r"is not sent to http://192\.0\.2\.1 in the clear"):
        Client("http://192.0.2.1", Credentials(file))
    for server in ("http://127.0.0.1:1", "https://192.0.2.1", "unix:///no/such"):
        Client(server, Credentials(file)).close()
