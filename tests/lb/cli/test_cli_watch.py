"""What changes while somebody looks: --watch, and the bar of an import."""

from pathlib import Path

from cli_shell import Shell
from terminal import terminal


def test_watch_shows_what_has_changed_until_ctrl_c(web: Shell) -> None:
    """At a terminal the listing is drawn over itself, with what is so now; Ctrl-C is no error."""
    with terminal("--server", web.server, "service", "list", "--watch", "0.1") as screen:
        screen.until("web")
        web.ok("service", "add", "later", "--vip", "192.0.2.11", "--port", "80", "--protocol", "tcp")
        text = screen.until("later")

        assert "\x1b[H\x1b[J" in text
        assert screen.interrupt() == 0


def test_watch_goes_on_while_the_daemon_is_away() -> None:
    """A daemon that is not there is told of again and again; the command does not end."""
    with terminal("--server", "/no/such.sock", "status", "--watch", "0.1") as screen:
        screen.until("there is no socket /no/such.sock", times=3)

        assert screen.process.poll() is None


def test_what_asking_again_does_not_mend_ends_the_watch(web: Shell) -> None:
    """A service that is not there is an error at once."""
    result = web.run("backend", "list", "nothing", "--watch", "0.1")

    assert result.exit_code == 3
    assert "nothing" in result.stderr


def test_an_interval_that_cannot_be_is_refused(web: Shell) -> None:
    """Nought would be a busy loop."""
    result = web.run("service", "list", "--watch", "0")

    assert result.exit_code == 2
    assert "--watch" in result.stderr


def test_an_import_shows_how_far_it_is(web: Shell, tmp_path: Path) -> None:
    """At a terminal there is a bar that comes to its end; what was done is said after it."""
    file = tmp_path / "drop.txt"
    file.write_text("".join(f"60.{n >> 8}.{n & 255}.0/24\n" for n in range(20000)))

    with terminal("--server", web.server, "blocklist", "import", str(file)) as screen:
        text = screen.until("20000 added")

    assert "sending" in text
    assert "100%" in text


def test_no_bar_where_nobody_looks(web: Shell, tmp_path: Path) -> None:
    """In a script nothing but the answer is written."""
    file = tmp_path / "drop.txt"
    file.write_text("198.51.100.1\n")

    assert (
        web.ok("blocklist", "import", str(file))
        == "1 added, 0 replaced, 0 removed; the operator now holds 1\n"
    )
