"""Interfaces of every kind that this kernel makes, several under one daemon: packets go out by each, and across."""

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import inside
import pytest
from lone_machine import PATIENCE_SECONDS, Machine, lone_machine
from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether
from scapy.packet import Packet

pytestmark = [pytest.mark.e2e, pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(400)]

KINDS = ("veth", "bridge", "macvlan", "vlan", "bond")
NOT_EVERYWHERE = ("macvlan", "vlan", "bond")
"""Kernels may be built without them."""
IPV4 = 0x0800
CLIENT_MAC, BACKEND_MAC = "02:00:00:00:c1:01", "02:00:00:00:ba:0{}"


class Link:
    """One interface that is served, and the far end of its cable, as frames come and go there."""

    def __init__(self, number: int, served: str, far: str) -> None:
        self.number, self.served, self.far = number, served, far
        self.vip, self.backend = f"10.200.1.{number}", f"10.0.{number}.11"


def lay(route: IPRoute, kind: str, number: int) -> Link:
    """A cable, and on its near end an interface of that kind. NetlinkError if this kernel has none of it.

    The cable alone and the bridge have names that differ in a dot: bpffs has no dots, and each has pins of its own.
    """
    near, far = f"c.{number}" if kind == "veth" else f"c{number}", f"c{number}p"

    def index(name: str) -> int:
        return int(route.link_lookup(ifname=name)[0])

    route.link("add", ifname=near, kind="veth", peer={"ifname": far})
    link = Link(number, near, far)
    if kind == "vlan":
        for end in (near, far):
            route.link("add", ifname=f"{end}.5", kind="vlan", link=index(end), vlan_id=5)
        link.served, link.far = f"{near}.5", f"{far}.5"
    elif kind == "macvlan":
        link.served = f"mv{number}"
        route.link("add", ifname=link.served, kind="macvlan", link=index(near), macvlan_mode="bridge")
    elif kind in ("bridge", "bond"):
        link.served = "c_1" if kind == "bridge" else f"b{number}"
        route.link("add", ifname=link.served, kind=kind)
        route.link("set", index=index(near), master=index(link.served))
    for name in {near, far, link.served, link.far}:
        route.link("set", index=index(name), state="up")
    route.addr("add", index=index(link.served), address=f"10.0.{number}.1", prefixlen=24)
    know_backend(route, link)
    return link


def know_backend(route: IPRoute, link: Link) -> None:
    """As if it had answered ARP."""
    index = route.link_lookup(ifname=link.served)[0]
    mac = BACKEND_MAC.format(link.number)
    route.neigh("replace", dst=link.backend, lladdr=mac, ifindex=index, state="permanent")


@pytest.fixture
def machine(as_root: None, tmp_path: Path) -> Iterator[Machine]:
    with lone_machine(tmp_path) as machine:
        yield machine


@pytest.fixture
def links(machine: Machine) -> dict[str, Link]:
    """One interface of each kind that there is."""
    found = {}
    for number, kind in enumerate(KINDS, 1):
        try:
            found[kind] = inside.route(machine.namespace, lambda r, k=kind, n=number: lay(r, k, n))
        except NetlinkError as error:
            assert kind in NOT_EVERYWHERE, error
    machine.interface = found["veth"].served
    machine.attach_foreign(found["veth"].far)  # what XDP sends waits in a veth unless its peer has a program
    return found


def carry(machine: Machine, frame: Packet, into: Link, out: Link, to: str) -> Packet:
    """A frame goes into one cable, again and again, until one for this MAC leaves by another; that one."""

    def exchange() -> Packet:
        with (
            socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(IPV4)) as ear,
            socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as mouth,
        ):
            ear.bind((out.far, IPV4))
            mouth.bind((into.far, 0))
            ear.settimeout(0.5)
            deadline = time.monotonic() + PATIENCE_SECONDS
            while time.monotonic() < deadline:
                mouth.send(bytes(frame))
                with contextlib.suppress(TimeoutError):
                    while (heard := Ether(ear.recv(2048))).dst != to:
                        pass
                    return heard
        raise AssertionError(f"nothing left by {out.far}")

    return inside.call(machine.namespace, exchange)


def syn(vip: str, mac: str) -> Packet:
    """For a VIP, to whoever has this MAC."""
    return Ether(src=CLIENT_MAC, dst=mac) / IP(src="10.0.9.9", dst=vip) / TCP(sport=1024, dport=80)


def send(machine: Machine, into: Link, vip: str, out: Link, mac: str) -> str:
    """SYNs for a VIP go into one cable, until one leaves by another; its outer destination."""
    heard = carry(machine, syn(vip, mac), into, out, BACKEND_MAC.format(out.number))
    assert heard[IP].payload.dst == vip
    return str(heard[IP].dst)


def interfaces(http: httpx.Client) -> dict[str, Any]:
    return {each["name"]: each for each in http.get("/v1/status").json()["interfaces"]}


def set_link(machine: Machine, name: str, **how: Any) -> None:
    inside.route(machine.namespace, lambda r: r.link("set", index=r.link_lookup(ifname=name)[0], **how))


