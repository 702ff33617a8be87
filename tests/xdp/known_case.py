"""What a known frame is, and how one is made."""

from dataclasses import dataclass, field
from typing import Any

from frames import LINK, VIP6, network
from scapy.layers.inet import TCP


@dataclass(frozen=True)
class Case:
    """A frame and its verdict, which the reference confirms. needs, lacks: features without HAVE_, by spaces.

    The frame's destination MAC is zero, which is ours, or its difference from ours. remembers: the flow table must
    have room for the frames before.
    """

    name: str
    verdict: str
    frame: bytes
    needs: str = ""
    lacks: str = ""
    remembers: bool = False


@dataclass(frozen=True)
class Stage:
    """A desired state, and the frames that come while it is in force.

    attacked: services under attack, and the new flows that each may have in a second then; looked_at: every packet is
    sampled; nat_begins: no flow of mode nat was ever seen.
    """

    document: dict[str, Any]
    cases: list[Case] = field(default_factory=list)
    attacked: dict[str, int] = field(default_factory=dict)
    looked_at: bool = False
    nat_begins: bool = False


def case(name: str, verdict: str, frame: Any, needs: str = "", *, differs: str = "", **more: Any) -> Case:
    """The same, of a frame for us; differs: its destination's difference from our MAC."""
    return Case(name, verdict, bytes.fromhex(differs or "00" * 6) + bytes(frame)[6:], needs, **more)


def tagged(*tags: Any, inner: Any) -> Any:
    """A frame with VLAN tags before its IP packet."""
    whole = LINK
    for tag in tags:
        whole = whole / tag
    return whole / inner.payload


def chained(*extensions: Any, dst: str = VIP6) -> Any:
    """TCP behind IPv6 extension headers."""
    whole = LINK / network(dst=dst)
    for extension in extensions:
        whole = whole / extension
    return whole / TCP(sport=40009, dport=80, flags="S")
