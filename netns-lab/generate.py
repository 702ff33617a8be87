#!/usr/bin/env python3
r"""Send packets as fast as one core can: a template frame with many sources, made inside the kernel.

    lab.py exec switch 1 -- netns-lab/generate.py --out balancer1 --destination 10.200.1.1 --port 80 \
        --sources 100 --ports 1000 --packets 10000000

Run it in the switch, out of the port that leads to the balancer: frames then enter its XDP program directly.
Prints {"packets", "seconds", "packets_per_second"} as JSON. Linux 5.18 or newer.
"""

import ctypes
import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rerun

if __name__ == "__main__":
    rerun.in_venv()

import click

from lb.dataplane import xdpload
from lb.errors import DataPlaneError, InterfaceError, SluiceError

SOURCE = Path(__file__).resolve().parent / "generate.c"
LIVE_FRAMES = 1 << 1
SHORTEST_FRAME = 60
CHUNK = 1 << 20
"""Packets per system call: between two of them Ctrl-C is heard."""


@dataclass(frozen=True, slots=True)
class Template:
    """A frame, and the offsets in bytes of what varies in it; a checksum's is 0 if there is none."""

    frame: bytes
    source_at: int
    port_at: int
    ip_sum_at: int
    l4_sum_at: int


class _RunOptions(ctypes.Structure):
    """struct bpf_test_run_opts of libbpf 1.0."""

    _fields_ = (
        ("sz", ctypes.c_size_t),
        ("data_in", ctypes.c_void_p),
        ("data_out", ctypes.c_void_p),
        ("data_size_in", ctypes.c_uint32),
        ("data_size_out", ctypes.c_uint32),
        ("ctx_in", ctypes.c_void_p),
        ("ctx_out", ctypes.c_void_p),
        ("ctx_size_in", ctypes.c_uint32),
        ("ctx_size_out", ctypes.c_uint32),
        ("retval", ctypes.c_uint32),
        ("repeat", ctypes.c_int),
        ("duration", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("cpu", ctypes.c_uint32),
        ("batch_size", ctypes.c_uint32),
    )


def make_template(
    protocol: str,
    source: str,
    source_port: int,
    destination: str,
    port: int,
    *,
    macs: tuple[str, str],
    length: int,
) -> Template:
    """A UDP or TCP frame ("tcp:S": with that flag) of `length` bytes from the first MAC to the second."""
    from scapy.layers.inet import IP, TCP, UDP
    from scapy.layers.inet6 import IPv6
    from scapy.layers.l2 import Ether

    name, _, flags = protocol.partition(":")
    six = ":" in destination
    network = IPv6(src=source, dst=destination) if six else IP(src=source, dst=destination)
    l4_at = 14 + (40 if six else 20)
    l4_length = 20 if name == "tcp" else 8
    transport = (
        TCP(sport=source_port, dport=port, flags=flags or "A")
        if name == "tcp"
        else UDP(sport=source_port, dport=port)
    )
    payload = bytes(max(0, length - l4_at - l4_length))
    frame = bytes(Ether(src=macs[0], dst=macs[1]) / network / transport / payload)
    return Template(
        frame=frame,
        source_at=14 + (20 if six else 12),
        port_at=l4_at,
        ip_sum_at=0 if six else 24,
        l4_sum_at=l4_at + (16 if name == "tcp" else 6),
    )


class Generator:
    """A loaded generator. Use it in the namespace that the interface is in."""

    def __init__(
        self,
        template: Template,
        interface_index: int,
        *,
        sources: int = 1,
        ports: int = 1,
        random: bool = False,
    ) -> None:
        """Compile and load. CompileError."""
        self._frame = template.frame.ljust(SHORTEST_FRAME, b"\0")
        values = {
            "LENGTH": len(self._frame),
            "EGRESS": interface_index,
            "SOURCES": sources,
            "PORTS": ports,
            "SOURCE_AT": template.source_at,
            "PORT_AT": template.port_at,
            "IP_SUM_AT": template.ip_sum_at,
            "L4_SUM_AT": template.l4_sum_at,
            "RANDOM": int(random),
        }
        self._program: Any = xdpload.compile_source(
            SOURCE, [f"-D{name}={value}" for name, value in values.items()]
        )
        templates = self._program[b"templates"]
        templates[0] = templates.Leaf.from_buffer_copy(
            self._frame.ljust(ctypes.sizeof(templates.Leaf), b"\0")
        )
        self._descriptor = xdpload.load_program(self._program, "generate")
        self._libbpf = ctypes.CDLL("libbpf.so.1")

    def send(self, packets: int) -> float:
        """Send so many packets; the seconds it took. DataPlaneError if the kernel refuses."""
        begin = time.monotonic()
        while packets > 0:
            self._send_chunk(min(packets, CHUNK))
            packets -= CHUNK
        return time.monotonic() - begin

    def _send_chunk(self, packets: int) -> None:
        buffer = ctypes.create_string_buffer(self._frame, len(self._frame))
        options = _RunOptions(
            sz=ctypes.sizeof(_RunOptions),
            data_in=ctypes.addressof(buffer),
            data_size_in=len(self._frame),
            repeat=packets,
            flags=LIVE_FRAMES,
        )
        error = self._libbpf.bpf_prog_test_run_opts(self._descriptor, ctypes.byref(options))
        if error:
            raise DataPlaneError(
                f"the kernel does not send live frames ({os.strerror(-error)}): this needs Linux 5.18"
            )


def interface_index(name: str) -> int:
    """The index of an interface of this namespace; InterfaceError."""
    import socket

    try:
        return socket.if_nametoindex(name)
    except OSError:
        raise InterfaceError(f"there is no interface {name} here: `ip link` shows those there are") from None


@click.command()
@click.option("--out", required=True, help="Interface the frames leave by.")
@click.option("--destination", required=True, help="IPv4 or IPv6 address, such as a VIP.")
@click.option("--port", default=80, show_default=True)
@click.option("--protocol", type=click.Choice(["udp", "tcp:A", "tcp:S"]), default="udp", show_default=True)
@click.option("--source", help="The first source address; default 10.0.1.1 or fd00:0:0:1::1.")
@click.option("--source-port", default=1024, show_default=True, help="The first source port.")
@click.option("--sources", default=1, show_default=True, help="How many source addresses.")
@click.option("--ports", default=1, show_default=True, help="How many source ports.")
@click.option("--random", is_flag=True, help="Draw sources at random instead of in turn.")
@click.option("--length", default=60, show_default=True, help="Length of the frame in bytes.")
@click.option("--source-mac", default="02:00:c1:1e:00:01", show_default=True)
@click.option("--destination-mac", default="02:00:ba:1a:00:01", show_default=True, help="The balancer's.")
@click.option("--packets", default=1_000_000, show_default=True)
def main(
    *,
    out: str,
    destination: str,
    port: int,
    protocol: str,
    source: str | None,
    source_port: int,
    sources: int,
    ports: int,
    random: bool,
    length: int,
    source_mac: str,
    destination_mac: str,
    packets: int,
) -> None:
    """Send packets with many sources, as fast as one core can."""
    source = source or ("fd00:0:0:1::1" if ":" in destination else "10.0.1.1")
    macs = (source_mac, destination_mac)
    try:
        template = make_template(protocol, source, source_port, destination, port, macs=macs, length=length)
        generator = Generator(template, interface_index(out), sources=sources, ports=ports, random=random)
        seconds = generator.send(packets)
    except SluiceError as error:
        click.echo(f"generate.py: {error}", err=True)
        sys.exit(1)
    click.echo(
        json.dumps(
            {"packets": packets, "seconds": round(seconds, 3), "packets_per_second": round(packets / seconds)}
        )
    )


if __name__ == "__main__":
    main(prog_name="generate.py")
