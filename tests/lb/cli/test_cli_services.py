"""sluice service and backend, against the real application."""

import pytest
from cli_shell import Shell


def test_a_service_is_added_shown_and_removed(web: Shell) -> None:
    """What add sends is what the API then holds; removed, it is gone."""
    assert web.rest("/services/web") == {
        "name": "web",
        "vip": "192.0.2.10",
        "port": 80,
        "protocol": "tcp",
        "mode": "ipip",
        "nat_source": "pool",
        "affinity": "flow",
        "udp_migration": False,
        "quic": False,
        "flood_protection": None,
        "labels": {"team": "edge"},
        "health_check": None,
        "backends": [
            {"address": "10.0.0.11", "weight": 1, "admin_state": "enabled", "quic_id": None, "port": None},
            {"address": "10.0.0.12", "weight": 3, "admin_state": "enabled", "quic_id": None, "port": None},
        ],
    }

    assert web.ok("service", "remove", "web", "--yes") == "service web removed\n"

    assert web.run("service", "show", "web").exit_code == 3


def test_add_says_what_was_made(shell: Shell) -> None:
    """The table output is one sentence; every option reaches the daemon."""
    said = shell.ok(
        *("service", "add", "dns", "--vip", "2001:db8::53", "--port", "53-54", "--protocol", "udp"),
        *("--mode", "l2", "--affinity", "source", "--backend", "2001:db8:1::1"),
    )

    assert said == "service dns added: udp 2001:db8::53 port 53-54, 1 backend\n"
    held = shell.rest("/services/dns")
    assert (held["mode"], held["affinity"], held["port"]) == ("l2", "source", "53-54")


def test_a_service_of_quic_is_added_and_changed(shell: Shell) -> None:
    """A VIP prefix, mode, affinity and both flags reach the daemon; set changes what is said and no more."""
    said = shell.ok(
        *("service", "add", "h3", "--vip", "2001:db8:5::/64", "--port", "443", "--protocol", "udp"),
        *("--mode", "gue", "--affinity", "destination-port", "--udp-migration", "--quic"),
    )

    assert said == "service h3 added: udp 2001:db8:5::/64 port 443, 0 backends\n"
    held = shell.rest("/services/h3")
    assert (held["vip"], held["mode"], held["affinity"]) == ("2001:db8:5::/64", "gue", "destination-port")
    assert (held["udp_migration"], held["quic"]) == (True, True)

    said = shell.ok("service", "set", "h3", "--mode", "ipip", "--no-quic")

    assert said == "service h3 changed: mode ipip, quic no\n"
    assert shell.rest("/services/h3") == {**held, "mode": "ipip", "quic": False}
    assert "udp_migration  yes\n" in shell.ok("service", "show", "h3")


def test_flags_of_udp_are_refused_for_tcp(web: Shell) -> None:
    """Exit code 1, and each flag by its name."""
    result = web.run("service", "set", "web", "--quic", "--udp-migration")

    assert result.exit_code == 1
    assert [line.split(": ")[1] for line in result.stderr.splitlines()] == ["/udp_migration", "/quic"]


@pytest.mark.parametrize(
    "words",
    [
        ("service", "set", "web"),
        ("backend", "set", "web", "10.0.0.11"),
        ("backend", "set", "web", "10.0.0.11", "--quic-id", "1", "--no-quic-id"),
        ("backend", "add", "web", "10.0.0.13", "--quic-id", "0"),
        ("service", "set", "web", "--mode", "sideways"),
    ],
)
def test_settings_that_make_no_sense_are_usage_errors(web: Shell, words: tuple[str, ...]) -> None:
    """Exit code 2, and nothing was changed."""
    before = web.rest("/services")

    assert web.run(*words).exit_code == 2
    assert web.rest("/services") == before


