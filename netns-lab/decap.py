#!/usr/bin/env python3
"""Strip tunnel headers on a backend: compile xdp/decap.c, tell it the backend's addresses, attach it.

    decap.py attach eth0 10.0.0.11 fd00::11     tunnels to these addresses are taken apart from now on
    decap.py detach eth0

The program stays on the interface until it is detached or the interface goes. Nothing is pinned.
"""

import sys
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any

import rerun

if __name__ == "__main__":
    rerun.in_venv()

import xdpload

from lb.errors import SluiceError

SOURCE = Path(__file__).resolve().parents[1] / "xdp" / "decap.c"
ENDS_MAX = 64
"""Addresses that the program's map holds."""

Address = IPv4Address | IPv6Address


def load(ends: Iterable[Address]) -> tuple[Any, int]:
    """Compile and load the program for tunnels that end at these addresses.

    Returns bcc's object, which owns the map, and the program's descriptor. CompileError; ValueError if
    there are more than ENDS_MAX.
    """
    ends = list(ends)
    if len(ends) > ENDS_MAX:
        raise ValueError(
            f"{len(ends)} addresses are more than a backend's program holds: give it {ENDS_MAX} at most"
        )
    program = xdpload.compile_source(SOURCE)
    table = program[b"tunnel_ends"]
    for end in ends:
        table[_key(table, end)] = table.Leaf(1)
    return program, xdpload.load_program(program, "decap")


def attach(interface: str, ends: Iterable[Address]) -> None:
    """Load the program and attach it to an interface, which then keeps it. SluiceError."""
    _program, descriptor = load(ends)
    xdpload.attach(interface, descriptor)


def _key(table: Any, end: Address) -> Any:
    packed = end.packed if end.version == 6 else bytes(10) + b"\xff\xff" + end.packed
    return table.Key.from_buffer_copy(packed)


def main(words: list[str]) -> int:
    """Run the command line described at the top."""
    try:
        match words:
            case ["attach", interface, first, *more]:
                attach(interface, [ip_address(word) for word in (first, *more)])
            case ["detach", interface]:
                xdpload.attach(interface, -1)
            case _:
                print("usage: decap.py attach INTERFACE ADDRESS… | detach INTERFACE", file=sys.stderr)
                return 2
    except (SluiceError, ValueError, OSError) as error:
        print(f"decap.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
