"""Health checks as the operator writes them: each that cannot work is refused, and the field named."""

from typing import Any

import pytest
from pydantic import ValidationError

from lb.model import Service
from lb.model.fields import field_errors
from lb.model.health import HealthCheck, datagram

WEB = {"name": "web", "vip": "192.0.2.10", "port": 80, "protocol": "tcp"}


def read(check: dict[str, Any], **changes: Any) -> Service:
    """A service with this check."""
    return Service.model_validate(WEB | {"health_check": check} | changes)


def faults(check: dict[str, Any], **changes: Any) -> list[tuple[str, str]]:
    """Where it is wrong, and what is said of it."""
    with pytest.raises(ValidationError) as caught:
        read(check, **changes)
    return [(e.pointer.removeprefix("/health_check"), e.detail) for e in field_errors(caught.value)]


def test_document_and_back() -> None:
    """One key is enough; what a check dumps, every default written out, is read as an equal one."""
    for check in (
        {"type": "tcp"},
        {"type": "https", "verify": True, "host": "www.example.com:8443", "status": "200, 301-302"},
        {"type": "udp", "request": "hex:00ff"},
        {"type": "dns", "dns_name": "example.com", "dns_type": "SOA", "dns_rcode": "REFUSED"},
        {"type": "command", "command": ["/bin/true"]},
        {"type": "tcp", "passive": {"vote": True}, "mass_failure_guard": 0.5, "slow_start_seconds": 60},
    ):
        service = read(check)
        assert Service.model_validate(service.model_dump(mode="json")) == service
        assert Service.model_validate_json(service.model_dump_json()) == service


