"""Services of protocol icmp by the command line."""

from cli_shell import Shell


def test_a_service_without_a_port(shell: Shell) -> None:
    """It is added by VIP and mode alone, and shown, listed and exported without one."""
    words = ("service", "add", "ping", "--vip", "192.0.2.10", "--protocol", "icmp", "--mode", "nat")

    said = shell.ok(*words)

    assert said == "service ping added: icmp 192.0.2.10, 0 backends\n"
    assert shell.rest("/services/ping")["port"] is None
    row = shell.ok("service", "list").splitlines()[1].split()
    assert row[:5] == ["ping", "192.0.2.10", "-", "icmp", "nat"]
    assert "icmp" in shell.ok("service", "show", "ping")
    assert shell.ok("apply", "-f", "-", stdin=shell.ok("export")) == "nothing to change\n"


def test_a_port_for_it_is_refused(shell: Shell) -> None:
    """And so is a service of another protocol without: each by the field's name and what to do."""
    ping = ("service", "add", "ping", "--vip", "192.0.2.10", "--mode", "nat", "--protocol")

    with_port, without = shell.run(*ping, "icmp", "--port", "80"), shell.run(*ping, "tcp")

    assert (with_port.exit_code, without.exit_code) == (1, 1)
    assert "/port: icmp has no ports: leave it out" in with_port.stderr
    assert "/port: this key is needed" in without.stderr
