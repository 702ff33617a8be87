#!/usr/bin/env python3
"""The network inside the machine: a switch, a client and two backends in namespaces; the balancer is itself.

A unit makes it at each boot, before the daemon starts. The balancer's interface is of one of several kinds: a bond over
two cables to the switch, whose partner is a bond of the switch unless one port alone is in use; or a VLAN device, on a
cable or a bond that carries tagged frames.
"""

import string
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import inside
from build import HERE as LAB
from build import HOST_SYSCTLS

from lb.dataplane import xdpload

SWITCH, CLIENT = "switch", "client1"
BACKENDS = {"backend1": "10.0.0.11", "backend2": "10.0.0.12"}
HOSTS = {CLIENT: "10.0.0.101", **BACKENDS}
BALANCER = "10.0.0.1"
VIPS = "10.200.1.0/24"
TAG = "100"
SERVER_MTU = "2000"
"""Room for an outer header around a client's packet."""
FILES = Path("/var/lib/sluice-machine")
KIND = FILES / "kind"
"""What the balancer's interface is to be at the next boot."""
BIG_FILE = Path("/usr/bin/python3.11")
"""Some megabytes, which backends serve and clients send."""
PORTS = ("slave1", "slave2")
BONDS = {
    "bond": ("active-backup",),
    "tagged": ("active-backup",),
    "lag": ("802.3ad", "lacp_rate", "fast", "xmit_hash_policy", "layer3+4"),
    "xor": ("balance-xor", "xmit_hash_policy", "layer3+4"),
    "rr": ("balance-rr",),
}
"""The kinds that have a bond, and its mode."""
PARTNERED = ("lag", "xor", "rr")
"""Whose bond uses all ports at once."""
TAGGED = {"vlan": "eth0", "tagged": "bond0"}
"""What the VLAN device is on."""


def served(kind: str) -> str:
    """The interface that the balancer serves."""
    return f"{TAGGED[kind]}.{TAG}" if kind in TAGGED else "bond0"


def run(*words: str, namespace: str = "") -> str:
    """What a command says; CalledProcessError, whose words are on stderr."""
    command = inside.command(namespace, words) if namespace else list(words)
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def build(kind: str) -> None:
    """Make all of it; nothing of it is there yet."""
    for name in (SWITCH, *HOSTS):
        run("ip", "netns", "add", name)
        inside.set_sysctls(name, HOST_SYSCTLS)
        run("ip", "link", "set", "lo", "up", namespace=name)
    run(
        *[
            "ip",
            "link",
            "add",
            "br0",
            "type",
            "bridge",
            "stp_state",
            "0",
            "vlan_filtering",
            "1",
            "vlan_default_pvid",
        ],
        TAG,
        namespace=SWITCH,
    )
    run("ip", "link", "set", "br0", "mtu", SERVER_MTU, "up", namespace=SWITCH)
    for name, address in HOSTS.items():
        _cable(name, "eth0", name)
        run("ip", "address", "add", f"{address}/24", "dev", "eth0", namespace=name)
    run("ip", "route", "add", VIPS, "via", BALANCER, namespace=CLIENT)
    run("ip", "link", "set", "eth0", "mtu", "1500", namespace=CLIENT)
    for name in BACKENDS:
        _serve(name)
    balancer(kind)


def balancer(kind: str) -> None:
    """The balancer's own interface."""
    if kind in BONDS:
        run("ip", "link", "add", "bond0", "type", "bond", *_mode(kind))
    if kind in PARTNERED:
        run("ip", "link", "add", "lag", "type", "bond", *_mode(kind), namespace=SWITCH)
    for name in PORTS if kind in BONDS else ("eth0",):
        _cable(name, name, None, master="lag" if kind in PARTNERED else "br0")
        if kind in BONDS:
            enslave(name)
        if kind in TAGGED:  # unlike the others' frames
            run("bridge", "vlan", "add", "dev", name, "vid", TAG, namespace=SWITCH)
    if kind in PARTNERED:
        run("ip", "link", "set", "lag", "mtu", SERVER_MTU, "master", "br0", "up", namespace=SWITCH)
    if kind in TAGGED:
        run("ip", "link", "set", TAGGED[kind], "mtu", SERVER_MTU, "up")
        run("ip", "link", "add", "link", TAGGED[kind], "name", served(kind), "type", "vlan", "id", TAG)
    run("ip", "link", "set", served(kind), "mtu", SERVER_MTU, "up")
    run("ip", "address", "add", f"{BALANCER}/24", "dev", served(kind))


def enslave(name: str) -> None:
    """A cable's end becomes a port of the bond; it must be down for that."""
    run("ip", "link", "set", name, "down")
    run("ip", "link", "set", name, "master", "bond0")
    run("ip", "link", "set", name, "up")


def lay(name: str) -> None:
    """One more cable to the switch, which is no port of the bond yet."""
    _cable(name, name, None)


def remove() -> None:
    """Take the balancer's interface and its cables away."""
    for name, namespace in (("bond0", ""), ("lag", SWITCH)):
        if f"{name}:" in run("ip", "-o", "link", "show", "type", "bond", namespace=namespace):
            run("ip", "link", "del", name, namespace=namespace)
    for name in list_cables():
        run("ip", "link", "del", name)


def list_cables() -> list[str]:
    """The balancer's ends of cables."""
    lines = run("ip", "-br", "link", "show", "type", "veth").splitlines()
    return [line.partition("@")[0] for line in lines]


def plug(name: str, state: str) -> None:
    """Plug a cable of the balancer's in (up) or out (down), at the switch."""
    run("ip", "link", "set", name, state, namespace=SWITCH)


def _mode(kind: str) -> list[str]:
    return ["miimon", "50", "mode", *BONDS[kind]]


def _cable(port: str, end: str, host: str | None, master: str = "br0") -> None:
    """From a port of the switch to a host, or (None) to the machine itself."""
    where = ["netns", host] if host else ["netns", "1"]
    add = ["ip", "link", "add", port, "mtu", SERVER_MTU, "type", "veth"]
    run(*add, "peer", "name", end, "mtu", SERVER_MTU, *where, namespace=SWITCH)
    near = host or ""
    # As in the lab: what XDP hands on has the checksum that it has, and must not be merged before.
    run("ethtool", "-K", end, "tx", "off", "gro", "off", namespace=near)
    run("ethtool", "-K", port, "gro", "off", namespace=SWITCH)
    if host is None:
        inside.call(SWITCH, lambda: xdpload.attach(port, _pass()))
    run("ip", "link", "set", port, "master", master, namespace=SWITCH)
    for name, where_ in ((port, SWITCH), (end, near)):
        run("ip", "link", "set", name, "up", namespace=where_)


def _pass() -> int:
    if not _loaded:
        _loaded.append(xdpload.load_program(xdpload.compile_source(LAB / "pass.c"), "pass"))
    return _loaded[0]


_loaded: list[int] = []


def _serve(name: str) -> None:
    """A backend's nginx, on every address that it has or gets."""
    folder = FILES / name
    uploads = folder / "uploads"
    uploads.mkdir(parents=True, exist_ok=True)
    uploads.chmod(0o777)
    template = string.Template((LAB / "servers" / "nginx.conf").read_text())
    settings = template.substitute(
        name=name, run=folder, uploads=uploads, big_file=BIG_FILE, listen="listen 80;"
    )
    (folder / "nginx.conf").write_text(settings.replace("daemon off;", "daemon on;"))
    (folder / "nginx.pid").unlink(missing_ok=True)
    run("nginx", "-c", str(folder / "nginx.conf"), namespace=name)


if __name__ == "__main__":
    build(KIND.read_text())