def test_quic_ids_are_given_shown_and_taken_away(shell: Shell) -> None:
    """An id is set with the backend or later, is a column of its own while there is any, and can go."""
    shell.ok("service", "add", "h3", "--vip", "192.0.2.9", "--port", "443", "--protocol", "udp", "--quic")
    shell.ok("backend", "add", "h3", "10.0.0.11")
    assert "QUIC ID" not in shell.ok("backend", "list", "h3")

    shell.ok("backend", "add", "h3", "10.0.0.12", "--quic-id", "4294967295")
    said = shell.ok("backend", "set", "h3", "10.0.0.11", "--quic-id", "7", "--weight", "2")

    assert said == "backend 10.0.0.11 of h3 has weight 2 and QUIC id 7\n"
    header, *rows = shell.ok("backend", "list", "h3").splitlines()
    assert header.endswith("QUIC ID")
    assert [row.split()[-1] for row in rows] == ["7", "4294967295"]

    said = shell.ok("backend", "set", "h3", "10.0.0.11", "--no-quic-id")

    assert said == "backend 10.0.0.11 of h3 has QUIC id none\n"
    assert [b["quic_id"] for b in shell.rest("/services/h3/backends")["items"]] == [None, 4294967295]


def test_a_quic_id_that_is_taken_names_its_owner(shell: Shell) -> None:
    """Exit code 1, and whose it is."""
    shell.ok("service", "add", "h3", "--vip", "192.0.2.9", "--port", "443", "--protocol", "udp", "--quic")
    shell.ok("backend", "add", "h3", "10.0.0.11", "--quic-id", "7")

    result = shell.run("backend", "add", "h3", "10.0.0.12", "--quic-id", "7")

    assert result.exit_code == 1
    assert result.stderr == "sluice: /quic_id: backend 10.0.0.11 also has the quic_id 7: give each its own\n"


def test_add_prints_the_document_of_the_answer(shell: Shell) -> None:
    """With -o json a write prints the new service as the API answered it."""
    made = shell.json("service", "add", "any", "--vip", "192.0.2.9", "--port", "any", "--protocol", "tcp")

    assert made == shell.rest("/services/any")


@pytest.mark.parametrize(
    ("words", "path"),
    [
        (("service", "list"), "/services"),
        (("service", "show", "web"), "/services/web"),
        (("backend", "list", "web"), "/services/web/backends"),
    ],
)
def test_json_is_exactly_the_rest_document(web: Shell, words: tuple[str, ...], path: str) -> None:
    """-o json prints what the API answers, before or after the command."""
    assert web.json(*words) == web.rest(path)
    assert web.ok("-o", "json", *words) == web.ok(*words, "-o", "json")


def test_the_list_shows_services_as_they_are(web: Shell) -> None:
    """One row a service, with its backends in service, under a header."""
    web.ok("backend", "disable", "web", "10.0.0.11")

    header, row = web.ok("service", "list").splitlines()

    assert header.split() == ["NAME", "VIP", "PORT", "PROTOCOL", "MODE", "BACKENDS", "FLOWS", "PACKETS"]
    assert row.split() == ["web", "192.0.2.10", "80", "tcp", "ipip", "1/2", "active", "0", "0"]


def test_show_has_fields_and_backends(web: Shell) -> None:
    """The service's own fields come first, then a row for each backend."""
    text = web.ok("service", "show", "web")

    assert "vip            192.0.2.10\n" in text
    assert "labels         team=edge\n" in text
    assert [line.split()[0] for line in text.splitlines() if line.startswith("10.")] == [
        "10.0.0.11",
        "10.0.0.12",
    ]


def test_shares_follow_the_weights(web: Shell) -> None:
    """The backend of weight 3 has three quarters of new flows."""
    rows = web.ok("backend", "list", "web").splitlines()[1:]

    assert [row.split()[-2:] for row in rows] == [["25.0", "%"], ["75.0", "%"]]


def test_a_taken_name_is_a_conflict(web: Shell) -> None:
    """Exit code 4, one line, and what to do."""
    result = web.run("service", "add", "web", "--vip", "192.0.2.11", "--port", "80", "--protocol", "tcp")

    assert result.exit_code == 4
    assert result.stdout == ""
    assert result.stderr.startswith('sluice: there is a service "web" already')
    assert result.stderr.count("\n") == 1