@pytest.mark.parametrize(
    ("check", "pointer", "says"),
    [
        ({}, "/type", "needed"),
        ({"type": "icmp"}, "/type", "tcp"),
        ({"type": "tcp", "color": "red"}, "/color", "not known"),
        ({"type": "tcp", "interval_seconds": 0}, "/interval_seconds", "0.1"),
        ({"type": "tcp", "interval_seconds": 1, "timeout_seconds": 2}, "/timeout_seconds", "overtake"),
        ({"type": "tcp", "timeout_seconds": 0}, "/timeout_seconds", "greater than 0"),
        ({"type": "tcp", "interval_seconds": "5"}, "/interval_seconds", "valid number"),
        ({"type": "tcp", "timeout_seconds": True}, "/timeout_seconds", "valid number"),
        ({"type": "tcp", "mass_failure_guard": "0.5"}, "/mass_failure_guard", "valid number"),
        ({"type": "http", "body": "x" * 1025}, "/body", "it should have at most 1024 characters, not 1025"),
        ({"type": "command", "command": "/bin/true"}, "/command", 'it should be a list, not "/bin/true"'),
        ({"type": "command", "command": ["/bin/true"] * 65}, "/command", "at most 64 items, not 65"),
        ({"type": "tcp", "rise": 0}, "/rise", "1"),
        ({"type": "tcp", "fall": "3"}, "/fall", "integer"),
        ({"type": "tcp", "port": 65536}, "/port", "65535"),
        ({"type": "tcp", "via": "tunnel"}, "/via", "data-path"),
        ({"type": "tcp", "path": "/healthz"}, "/path", "only checks of type http and https"),
        ({"type": "http", "verify": True}, "/verify", "only checks of type https"),
        ({"type": "http", "path": "healthz"}, "/path", 'begins with "/"'),
        ({"type": "http", "path": "/a b"}, "/path", "no space"),
        ({"type": "http", "path": "/ü"}, "/path", "ASCII"),
        ({"type": "http", "path": "/\r\nX: y"}, "/path", "control character"),
        ({"type": "http", "method": "CONNECT"}, "/method", "GET"),
        ({"type": "http", "host": "a b"}, "/host", "not a host"),
        ({"type": "http", "host": "a\r\nb"}, "/host", "control character"),
        ({"type": "http", "status": ""}, "/status", "not a status code"),
        ({"type": "http", "status": "2xx"}, "/status", "write 200-299,301"),
        ({"type": "http", "status": "700"}, "/status", "not a status code"),
        ({"type": "http", "status": "200, 100-199"}, "/status", "100-199: a server answers with 1xx while"),
        ({"type": "http", "status": "299-200"}, "/status", "backwards"),
        ({"type": "http", "method": "HEAD", "body": "ok"}, "/body", "HEAD has no body"),
        ({"type": "http", "body_regex": "("}, "/body_regex", "not an RE2 expression: missing )"),
        (
            {"type": "http", "body_regex": r"(a+)\1"},
            "/body_regex",
            "not an RE2 expression: invalid escape",
        ),
        ({"type": "http", "body_regex": r"(\pL{1,100}\d?){9}"}, "/body_regex", "pattern too large"),
        ({"type": "https", "server_name": "a b"}, "/server_name", "not a host name"),
        ({"type": "https", "verify": True}, "/server_name", "verify needs the name"),
        ({"type": "https", "ca_file": "/etc/ca.pem"}, "/ca_file", "set verify"),
        (
            {"type": "https", "verify": True, "server_name": "a", "ca_file": "ca.pem"},
            "/ca_file",
            "absolute path",
        ),
        ({"type": "udp"}, "/request", "needs what to send"),
        ({"type": "udp", "request": "hex:0"}, "/request", "hexadecimal"),
        ({"type": "udp", "request": "x", "reply": "hex:zz"}, "/reply", "hexadecimal"),
        ({"type": "dns"}, "/dns_name", "needs a name"),
        ({"type": "dns", "dns_name": "a..b"}, "/dns_name", "not a domain name"),
        ({"type": "dns", "dns_name": "a" * 70 + ".com"}, "/dns_name", "not a domain name"),
        ({"type": "dns", "dns_name": "a", "dns_type": "AAAAA"}, "/dns_type", "not a record type"),
        ({"type": "dns", "dns_name": "a", "dns_type": "AXFR"}, "/dns_type", "cannot be queried"),
        ({"type": "dns", "dns_name": "a", "dns_rcode": "FINE"}, "/dns_rcode", "not a response code"),
        ({"type": "dns", "dns_name": "a", "dns_rcode": "BADVERS"}, "/dns_rcode", "BADVERS needs EDNS"),
        ({"type": "command"}, "/command", "needs a program"),
        ({"type": "command", "command": []}, "/command", "needs a program"),
        ({"type": "command", "command": ["check"]}, "/command/0", "not an absolute path"),
        ({"type": "command", "command": ["/bin/true"], "via": "data-path"}, "/via", "sends its own packets"),
        ({"type": "command", "command": ["/bin/true"], "port": 80}, "/port", "leave it out"),
        ({"type": "tcp", "when_all_down": "shut"}, "/when_all_down", "open"),
        ({"type": "tcp", "mass_failure_guard": 1}, "/mass_failure_guard", "less than 1"),
        ({"type": "tcp", "slow_start_seconds": -1}, "/slow_start_seconds", "0"),
        ({"type": "tcp", "passive": {"syn_retries": 0}}, "/passive/syn_retries", "1"),
    ],
)
def test_what_cannot_work_is_refused(check: dict[str, Any], pointer: str, says: str) -> None:
    """One fault, at its field, in words that say what is wrong."""
    [(where, detail)] = faults(check)

    assert where == pointer
    assert says in detail


def test_mode_nat_has_no_check_through_the_data_path() -> None:
    """It would be answered to the pool: who asks for it is told, instead of being asked directly in silence."""
    [(where, detail)] = faults({"type": "tcp", "via": "data-path"}, mode="nat")

    assert (where, "leave via out" in detail) == ("/via", True)
    assert read({"type": "tcp", "via": "direct"}, mode="nat").health_check


@pytest.mark.parametrize(("port", "says"), [("any", "every port"), ("8000-8010", "ports 8000-8010")])
def test_port_must_be_said_where_there_are_many(port: str, says: str) -> None:
    """A service of many ports does not say which one is asked; a command needs none."""
    [(where, detail)] = faults({"type": "tcp"}, port=port)

    assert (where, says in detail) == ("/port", True)
    assert read({"type": "tcp", "port": 8000}, port=port).health_check
    assert read({"type": "command", "command": ["/bin/true"]}, port=port).health_check


def test_datagrams_and_statuses() -> None:
    """Text and hexadecimal digits as bytes; codes and ranges as ranges."""
    assert datagram("ping") == b"ping"
    assert datagram("hex:70 69 6E 67") == b"ping"
    check = HealthCheck.model_validate({"type": "http", "status": "200-299, 301"})
    assert check.statuses == ((200, 299), (301, 301))
