"""Connections of mode nat when a daemon starts with other tables: the real program finds them, with their ports."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from echo_frames import ping, pinged, pong
from frames import service, tcp
from kernel_plane import Balancer
from nat_frames import network_of, reparsed
from rig import XDP_ACTIONS
from scapy.layers.inet import TCP
from scapy.packet import Packet

from lb.dataplane.twin import SMALL
from lb.settings import NAT_BLOCK

pytestmark = pytest.mark.root

KEPT = "10.200.1.8"


def answer(balancer: Balancer, out: bytes) -> Packet:
    """What the backend sends back."""
    sent = reparsed(out)
    head = network_of(sent)
    reply = sent.copy()
    reply.getlayer(1).src, reply.getlayer(1).dst = head.dst, head.src
    reply[TCP].sport, reply[TCP].dport, reply[TCP].flags = sent[TCP].dport, sent[TCP].sport, "SA"
    del reply[TCP].chksum, reply.getlayer(1).chksum
    return reply


def test_connections_go_on_in_tables_of_another_size(
    pin_root: Path, in_a_thread: Callable[[Callable[[], None]], None]
) -> None:
    """With fewer slots, another block for the pool's address and another key, packets and echo leave as before."""

    def work() -> None:
        balancer = Balancer(pin_root, sizes=replace(SMALL, nat_slots=4 * NAT_BLOCK))
        try:
            services = [
                service(mode="nat", backends=[{"address": "10.0.0.11", "port": 8080}]),
                service("kept", vip=KEPT, mode="nat", nat_source="keep", backends=["10.0.0.12"]),
                pinged(),
                pinged("ping-kept", KEPT, ["10.0.0.12"], nat_source="keep"),
            ]
            balancer.want(*services, nat_pools=["10.9.0.1", "10.9.0.2", "10.9.0.3"])
            balancer.want(*services, nat_pools=["10.9.0.3"])
            before = balancer.control._plans.nat.blocks
            flows = [tcp(sport=port) for port in range(1000, 1020)] + [tcp(dst=KEPT)]
            replies = [answer(balancer, balancer.run(flow)[1]) for flow in flows]
            for packets in (flows, replies):
                for packet in packets:
                    packet[TCP].flags = "A"
            for echo in (ping(), ping(identifier=9), ping(dst=KEPT)):
                flows.append(echo)
                replies.append(pong(balancer.run(echo)[1]))
            there, back = ([balancer.run(packet) for packet in packets] for packets in (flows, replies))

            balancer.restart(replace(SMALL, nat_slots=2 * NAT_BLOCK), flow_key=bytes(range(16)))

            assert {action for action, _ in (*there, *back)} == {XDP_ACTIONS["tx"]}
            assert balancer.control._plans.nat.blocks != before
            assert [balancer.run(packet) for packet in flows] == there
            assert [balancer.run(packet) for packet in replies] == back
        finally:
            balancer.close()

    in_a_thread(work)
    pin_root.mkdir(mode=0o700, exist_ok=True)  # the last pins took it along