def told(http: httpx.Client, kind: str, interface: str) -> None:
    """Return once an event says so of an interface."""
    headers = {"Accept": "text/event-stream"}
    with http.stream("GET", "/v1/events", params={"kind": kind, "since": "1h"}, headers=headers) as stream:
        for line in stream.iter_lines():
            if line.startswith("data:") and json.loads(line[5:])["facts"].get("interface") == interface:
                return
    raise AssertionError(f"no {kind} of {interface}")


def test_every_kind_of_interface_is_served(machine: Machine, links: dict[str, Link]) -> None:
    """Native where the driver can, generic elsewhere, each with the reason; a packet leaves by the interface of its
    backend, whichever it came by. Down and up, taken away and made anew, and with another MAC: each is told, not
    ready meanwhile, and served again without being asked."""
    others = [link.served for kind, link in links.items() if kind != "veth"]
    more = [word for name in others for word in ("--interface", name)]
    with machine.running(*more) as daemon, machine.client() as http:
        machine.wait(http, ready=True)
        services = [
            {
                "name": kind,
                "vip": link.vip,
                "port": 80,
                "protocol": "tcp",
                "backends": [{"address": link.backend}],
            }
            for kind, link in links.items()
        ]
        http.put("/v1/config", json={"services": services}).raise_for_status()
        found = interfaces(http)

        modes = {kind: found[link.served]["xdp_mode"] for kind, link in links.items()}
        assert modes == {kind: "native" if kind == "veth" else "generic" for kind in links}
        assert found[links["veth"].served]["xdp_mode_reason"] == "its driver takes XDP programs"
        assert "does not take this XDP program" in found[links["bridge"].served]["xdp_mode_reason"]
        for link in links.values():
            assert send(machine, link, link.vip, link, found[link.served]["mac"]) == link.backend
        # Generic programs hand over to any interface.
        into, out = links["bridge"], links[list(links)[-1]]
        assert send(machine, into, out.vip, out, found[into.served]["mac"]) == out.backend
        assert send(machine, out, into.vip, into, found[out.served]["mac"]) == into.backend

        veth = links["veth"]
        set_link(machine, veth.served, state="down")
        assert f"interface {veth.served} is down" in machine.wait(http, ready=False).text
        set_link(machine, veth.served, state="up")
        set_link(machine, veth.far, state="down")
        told(http, "interface.down", veth.served)
        set_link(machine, veth.far, state="up")
        machine.wait(http, ready=True)
        told(http, "interface.up", veth.served)

        set_link(machine, veth.served, address="02:00:00:00:aa:77")
        inside.route(
            machine.namespace, lambda r: know_backend(r, veth)
        )  # the kernel forgets all for another MAC
        assert send(machine, veth, veth.vip, veth, "02:00:00:00:aa:77") == veth.backend

        inside.route(machine.namespace, lambda r: r.link("del", index=r.link_lookup(ifname=veth.served)[0]))
        assert f"interface {veth.served} is not there" in machine.wait(http, ready=False).text
        told(http, "interface.lost", veth.served)
        inside.route(machine.namespace, lambda r: lay(r, "veth", veth.number))
        machine.attach_foreign(veth.far)
        machine.wait(http, ready=True)
        mac = interfaces(http)[veth.served]["mac"]
        assert send(machine, veth, veth.vip, veth, mac) == veth.backend
        assert daemon.poll() is None


def test_nat_between_interfaces(machine: Machine) -> None:
    """Clients are behind one interface, the backend behind another: a request leaves there from the pool, its answer
    comes back here as the VIP's, and both from our MAC of the interface they leave by."""
    clients, servers = (
        inside.route(machine.namespace, lambda r, n=number: lay(r, "veth", n)) for number in (1, 2)
    )
    machine.interface = clients.served
    for link in (clients, servers):
        machine.attach_foreign(link.far)
    web = {
        "name": "web",
        "vip": clients.vip,
        "port": 80,
        "protocol": "tcp",
        "mode": "nat",
        "backends": [{"address": servers.backend, "port": 8080}],
    }
    with machine.running("--interface", servers.served), machine.client() as http:
        machine.wait(http, ready=True)
        config = {"settings": {"nat_pools": ["10.0.2.200"]}, "services": [web]}
        http.put("/v1/config", json=config).raise_for_status()
        mac = {name: each["mac"] for name, each in interfaces(http).items()}
        backend_mac = BACKEND_MAC.format(servers.number)

        asked = carry(machine, syn(clients.vip, mac[clients.served]), clients, servers, backend_mac)
        reply = (
            Ether(src=backend_mac, dst=mac[servers.served])
            / IP(src=servers.backend, dst="10.0.2.200")
            / TCP(sport=8080, dport=asked[TCP].sport, flags="SA")
        )
        answered = carry(machine, reply, servers, clients, CLIENT_MAC)

    assert (asked[IP].src, asked[IP].dst, asked[TCP].dport) == ("10.0.2.200", servers.backend, 8080)
    assert (answered[IP].src, answered[IP].dst) == (clients.vip, "10.0.9.9")
    assert (answered[TCP].sport, answered[TCP].dport, answered[TCP].flags) == (80, 1024, "SA")
    assert (asked.src, answered.src) == (mac[servers.served], mac[clients.served])
