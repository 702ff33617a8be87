"""Chapters: bonds and VLAN devices as the served interface."""

import time
from pathlib import Path

from virtual import network, sluice, traffic
from virtual.report import check, fact, note, within
from virtual.traffic import Clients

CLASS = Path("/sys/class/net")
BONDING = CLASS / "bond0" / "bonding"
OTHER = {"slave1": "slave2", "slave2": "slave1"}
NEW = "slave3"
LINK_SECONDS = 60.0


def bond() -> None:
    """active-backup over two cables, and a third."""
    one = sluice.served()
    check(one["attached"] and one["xdp_mode"] == "native", str(one))
    fact(f"bond0, active-backup: {one['xdp_mode']} ({one['xdp_mode_reason']})")
    see_doctor("bond0")
    figures = []
    with Clients() as clients:
        for lost, other in OTHER.items():
            network.run("ip", "link", "set", "bond0", "type", "bond", "active_slave", lost)
            clients.more()
            figures.append(_lose(clients, [lost], other))
        network.lay(NEW)
        network.enslave(NEW)
        figures.append(_lose(clients, list(OTHER), NEW))
    fact(f"fail-over to the other port, back, and to a new one: {'; '.join(figures)}")
    fact(f"{clients.done} requests meanwhile, none failed")
    fact(traffic.balance())


def _lose(clients: Clients, lost: list[str], other: str) -> str:
    began = time.monotonic()
    for name in lost:
        network.plug(name, "down")
    within(LINK_SECONDS, f"{other} is active", lambda: active() == other, pause=0.01)
    over, before = time.monotonic() - began, native_packets(other)
    took = clients.more()
    check(native_packets(other) > before, f"{other} runs no native program")
    for name in lost:
        network.plug(name, "up")
    clients.more()
    return f"{other} active {over * 1000:.0f} ms after the cable was pulled, {traffic.REQUESTS} answers in {took:.1f} s"


def lag() -> None:
    """Other bonds in its place, which use all ports at once, and whose partner is a bond of the switch."""
    for kind in network.PARTNERED:
        _lag(kind)


def _lag(kind: str) -> None:
    mode = network.BONDS[kind][0]
    network.remove()
    network.balancer(kind)
    within(LINK_SECONDS, "both ports have joined", joined)
    within(LINK_SECONDS, "the program is on the new bond0", lambda: sluice.served()["attached"])
    one = sluice.served()
    check(one["xdp_mode"] == "native", str(one))
    fact(f"bond0, deleted and made anew as {mode}: native by itself, and both ports have joined")
    sluice.wait_until_healthy()
    with Clients() as clients:
        for lost, other in OTHER.items():
            network.plug(lost, "down")
            before = native_packets(other)
            clients.more()
            check(native_packets(other) > before, f"{other} runs no native program")
            network.plug(lost, "up")
            within(LINK_SECONDS, "both ports have joined", joined)
            clients.more()
    fact(f"{mode}: each port lost, and back: {clients.done} requests, none failed")
    fact(traffic.balance())
    see_doctor("bond0")


def vlan() -> None:
    """eth0.100, in the bond's place, beside a card that merges what it receives."""
    _serve_tagged("vlan")
    network.run("ethtool", "-K", "eth0", "gro", "on")
    merging = [one for one in sluice.doctor() if one["check"] == "merging"]
    check([one["command"] for one in merging] == ["ethtool -K eth0 gro off"], str(merging))
    fact(f"sluice doctor: {merging[0]['summary']} → {merging[0]['command']}")
    sluice.run(*merging[0]["command"].split())
    see_doctor("eth0.100")


def tagged() -> None:
    """bond0.100: a VLAN device on a bond, one of whose cables is pulled."""
    _serve_tagged("tagged")
    with Clients() as clients:
        lost = active()
        network.plug(lost, "down")
        within(LINK_SECONDS, "the other port is active", lambda: active() not in ("", lost), pause=0.01)
        clients.more()
        network.plug(lost, "up")
        clients.more()
    fact(f"bond0.100, its bond's active port lost, and back: {clients.done} requests, none failed")
    see_doctor("bond0.100")


def _serve_tagged(kind: str) -> None:
    """A VLAN device in the place of what is served; requests come by it."""
    sluice.systemctl("stop")
    sluice.run("sluice", "detach", "--interface", sluice.interface())
    network.remove()
    network.balancer(kind)
    network.KIND.write_text(kind)
    name = network.served(kind)
    sluice.configure(name)
    sluice.systemctl("start")
    one = sluice.served()
    check(one["name"] == name and one["attached"] and one["xdp_mode"] == "generic", str(one))
    fact(f"{name}: --xdp-mode auto took {one['xdp_mode']} mode: {one['xdp_mode_reason']}")
    sluice.wait_until_healthy()
    with Clients() as clients:
        clients.more()
    fact(f"{clients.done} requests through {name}, none failed")
    fact(traffic.balance())


def see_doctor(interface: str) -> None:
    """The doctor, asked of everything, names nothing that is broken. NotSeenError."""
    findings = sluice.doctor()
    for one in findings:
        note(f"doctor: {one['severity']} {one['check']}: {one['summary']} → {one['command']}")
    check(not any(one["severity"] == "fail" for one in findings), "sluice doctor: something fails")
    named = ", ".join(sorted({one["check"] for one in findings})) or "none"
    fact(f"sluice doctor on {interface}: nothing fails; warnings: {named}")


def native_packets(port: str) -> int:
    """How many packets a program has had in a veth's driver; what a bond hangs in there, `ip link` does not show."""
    lines = [line.split(":") for line in network.run("ethtool", "-S", port).splitlines()]
    return sum(int(one[1]) for one in lines if one[0].endswith("xdp_packets") and "rx_queue" in one[0])


def active() -> str:
    """The port that an active-backup bond uses."""
    return (BONDING / "active_slave").read_text().strip()


def joined() -> bool:
    """Whether all ports carry packets: by 802.3ad, once they are in one aggregator."""
    if "802.3ad" in (BONDING / "mode").read_text():
        return (BONDING / "ad_num_ports").read_text().strip() == str(len(network.PORTS))
    states = [(CLASS / port / "bonding_slave" / "mii_status").read_text().strip() for port in network.PORTS]
    return set(states) == {"up"}