def test_a_wrong_value_names_its_field(shell: Shell) -> None:
    """Exit code 1, and the field the daemon found fault with."""
    result = shell.run("service", "add", "web", "--vip", "192.0.2.300", "--port", "80", "--protocol", "tcp")

    assert result.exit_code == 1
    assert result.stderr.startswith("sluice: /vip: ")


def test_each_fault_has_a_line(shell: Shell) -> None:
    """Two wrong fields are two lines."""
    result = shell.run("service", "add", "web", "--vip", "x", "--port", "70000", "--protocol", "tcp")

    assert [line.split(": ")[1] for line in result.stderr.splitlines()] == ["/vip", "/port"]


@pytest.mark.parametrize(
    "words",
    [
        ("service", "show", "nix"),
        ("service", "remove", "nix", "--yes"),
        ("backend", "list", "nix"),
        ("backend", "add", "nix", "10.0.0.1"),
        ("backend", "set", "web", "10.0.0.99", "--weight", "2"),
        ("backend", "drain", "web", "10.0.0.99"),
        ("backend", "enable", "web", "10.0.0.99"),
        ("backend", "disable", "web", "10.0.0.99"),
        ("backend", "remove", "web", "10.0.0.99"),
    ],
)
def test_what_is_not_there_is_not_found(web: Shell, words: tuple[str, ...]) -> None:
    """Exit code 3, nothing on standard output, one line that names it."""
    result = web.run(*words)

    assert result.exit_code == 3
    assert result.stdout == ""
    assert result.stderr.startswith("sluice: ")
    assert ("nix" if "nix" in words else "10.0.0.99") in result.stderr


def test_backends_are_added_weighed_and_removed(web: Shell) -> None:
    """Each change is what the API then holds."""
    assert web.ok("backend", "add", "web", "10.0.0.13", "--weight", "2") == (
        "backend 10.0.0.13 added to web with weight 2\n"
    )
    assert web.ok("backend", "set", "web", "10.0.0.13", "--weight", "7") == (
        "backend 10.0.0.13 of web has weight 7\n"
    )
    assert web.rest("/services/web/backends/10.0.0.13")["weight"] == 7

    assert web.ok("backend", "remove", "web", "10.0.0.13") == "backend 10.0.0.13 removed from web\n"

    assert len(web.rest("/services/web/backends")["items"]) == 2


def test_adding_a_backend_twice_changes_nothing(web: Shell) -> None:
    """It is a conflict (4), and the weight it had stays."""
    result = web.run("backend", "add", "web", "10.0.0.12")

    assert result.exit_code == 4
    assert "sluice backend set web 10.0.0.12 --weight N" in result.stderr
    assert web.rest("/services/web/backends/10.0.0.12")["weight"] == 3


def test_states_are_set(web: Shell) -> None:
    """disable, enable and drain end as admin_state."""
    for verb, state in (("disable", "disabled"), ("enable", "enabled"), ("drain", "draining")):
        web.ok("backend", verb, "web", "10.0.0.11")
        assert web.rest("/services/web/backends/10.0.0.11")["admin_state"] == state


@pytest.mark.parametrize(
    "words", [("service", "show", ""), ("backend", "remove", "web", " "), ("unblock", "")]
)
def test_an_empty_name_is_a_usage_error(shell: Shell, words: tuple[str, ...]) -> None:
    """An unset shell variable must not name the whole collection."""
    result = shell.run(*words)

    assert result.exit_code == 2
    assert "it is empty" in result.stderr


def test_remove_asks_at_a_terminal_only(web: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a terminal "n" leaves the service; a script, which cannot answer, is not asked."""
    with monkeypatch.context() as terminal:
        terminal.setattr("lb.cli.session.at_terminal", lambda: True)
        declined = web.run("service", "remove", "web", stdin="n\n")

    assert declined.exit_code == 1
    assert "nothing was changed" in declined.stderr
    assert web.rest("/services")["total"] == 1

    assert web.run("service", "remove", "web", stdin="").exit_code == 0

    assert web.rest("/services")["total"] == 0
