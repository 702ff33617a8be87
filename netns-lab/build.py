"""Builds a topology, and removes it: namespaces, cables, addresses, routes, and what XDP needs.

Every cable is made inside the switch's namespace with its far end in the host's, so a run that is killed half
way leaves nothing outside the lab's own namespaces. Removing those removes everything.
"""

import contextlib
import functools
import shutil
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

import inside
import processes
from pyroute2 import IPRoute, netns
from pyroute2.netlink.exceptions import NetlinkError
from signals import undisturbed
from topology import CLIENT_MTU, CLIENTS, SERVERS, VIPS, Configuration, Host, Names, Network, Role, namespaces

from lb.dataplane import decap, xdpload
from lb.settings import PIN_ROOT

BRIDGE = "br0"
NO_DUPLICATE_DETECTION = 0x02  # IFA_F_NODAD
LINK = 253  # RT_SCOPE_LINK: there without a gateway
LOCAL_TABLE = 255  # RT_TABLE_LOCAL
BLACKHOLE = 6  # FR_ACT_BLACKHOLE
HOST = 254  # RT_SCOPE_HOST: this machine itself
HERE = Path(__file__).resolve().parent

SWITCH_SYSCTLS = {
    "net/ipv6/conf/all/disable_ipv6": "1",  # a switch has no addresses, and needs no neighbour discovery
    "net/ipv6/conf/default/disable_ipv6": "1",
}
HOST_SYSCTLS = {
    # An address can be used at once, and nobody asks for routers that are not there.
    "net/ipv6/conf/all/accept_dad": "0",
    "net/ipv6/conf/default/accept_dad": "0",
    "net/ipv6/conf/default/accept_ra": "0",
    "net/ipv6/conf/default/router_solicitations": "0",
    # Packets come in by the balancer and are answered directly: no check of the way back.
    "net/ipv4/conf/all/rp_filter": "0",
    "net/ipv4/conf/default/rp_filter": "0",
}
CLIENT_SYSCTLS = {
    "net/ipv4/ip_local_port_range": "1024 65535",  # room for tens of thousands of flows
    "net/ipv4/tcp_tw_reuse": "1",
}
BACKEND_SYSCTLS = {
    # The VIP is ours, but only the balancer may say so on the wire.
    "net/ipv4/conf/all/arp_ignore": "1",
    "net/ipv4/conf/all/arp_announce": "2",
    # Servers may bind to, and answer from, any VIP: also those that are ours by a route, not by an address.
    "net/ipv6/ip_nonlocal_bind": "1",
    "net/ipv4/ip_nonlocal_bind": "1",
    "net/core/somaxconn": "8192",
    "net/ipv4/tcp_max_syn_backlog": "8192",
}
ROLE_SYSCTLS = {Role.CLIENT: CLIENT_SYSCTLS, Role.BACKEND: BACKEND_SYSCTLS}


def build(names: Names, configuration: Configuration) -> None:
    """Make the namespaces and all that is in them. What stood under this name must be removed already."""
    for _, _, namespace in namespaces(names, configuration):
        with undisturbed():
            subprocess.run(["ip", "netns", "add", namespace], check=True)
    inside.set_sysctls(names.namespace(Role.SWITCH), SWITCH_SYSCTLS)
    for host in configuration.hosts:
        # Before the interfaces are there, so that they start with these.
        sysctls = HOST_SYSCTLS | ROLE_SYSCTLS.get(host.role, {})
        inside.set_sysctls(names.namespace(host.role, host.number), sysctls)
    inside.route(names.namespace(Role.SWITCH), lambda route: _lay_cables(route, names, configuration.hosts))
    for host in configuration.hosts:
        namespace = names.namespace(host.role, host.number)
        inside.route(
            namespace, functools.partial(_configure, names=names, configuration=configuration, host=host)
        )
    _prepare_xdp(names, configuration)


def _lay_cables(route: IPRoute, names: Names, hosts: Sequence[Host]) -> None:
    route.link("add", ifname=BRIDGE, kind="bridge", br_stp_state=0, br_mcast_snooping=0)
    bridge = route.link_lookup(ifname=BRIDGE)[0]
    route.link("set", index=bridge, mtu=max(host.mtu for host in hosts), state="up")
    for host in hosts:
        _lay_cable(route, names, host)


def _lay_cable(route: IPRoute, names: Names, host: Host) -> None:
    route.link(
        "add",
        ifname=host.label,
        kind="veth",
        mtu=host.mtu,
        peer={
            "ifname": names.interface(host),
            "address": host.mac,
            "mtu": host.mtu,
            "net_ns_fd": names.namespace(host.role, host.number),
        },
    )
    port, bridge = (route.link_lookup(ifname=name)[0] for name in (host.label, BRIDGE))
    route.link("set", index=port, master=bridge, state="up")


def set_cable(names: Names, host: Host, state: str) -> None:
    """Unplug a host's cable at the switch (down), or plug it in again (up)."""
    _set_link(names.namespace(Role.SWITCH), host.label, state)


def set_interface(names: Names, configuration: Configuration, host: Host, state: str) -> None:
    """Set a host's interface down; or up again, with the addresses and routes that the kernel has forgotten."""
    namespace = names.namespace(host.role, host.number)
    _set_link(namespace, names.interface(host), state)
    if state == "up":
        inside.route(
            namespace, functools.partial(_configure, names=names, configuration=configuration, host=host)
        )


