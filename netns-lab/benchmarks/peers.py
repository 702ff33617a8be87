"""What others do with the same packets: xdp-filter and nftables, measured here; Katran's figures from a record."""

import os
import shutil
from pathlib import Path

import numpy as np

from benchmarks import world
from benchmarks.cases import BACKENDS, FIRST_PREFIX, UDP_PORT, VIP, addresses, source_of
from benchmarks.world import Cable
from lb.dataplane import libbpf

KATRAN = {
    "tcp_established_1flow": 57.6,
    "tcp_established_10kflows": 78.0,
    "tcp_established_100kflows": 89.0,
    "tcp_established_800kflows_random": 368.0,
    "udp_established_1flow": 80.0,
    "tcp6_established_1flow": 56.6,
    "tcp_new_flows_tracked": 525.0,
    "pass_no_service": 27.3,
}
"""ns a packet net of an empty program, minimum of 21 rounds, on one core of a virtual machine of two. Its licence keeps
it out of this repository, so it was measured apart: a measure of size, not of the last nanosecond."""

TOOL = {"xdp-filter": "xdp-filter", "nft_drop": "nft", "nft_dnat": "nft"}
"""What each receiver of the lab group is made with."""
XDP_FILTER_MOST = 10_000
"""Addresses that xdp-filter's map has room for."""

_PINS = Path("/sys/fs/bpf/xdp-filter")
_PINS_ASIDE = Path("/sys/fs/bpf/bench-xdp-filter")
_PROGRAM = "xdpfilt_alw_ip"
_ALONE = "LIBXDP_SKIP_DISPATCHER"
"""libxdp's switch for attaching a program itself, and not a dispatcher that calls it: the peer at its best."""


def missing() -> dict[str, str]:
    """Peers that are not installed here, and the Debian package of each."""
    packages = {"xdp-filter": "xdp-tools", "nft": "nftables"}
    return {tool: package for tool, package in packages.items() if not shutil.which(tool)}


def load_xdp_filter(cable: Cable, sources: int) -> int:
    """Put xdp-filter on the near end, denying the first `sources` blocked sources; its program. SetupError; OSError.

    Each call makes maps of its own: the pins of the one before are put aside.
    """
    if _PINS.exists():
        aside = len(list(_PINS_ASIDE.parent.glob(f"{_PINS_ASIDE.name}*")))
        _PINS.rename(f"{_PINS_ASIDE}-{aside}")
    os.environ[_ALONE] = "1"
    world.run("xdp-filter", "load", cable.near, "--mode", "native", "--policy", "allow", "--features", "ipv4")
    world.run("xdp-filter", "ip", "--mode", "src", source_of(FIRST_PREFIX))
    if sources > 1:
        _deny(sources)
    return libbpf.obj_get(_PINS / "programs" / cable.near / _PROGRAM)


def _deny(sources: int) -> None:
    """What `xdp-filter ip` does, for many at once. OSError above XDP_FILTER_MOST."""
    table = libbpf.obj_get(_PINS / "filter_ipv4")
    keys = addresses(FIRST_PREFIX, sources).astype(">u4")
    value = np.zeros(libbpf.possible_cpus(), np.uint64)
    assert libbpf.map_lookup(table, keys[:1].ctypes.data, value.ctypes.data)
    values = np.tile(value, sources)
    libbpf.map_update_batch(table, keys.ctypes.data, values.ctypes.data, sources)
    os.close(table)


def nft_drop(cable: Cable) -> None:
    """Drop the first blocked source at the ingress hook of the near end."""
    _take_frames(cable)
    chain = (
        f'type filter hook ingress device "{cable.near}" priority 0; ip saddr {source_of(FIRST_PREFIX)} drop;'
    )
    world.run("nft", "-f", "-", text=f"table netdev bench {{\nchain in {{ {chain} }}\n}}\n")


def nft_dnat(cable: Cable) -> None:
    """Forward the VIP's port to one of as many backends, by DNAT, out of the near end again."""
    _take_frames(cable)
    backends = cable.hosts(BACKENDS)
    pick = ", ".join(f"{n} : {address}" for n, address in enumerate(backends))
    rule = f"ip daddr {VIP} udp dport {UDP_PORT} dnat to jhash ip saddr . udp sport mod {BACKENDS} map {{ {pick} }};"
    chain = f"type nat hook prerouting priority -100; {rule}"
    world.run("nft", "-f", "-", text=f"table ip bench {{\nchain in {{ {chain} }}\n}}\n")


def _take_frames(cable: Cable) -> None:
    """Without an XDP program of its own, a veth takes redirected frames only while GRO is on."""
    world.run("ethtool", "-K", cable.near, "gro", "on")
