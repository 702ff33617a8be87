"""Strip tunnel headers on a backend whose kernel has no tunnel device: compile xdp/decap.c, and attach it.

    python -m lb.dataplane.decap attach eth0 [10.0.0.11 fd00::11] [--gue-port 6080]
    python -m lb.dataplane.decap detach eth0

Tunnels to these addresses, or to all of the interface's own, are taken apart from then on. The program stays on the
interface until it is detached or the interface goes; nothing is pinned. `sluice decap` runs this.
"""

import argparse
import sys
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from lb.dataplane import rtnetlink, xdpload
from lb.dataplane.hook import describe_program
from lb.dataplane.link_facts import addresses_of
from lb.dataplane.source import XDP_DIR
from lb.errors import ForeignProgramError, InterfaceError, SluiceError

SOURCE = XDP_DIR / "decap.c"
FUNCTION = "decap"
ENDS_MAX = 64
"""Addresses that the program's map holds."""
GUE_PORT = 6080

Address = IPv4Address | IPv6Address


def load(ends: Iterable[Address], gue_port: int = GUE_PORT) -> tuple[Any, int]:
    """Compile and load the program for tunnels that end at these addresses.

    Returns bcc's object, which owns the map, and the program's descriptor. CompileError; ValueError if
    there are more than ENDS_MAX.
    """
    ends = list(ends)
    if len(ends) > ENDS_MAX:
        raise ValueError(
            f"{len(ends)} addresses are more than a backend's program holds: give it {ENDS_MAX} at most"
        )
    program = xdpload.compile_source(SOURCE, [f"-DGUE_PORT={gue_port}"])
    table = program[b"tunnel_ends"]
    for end in ends:
        table[_key(table, end)] = table.Leaf(1)
    return program, xdpload.load_program(program, FUNCTION)


def attach(interface: str, ends: Iterable[Address] = (), gue_port: int = GUE_PORT) -> None:
    """Load the program and attach it to an interface, which then keeps it; in place of an earlier one of the kind.

    Without ends, tunnels to all of the interface's addresses. ForeignProgramError: another program is there.
    """
    _check(interface)
    ends = list(ends) or [ip_address(one.partition("/")[0]) for one in addresses_of(interface)]
    _program, descriptor = load(ends, gue_port)
    xdpload.attach(interface, descriptor)


def detach(interface: str) -> None:
    """Take the program off. ForeignProgramError: another one is there."""
    _check(interface)
    xdpload.attach(interface, -1)


def _check(interface: str) -> None:
    link = rtnetlink.links().get(interface)
    if link is None:
        raise InterfaceError(f"there is no interface {interface}: `ip link` shows those there are")
    if link.xdp_program_id is not None:
        found = describe_program(link.xdp_program_id)
        if not found.startswith(f'"{FUNCTION}"'):
            raise ForeignProgramError(
                f"{interface} has an XDP program that is not Sluice's, {found}: take it off "
                f"(ip link set dev {interface} xdp off), or install the kernel's tunnel module"
            )


def _key(table: Any, end: Address) -> Any:
    packed = end.packed if end.version == 6 else bytes(10) + b"\xff\xff" + end.packed
    return table.Key.from_buffer_copy(packed)


def main(words: Sequence[str]) -> int:
    """Run the command line described at the top."""
    parser = argparse.ArgumentParser(prog="sluice decap", description="strip tunnel headers on a backend")
    parser.add_argument("action", choices=("attach", "detach"))
    parser.add_argument("interface")
    parser.add_argument("addresses", nargs="*", type=ip_address)
    parser.add_argument("--gue-port", type=int, default=GUE_PORT)
    asked = parser.parse_args(words)
    try:
        if asked.action == "attach":
            attach(asked.interface, asked.addresses, asked.gue_port)
        else:
            detach(asked.interface)
    except (SluiceError, ValueError, OSError) as error:
        print(f"sluice: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
