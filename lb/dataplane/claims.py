"""Who answers ARP for an address: for a VIP in an interface's own network, only the balancer should."""

import contextlib
import select
import socket
import struct
import time
from collections.abc import Iterable

from lb.dataplane import rtnetlink

PATIENCE_SECONDS = 1.0
"""How long others may take to say that it is theirs."""
_ETH_P_ARP = 0x0806
_ETHERNET = struct.Struct("!6s6sH")
_ARP = struct.Struct("!HHBBH6s4s6s4s")
_REQUEST, _REPLY = 1, 2
_EVERYBODY = b"\xff" * 6


def claims(asked: Iterable[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    """By VIP, of these (VIP, interface), the MACs that answer for it beside the interface's own. IPv4 alone.

    Nobody's where it cannot be asked, which takes CAP_NET_RAW.
    """
    found: dict[str, set[str]] = {}
    links = rtnetlink.links()
    by_interface: dict[str, list[str]] = {}
    for vip, interface in asked:
        if ":" not in vip and interface in links:
            by_interface.setdefault(interface, []).append(vip)
    for interface, vips in by_interface.items():
        with contextlib.suppress(OSError):
            for vip, mac in _ask(interface, links[interface].mac, vips):
                found.setdefault(vip, set()).add(mac)
    return {vip: tuple(sorted(macs)) for vip, macs in found.items()}


def _ask(interface: str, own: bytes, vips: list[str]) -> set[tuple[str, str]]:
    answers: set[tuple[str, str]] = set()
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ARP)) as raw:
        raw.bind((interface, _ETH_P_ARP))
        for vip in vips:
            # From nobody (RFC 5227): whoever hears it learns nothing of us.
            arp = _ARP.pack(1, 0x0800, 6, 4, _REQUEST, own, bytes(4), bytes(6), socket.inet_aton(vip))
            raw.send(_ETHERNET.pack(_EVERYBODY, own, _ETH_P_ARP) + arp)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (rest := deadline - time.monotonic()) > 0:
            if not select.select([raw], [], [], rest)[0]:
                break
            frame = raw.recv(2048)
            if len(frame) < _ETHERNET.size + _ARP.size:
                continue
            _, _, _, _, kind, mac, address, _, _ = _ARP.unpack_from(frame, _ETHERNET.size)
            vip = socket.inet_ntoa(address)
            if kind == _REPLY and mac != own and vip in vips:
                answers.add((vip, mac.hex(":")))
    return answers
