"""How to prepare a backend for a service: commands to read, and a POSIX script to run there; and how to undo it.

The script can be run again. It finds out by itself which of the backends it is on, and what the kernel there offers.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from string import Template

from lb.doctor.backends import FULL_PACKET, interface_of, vip_command

NAT = "nat"
"""The mode in which a backend has no VIP, but must answer by the balancer."""
TUNNELS = {
    (4, 4): ("sluice-ipip", "ipip", ""),
    (6, 4): ("sluice-sit", "sit", ""),
    (4, 6): ("sluice-ip6tnl", "ip6tnl", "mode any "),
    (6, 6): ("sluice-ip6tnl", "ip6tnl", "mode any "),
}
"""The kernel's device that takes an outer header off, by the family of the packet and of the outer header."""

MODULES = {"ip6tnl": "ip6_tunnel"}
"""Their modules, where they have other names."""
FOREIGN = 3
"""What the script exits with on a machine that is none of the backends."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a backend is to be prepared for, or no longer.

    vip: an address, or an IPv6 prefix; addresses: the backends, all of one family; overhead: of the outer header.
    Mode nat: answers_to are the networks to which a backend's answers have to go by the gateway, the balancer.
    keeps_vip, keeps_tunnel, keeps_arp: other services need that on the same backends, so that undoing leaves it.
    """

    service: str
    vip: str
    mode: str
    addresses: tuple[str, ...]
    overhead: int = 0
    gue_port: int = 6080
    undo: bool = False
    keeps_vip: bool = False
    keeps_tunnel: bool = False
    keeps_arp: bool = False
    gateway: str = ""
    answers_to: tuple[str, ...] = ()

    @property
    def families(self) -> tuple[int, int]:
        """Of the packet, and of the backends' addresses."""
        return (6 if ":" in self.vip else 4), (6 if ":" in self.addresses[0] else 4)


@dataclass(frozen=True, slots=True)
class Step:
    """why: one sentence; commands: of the shell, in order. $own: the backend's address; $dev: its interface."""

    why: str
    commands: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Preparation:
    """One of GET /v1/services/{name}/backend-setup. steps: what to do on a backend; script: the same, whole."""

    service: str
    mode: str
    undo: bool
    addresses: list[str]
    steps: list[Step]
    script: str


def prepare(wish: Wish) -> Preparation:
    """The steps and the script."""
    steps = [FIND, *(_undoing(wish) if wish.undo else _doing(wish))]
    return Preparation(
        wish.service, wish.mode, wish.undo, list(wish.addresses), steps, _script(wish, steps[1:])
    )


FIND = Step(
    "The interface that carries the backend's own address.",
    ("dev=$({})".format(interface_of('"$own"')),),
)


def _doing(wish: Wish) -> Iterator[Step]:
    inner, _ = wish.families
    yield Step(
        "The interface takes packets, and answers for its own address.", ('ip link set dev "$dev" up arp on',)
    )
    if wish.mode == NAT:
        yield Step("Answers go back through the balancer.", tuple(_routes(wish, "replace")))
        return
    if inner == 4:
        yield Step(
            "The backend has the VIP, but only the balancer answers ARP for it.",
            ("sysctl -q -w net.ipv4.conf.all.arp_ignore=1", "sysctl -q -w net.ipv4.conf.all.arp_announce=2"),
        )
        yield Step(
            "Packets come through the balancer and are answered directly: the paths in and out differ.",
            ("sysctl -q -w net.ipv4.conf.all.rp_filter=0", 'sysctl -q -w "net/ipv4/conf/$dev/rp_filter=0"'),
        )
    yield Step(f"The kernel accepts packets for {wish.vip} as its own.", tuple(_vip(wish)))
    if wish.mode == "gue":
        family = " -6" if wish.families[1] == 6 else ""
        yield Step(
            "The kernel receives GUE on its UDP port.",
            (f"ip{family} fou add port {wish.gue_port} gue || true",),
        )
    if wish.overhead:
        yield Step("The outer header is stripped.", tuple(_tunnel(wish)))


def _routes(wish: Wish, verb: str) -> Iterator[str]:
    family = " -6" if wish.families[1] == 6 else ""
    for network in wish.answers_to:
        yield f"ip{family} route {verb} {network} via {wish.gateway}"


def _undoing(wish: Wish) -> Iterator[Step]:
    inner, outer = wish.families
    if wish.mode == NAT:
        yield Step("Answers take the default route again.", tuple(_routes(wish, "del")))
        return
    if wish.overhead and not wish.keeps_tunnel:
        name, _, _ = TUNNELS[wish.families]
        yield Step(
            "Outer headers are no longer stripped.",
            (f"ip link delete dev {name}", "sluice decap detach $dev"),
        )
        if wish.mode == "gue":
            family = " -6" if outer == 6 else ""
            yield Step("GUE is no longer received.", (f"ip{family} fou del port {wish.gue_port}",))
    if not wish.keeps_vip:
        yield Step(f"{wish.vip} is no longer the backend's.", (_without_vip(wish.vip),))
    if inner == 4 and not wish.keeps_arp:
        yield Step(
            "The kernel answers ARP for every address again, as by default.",
            ("sysctl -q -w net.ipv4.conf.all.arp_ignore=0", "sysctl -q -w net.ipv4.conf.all.arp_announce=0"),
        )


