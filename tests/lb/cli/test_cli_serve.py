"""sluice serve and detach: how options become settings. What they start is tested in tests/e2e/."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from lb import daemon
from lb.cli.main import cli
from lb.errors import ForeignProgramError, NotFoundError
from lb.settings import PIN_ROOT, ServeSettings, TableSizes, XdpMode


def sluice(*arguments: str, **environment: str) -> Result:
    """One command, with these variables set."""
    return CliRunner().invoke(cli, arguments, env=environment)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[ServeSettings]]:
    """The settings that the daemon was run with; it ends at once, with exit code 0."""
    monkeypatch.delenv("SLUICE_CACHE_DIR")
    settings: list[ServeSettings] = []

    def run(given: ServeSettings) -> int:
        settings.append(given)
        return 0

    monkeypatch.setattr(daemon, "run", run)
    yield settings


def test_defaults_are_those_of_the_settings(started: list[ServeSettings]) -> None:
    """An interface is all that has to be said."""
    assert sluice("serve", "--interface", "eth0").exit_code == 0

    assert started == [ServeSettings(interfaces=("eth0",))]


def test_every_option_reaches_the_settings(started: list[ServeSettings], tmp_path: Path) -> None:
    """Options given on the command line."""
    config = tmp_path / "edge.yaml"
    config.touch()

    result = sluice(
        "serve",
        *("--interface", "eth0", "--interface", "eth1", "--xdp-mode", "generic", "--listen", "[::1]:8080"),
        *("--state-dir", "/var/lib/x", "--socket", "/run/x.sock", "--config", str(config)),
        *("--log-format", "json", "--replace-foreign-program", "--flow-slots", "4096", "--deny-ipv6", "128"),
    )

    assert result.exit_code == 0, result.output
    assert started == [
        ServeSettings(
            interfaces=("eth0", "eth1"),
            xdp_mode=XdpMode.GENERIC,
            state_dir=Path("/var/lib/x"),
            socket=Path("/run/x.sock"),
            listen="[::1]:8080",
            config=config,
            log_format="json",
            replace_foreign=True,
            sizes=TableSizes(flow_slots=4096, deny_ipv6=128),
        )
    ]


def test_every_option_can_come_from_the_environment(started: list[ServeSettings], tmp_path: Path) -> None:
    """SLUICE_ and the option's name; interfaces have spaces between."""
    config = tmp_path / "edge.yaml"
    config.touch()

    result = sluice(
        "serve",
        SLUICE_INTERFACE="eth0 eth1",
        SLUICE_XDP_MODE="native",
        SLUICE_STATE_DIR="/var/lib/x",
        SLUICE_SOCKET="/run/x.sock",
        SLUICE_LISTEN="127.0.0.1:8080",
        SLUICE_CONFIG=str(config),
        SLUICE_LOG_FORMAT="json",
        SLUICE_REPLACE_FOREIGN_PROGRAM="1",
        SLUICE_SERVICE_PORTS="999",
    )

    assert result.exit_code == 0, result.output
    assert started == [
        ServeSettings(
            interfaces=("eth0", "eth1"),
            xdp_mode=XdpMode.NATIVE,
            state_dir=Path("/var/lib/x"),
            socket=Path("/run/x.sock"),
            listen="127.0.0.1:8080",
            config=config,
            log_format="json",
            replace_foreign=True,
            sizes=TableSizes(service_ports=999),
        )
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--interface", ""),
        ("--interface", "eth0", "--xdp-mode", "fast"),
        ("--interface", "eth0", "--flow-slots", "0"),
        ("--interface", "eth0", "--config", "/no/such/file"),
        ("--interface", "eth0", "--listen", "8080"),
        ("--interface", "eth0", "--listen", "127.0.0.1:99999"),
        ("--interface", "eth0", "--listen", "::1:8080"),
    ],
)
def test_wrong_options_are_exit_code_2(started: list[ServeSettings], arguments: tuple[str, ...]) -> None:
    """Nothing is started."""
    assert sluice("serve", *arguments).exit_code == 2
    assert started == []


def test_the_exit_code_is_that_of_the_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What run returns is handed on."""
    monkeypatch.setattr(daemon, "run", lambda _settings: 1)

    assert sluice("serve", "--interface", "eth0").exit_code == 1


def test_a_daemon_that_cannot_start_says_why_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 1, the sentence of the error, no traceback."""

    def run(_settings: ServeSettings) -> int:
        raise ForeignProgramError("another program holds eth0: use --replace-foreign-program")

    monkeypatch.setattr(daemon, "run", run)

    result = sluice("serve", "--interface", "eth0")

    assert result.exit_code == 1
    assert result.stderr == "sluice: another program holds eth0: use --replace-foreign-program\n"


def test_detach_names_the_interface_and_the_pins(monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon's own function does it."""
    detached: list[tuple[str, Path]] = []
    monkeypatch.setattr(daemon, "detach", lambda interface, pins: detached.append((interface, pins)))

    result = sluice("detach", "--interface", "eth0")

    assert result.stdout == "Sluice is detached from eth0\n"
    assert detached == [("eth0", PIN_ROOT)]


def test_detach_of_what_is_not_attached_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 1, as for everything that serve and detach find wrong."""

    def detach(_interface: str, _pins: Path) -> None:
        raise NotFoundError("nothing of sluice is attached to eth0")

    monkeypatch.setattr(daemon, "detach", detach)

    assert sluice("detach", "--interface", "eth0").exit_code == 1