def _set_link(namespace: str, interface: str, state: str) -> None:
    inside.route(namespace, lambda r: r.link("set", index=r.link_lookup(ifname=interface)[0], state=state))


def renew_cable(names: Names, configuration: Configuration, host: Host) -> None:
    """Take a host's interface away, and make it anew: the same name, another number."""
    switch, namespace = names.namespace(Role.SWITCH), names.namespace(host.role, host.number)
    inside.route(switch, lambda route: route.link("del", index=route.link_lookup(ifname=host.label)[0]))
    inside.route(switch, lambda route: _lay_cable(route, names, host))
    inside.route(
        namespace, functools.partial(_configure, names=names, configuration=configuration, host=host)
    )
    _set_offloads(names, host)
    if host.role is Role.BALANCER:
        _attach_pass(names, host)


def _configure(route: IPRoute, *, names: Names, configuration: Configuration, host: Host) -> None:
    """Addresses and routes. Clients reach the VIPs by the balancer; servers answer clients directly."""
    loopback = route.link_lookup(ifname="lo")[0]
    index = route.link_lookup(ifname=names.interface(host))[0]
    route.link("set", index=loopback, state="up")
    route.link("set", index=index, state="up")
    for address in host.addresses:
        _add_address(route, index, str(address.ip), address.network.prefixlen)
    if host.role is Role.CLIENT:
        for servers in SERVERS:
            route.route("replace", dst=str(servers), oif=index, scope=LINK)
        for vips in VIPS:
            route.route(
                "replace", dst=str(vips), gateway=configuration.balancer.address(vips.version), oif=index
            )
    else:
        for clients in CLIENTS:
            # The servers' cables carry more than the clients' do, and nobody between would say so.
            route.route("replace", dst=str(clients), oif=index, scope=LINK, metrics={"mtu": CLIENT_MTU})
    if host.role is Role.BALANCER:
        # While no program is attached nothing answers for the VIPs: not even "no route", which ends connections.
        for vips in VIPS:
            _drop_from_outside(route, names.interface(host), vips)
    if host.role is Role.BACKEND:
        # The configuration's VIPs as addresses; the rest of their ranges by a route, for services to come.
        for vip in configuration.vips:
            _add_address(route, loopback, vip, 128 if ":" in vip else 32)
        for vips in VIPS:
            route.route("replace", dst=str(vips), oif=loopback, type="local", table=LOCAL_TABLE, scope=HOST)


def _drop_from_outside(route: IPRoute, interface: str, network: Network) -> None:
    """Packets to these addresses that come in by an interface end here."""
    family = socket.AF_INET if network.version == 4 else socket.AF_INET6
    rule = {"iifname": interface, "dst": str(network), "action": BLACKHOLE, "family": family}
    with contextlib.suppress(NetlinkError):  # it outlives the interface
        route.rule("add", **rule)


def _add_address(route: IPRoute, index: int, address: str, length: int) -> None:
    flags = NO_DUPLICATE_DETECTION if ":" in address else 0
    route.addr("replace", index=index, address=address, prefixlen=length, flags=flags)


def _prepare_xdp(names: Names, configuration: Configuration) -> None:
    """The programs and interface settings without which packets are lost between two veths with XDP."""
    for host in configuration.hosts:
        _set_offloads(names, host)
    _attach_pass(names, configuration.balancer)
    for host in configuration.of_role(Role.BACKEND):
        ends = [address.ip for address in host.addresses]
        namespace = names.namespace(host.role, host.number)
        inside.call(namespace, functools.partial(decap.attach, names.interface(host), ends))


def _set_offloads(names: Names, host: Host) -> None:
    switch, namespace = names.namespace(Role.SWITCH), names.namespace(host.role, host.number)
    interface = names.interface(host)
    # The checksums of what is sent would stay unfinished, and XDP hands frames on as they are.
    _set_offload(namespace, interface, "tx", "off")
    if host.role is not Role.CLIENT:
        # Merged frames are larger than the next XDP program or cable takes.
        _set_offload(namespace, interface, "gro", "off")
        _set_offload(switch, host.label, "gro", "off")


def _attach_pass(names: Names, balancer: Host) -> None:
    """What the balancer sends by XDP_TX is taken up by its peer only while that has an XDP program."""
    inside.call(names.namespace(Role.SWITCH), lambda: xdpload.attach(balancer.label, _pass_program()))


@functools.cache
def _pass_program() -> int:
    return xdpload.load_program(xdpload.compile_source(HERE / "pass.c"), "pass")


def _set_offload(namespace: str, interface: str, feature: str, state: str) -> None:
    subprocess.run(
        inside.command(namespace, ["ethtool", "-K", interface, feature, state]),
        check=True,
        stdout=subprocess.DEVNULL,
    )


def unbuild(names: Names) -> None:
    """Remove this lab's namespaces, what runs inside, and its balancer's pins, as far as there are any."""
    mine = sorted(name for name in netns.listnetns() if names.is_namespace(name))
    processes.end_inside(mine)
    for namespace in mine:
        netns.remove(namespace)
    shutil.rmtree(PIN_ROOT / names.balancer_interface, ignore_errors=True)
    with contextlib.suppress(OSError):  # others' pins are there, or none were
        PIN_ROOT.rmdir()
