"""A client's own kernel takes the ICMP that the balancer sends: replies to echo, and how much would fit."""

import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import inside
import pytest
from place import Lab
from topology import CLIENT_MTU, SERVER_MTU, Role

DEADLINE_SECONDS = 30.0
POLL_SECONDS = 0.05
ECHO = {4: b"\x08\x00", 6: b"\x80\x00"}
ECHO_REPLY = {4: 0, 6: 129}
IP_MTU_DISCOVER, IP_MTU, IP_PMTUDISC_DO, IP_PMTUDISC_PROBE = 10, 14, 2, 3
IPV6_MTU_DISCOVER, IPV6_MTU = 23, 24
"""Linux's; Python names none of them."""
families = pytest.mark.parametrize("family", [4, 6])


def await_true(question: Callable[[], bool]) -> bool:
    """Whether the answer becomes yes before the deadline."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not (answer := question()) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    return answer


@families
def test_ping(lab: Lab, add_service: Any, vips: dict[int, str], family: int) -> None:
    """A VIP answers echo, by a reply whose checksums the client's kernel finds right, id and data as they were sent."""
    add_service("web", vips[family], "tcp", 80, family=family)
    namespace = lab.namespace(Role.CLIENT, 1)
    inside.set_sysctls(namespace, {"net/ipv4/ping_group_range": "0 0"})  # of both families
    protocol = socket.IPPROTO_ICMP if family == 4 else socket.IPPROTO_ICMPV6
    data = bytes(range(256)) * 4

    def ping() -> bytes:
        with socket.socket(
            socket.AF_INET if family == 4 else socket.AF_INET6, socket.SOCK_DGRAM, protocol
        ) as s:
            s.settimeout(DEADLINE_SECONDS)
            s.connect((vips[family], 0))
            s.send(ECHO[family] + bytes(4) + b"\0\7" + data)  # the kernel writes checksum and id
            return s.recv(2000)

    reply = inside.call(namespace, ping)

    assert (reply[0], reply[1], reply[6:]) == (ECHO_REPLY[family], 0, b"\0\7" + data)


@pytest.fixture
def narrow_way(lab: Lab) -> Iterator[Callable[[int], None]]:
    """Sets the MTU of the balancer's interface; in the end it is what it was."""

    def set_mtu(mtu: int) -> None:
        inside.route(
            lab.namespace(Role.BALANCER),
            lambda route: route.link(
                "set", index=route.link_lookup(ifname=lab.names.balancer_interface)[0], mtu=mtu
            ),
        )

    yield set_mtu
    set_mtu(SERVER_MTU)


@families
@pytest.mark.parametrize(("mode", "overhead"), [("ipip", 0), ("gue", 8)])
def test_client_learns_the_path_mtu(
    lab: Lab,
    add_service: Any,
    vips: dict[int, str],
    narrow_way: Any,
    *,
    family: int,
    mode: str,
    overhead: int,
) -> None:
    """Where a full-sized packet no longer fits with its outer header, the client's kernel learns what does, and such
    packets reach the backend; once the way is wide again, full-sized ones do."""
    add_service("echo", vips[family], "udp", 80, family=family, mode=mode)
    headers = (20 if family == 4 else 40) + 8
    level = socket.IPPROTO_IP if family == 4 else socket.IPPROTO_IPV6
    discover, learnt = (IP_MTU_DISCOVER, IP_MTU) if family == 4 else (IPV6_MTU_DISCOVER, IPV6_MTU)
    fits = CLIENT_MTU - (20 if family == 4 else 40) - overhead

    def udp(how: int) -> socket.socket:
        made = socket.socket(socket.AF_INET if family == 4 else socket.AF_INET6, socket.SOCK_DGRAM)
        made.setsockopt(level, discover, how)
        made.settimeout(0.2)
        made.connect((vips[family], 80))
        return made

    def answered(s: socket.socket, length: int) -> bool:
        try:
            s.send(bytes(length - headers))
            return b"backend" in s.recv(9000)
        except OSError:  # too big for what is known, or no answer yet
            return False

    client = lab.namespace(Role.CLIENT, 1)
    with (
        inside.call(client, lambda: udp(IP_PMTUDISC_DO)) as s,
        inside.call(client, lambda: udp(IP_PMTUDISC_PROBE)) as whatever,
    ):
        assert await_true(lambda: answered(s, CLIENT_MTU))
        narrow_way(CLIENT_MTU)

        assert await_true(lambda: not answered(s, CLIENT_MTU) and s.getsockopt(level, learnt) == fits)
        assert await_true(lambda: answered(s, fits))
        assert not answered(whatever, fits + 1)

        narrow_way(SERVER_MTU)
        assert await_true(lambda: answered(whatever, CLIENT_MTU))