def _vip(wish: Wish) -> Iterator[str]:
    if "/" in wish.vip:
        yield "sysctl -q -w net.ipv6.ip_nonlocal_bind=1"
    yield vip_command(wish.vip)


def _without_vip(vip: str) -> str:
    if "/" in vip:
        return f"ip -6 route del local {vip} dev lo"
    return f"ip address del {vip}/{128 if ':' in vip else 32} dev lo"


def _tunnel(wish: Wish) -> Iterator[str]:
    name, kind, more = TUNNELS[wish.families]
    yield f'ip link add name {name} type {kind} {more}local "$own"'
    yield f"ip link set dev {name} up"
    if wish.families[0] == 4:
        yield f"sysctl -q -w net/ipv4/conf/{name}/rp_filter=0"


_SCRIPT = Template("""\
#!/bin/sh
# $title
# Run it as root on the backend. It is safe to repeat; nothing outlives a reboot, so run it at each boot.
set -eu

say() { echo "backend-setup: $$*" >&2; }
fail() { say "$$*"; exit 1; }

[ "$$(id -u)" = 0 ] || fail "this needs root: run it with sudo"
command -v ip >/dev/null 2>&1 || fail "there is no ip command: install iproute2"

mine() {
    for address in "$$@"; do
        if ip -o address show to "$$address" | grep -q .; then echo "$$address" && return; fi
    done
}
own=$$(mine $addresses)
if [ -z "$$own" ]; then
    say "none of the backends' addresses is this machine's ($addresses): run it on the backend"
    exit $foreign
fi

$body
say "$done"
""")

_TUNNEL = Template("""\
# The outer header is stripped by the kernel's own device, or else by Sluice's XDP program.
modprobe -q $module 2>/dev/null || true
if $condition{ ip link show dev $name >/dev/null 2>&1 ||
    ip link add name $name type $kind ${more}local "$$own" 2>/dev/null; }; then
    ip link set dev $name up
$filter    say "$name strips the outer header"
elif command -v sluice >/dev/null 2>&1; then
    sluice decap attach "$$dev" --gue-port $port
    say "this kernel has no $kind device: an XDP program on $$dev strips the outer header"
else
    fail "this kernel has no $kind device: install that module, or Sluice for its sluice decap attach"
fi
""")

_FOU = Template("""\
# The kernel receives GUE on its UDP port, if it can; the XDP program does not need this.
modprobe -q fou$six 2>/dev/null || true
ip$family fou show 2>/dev/null | grep -q "port $port " || ip$family fou add port $port gue 2>/dev/null || true
""")

_MTU = Template("""\
mtu=$$(ip -o link show dev "$$dev" | sed -n 's/.* mtu \\([0-9]*\\) .*/\\1/p')
[ "$$mtu" -ge $need ] || say "$$dev takes $$mtu bytes, a full-sized packet has $need in its outer header:" \\
    "ip link set dev $$dev mtu $need, if every switch on the way allows it; else clients are told to send less"
""")

_UNTUNNEL = Template("""\
# Outer headers are no longer stripped.
! ip link show dev $name >/dev/null 2>&1 || ip link delete dev $name
! command -v sluice >/dev/null 2>&1 || sluice decap detach "$$dev" || true
""")


def _script(wish: Wish, steps: Sequence[Step]) -> str:
    done = f"this backend is {'no longer ' if wish.undo else ''}prepared for {wish.service}"
    title = (
        f"{'Undoes what prepares' if wish.undo else 'Prepares'} a backend of Sluice's service {wish.service}: "
        f"VIP {wish.vip}, mode {wish.mode}."
    )
    body = "\n".join(_part(wish, step) for step in steps)
    if "$dev" in body:
        body = f"{FIND.commands[0]}\n\n{body}"
    if wish.overhead and not wish.undo:
        body += "\n" + _MTU.substitute(need=FULL_PACKET + wish.overhead)
    return _SCRIPT.substitute(
        title=title, addresses=" ".join(wish.addresses), body=body, done=done, foreign=FOREIGN
    )


def _part(wish: Wish, step: Step) -> str:
    """A step in the script: where it is not one that can be run again as it is, what can."""
    first = step.commands[0]
    name, kind, more = TUNNELS[wish.families]
    family = " -6" if wish.families[1] == 6 else ""
    if first.startswith("ip link add"):
        strict = f"    sysctl -q -w net/ipv4/conf/{name}/rp_filter=0\n" if wish.families[0] == 4 else ""
        gue = f'ip{family} fou show 2>/dev/null | grep -q "port {wish.gue_port} " && '
        return _TUNNEL.substitute(
            name=name,
            kind=kind,
            module=MODULES.get(kind, kind),
            more=more,
            filter=strict,
            port=wish.gue_port,
            condition=gue if wish.mode == "gue" else "",
        )
    if first.startswith("ip link delete"):
        return _UNTUNNEL.substitute(name=name)
    if "fou add" in first:
        return _FOU.substitute(family=family, six=family and "6", port=wish.gue_port)
    lines = [f"{line} 2>/dev/null || true" if " del " in line else line for line in step.commands]
    return "\n".join([f"# {step.why}", *lines, ""])
