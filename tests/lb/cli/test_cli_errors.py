"""What the command does when no daemon answers, or something else does, and when it is used wrongly."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cli_shell import Shell
from click.testing import CliRunner, Result

from lb.cli import client
from lb.cli.main import cli


def sluice(*arguments: str) -> Result:
    """One command."""
    return CliRunner().invoke(cli, arguments)


@contextmanager
def peer(path: Path, behave: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that does one thing with its one connection."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen()

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            behave(connection)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"unix://{path}"
    finally:
        thread.join()
        listener.close()


def expect_unreachable(result: Result, words: str) -> None:
    """Exit code 5, and one line on standard error with these words."""
    assert result.exit_code == 5
    assert result.stdout == ""
    assert result.stderr.startswith("sluice: ")
    assert result.stderr.count("\n") == 1
    assert words in result.stderr


def test_no_socket(tmp_path: Path) -> None:
    """The advice is to start the daemon."""
    expect_unreachable(sluice("--server", f"{tmp_path}/none.sock", "status"), "sluice serve")


def test_a_socket_that_nobody_listens_on(tmp_path: Path) -> None:
    """A socket left behind by a daemon that was killed."""
    path = tmp_path / "dead.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(path))

    expect_unreachable(sluice("--server", str(path), "block", "192.0.2.1"), "nothing listens")


def test_no_server_at_that_port() -> None:
    """http:// is spoken too, and refused alike."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

    expect_unreachable(sluice("--server", f"http://127.0.0.1:{port}", "status"), "nothing listens")


def test_a_path_that_is_no_socket(tmp_path: Path) -> None:
    """The kernel's words are passed on."""
    path = tmp_path / "file"
    path.touch()

    expect_unreachable(sluice("--server", str(path), "status"), "--server")


def test_a_daemon_that_hangs_up(tmp_path: Path) -> None:
    """Whether the change was made is not known, and the message says where to look."""

    def hang_up(connection: socket.socket) -> None:
        connection.recv(65536)

    with peer(tmp_path / "s", hang_up) as server:
        expect_unreachable(sluice("--server", server, "block", "192.0.2.1"), "sluice revisions")


def test_a_daemon_that_is_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the time limit the command gives up."""
    monkeypatch.setattr(client, "TIMEOUT_SECONDS", 0.05)

    def wait_for_end(connection: socket.socket) -> None:
        while connection.recv(65536):
            pass

    with peer(tmp_path / "s", wait_for_end) as server:
        expect_unreachable(sluice("--server", server, "status"), "did not answer")


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nContent-Type: text/html\r\n\r\n<html>",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Type: application/json\r\n\r\n{",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 600\r\nContent-Type: application/json\r\n\r\n{",
    ],
)
def test_something_else_that_answers(tmp_path: Path, answer: bytes) -> None:
    """What is no answer of a daemon is not taken for one."""

    def behave(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(answer)

    with peer(tmp_path / "s", behave) as server:
        expect_unreachable(sluice("--server", server, "status"), "--server")


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("status", "--nonsense"),
        ("block",),
        ("service", "add", "web"),
        ("service", "list", "extra"),
        ("-o", "xml", "status"),
        ("status", "-o", "xml"),
        ("--server", "ftp://x", "status"),
        ("backend", "set", "web", "10.0.0.1", "--weight", "many"),
        ("service", "add", "a", "--vip", "192.0.2.1", "--port", "1", "--protocol", "tcp", "--backend", "x=y"),
        ("service", "add", "a", "--vip", "192.0.2.1", "--port", "1", "--protocol", "tcp", "--label", "x"),
        ("blocklist", "clear", "--feed", "x", "--all", "--yes"),
    ],
)
def test_wrong_use_is_exit_code_2(arguments: tuple[str, ...]) -> None:
    """One line that ends with where the help is."""
    result = sluice(*arguments)

    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("sluice: ")
    assert result.stderr.endswith('--help"\n')
    assert result.stderr.count("\n") == 1


def test_what_is_no_number_is_said_in_words() -> None:
    """The value is named, and nothing of ranges and types."""
    result = sluice("rollback", "last")

    assert result.stderr.startswith("sluice: Invalid value for '[REVISION]': 'last' is not a number; see ")


def test_nothing_at_all_shows_the_help() -> None:
    """`sluice` alone is a usage error that explains itself."""
    result = sluice()

    assert result.exit_code == 2
    assert "Usage: " in result.stderr


def test_the_server_can_come_from_the_environment(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """SLUICE_SERVER counts where no --server is given."""
    monkeypatch.setenv("SLUICE_SERVER", shell.server)

    assert sluice("service", "list", "-o", "json").exit_code == 0


@pytest.mark.parametrize(
    ("words", "meant"),
    [(("servce", "list"), "service"), (("service", "lst"), "list"), (("blocklst",), "blocklist")],
)
def test_a_mistyped_command_is_told_of_what_is_like_it(words: tuple[str, ...], meant: str) -> None:
    """Of the first word and of the second; it is a usage error in one line."""
    result = sluice(*words)

    assert result.exit_code == 2
    assert f"'{meant}'" in result.stderr
    assert result.stderr.count("\n") == 1
