"""Blocking, allowing and unblocking, with packets made by scapy and sent from a client."""

import contextlib
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import balancer
import httpx
import inside
import pytest
from place import Lab
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet
from topology import Role

ETH_P_ALL = 3
PATIENCE_SECONDS = 2.0
DECIDED = ("TX_", "REDIRECT_", "DROP_")
PORT = 53


class Asker:
    """A client that sends one UDP question at a time, and sees what became of it at both ends."""

    def __init__(self, lab: Lab, http: httpx.Client, number: int, vip: str) -> None:
        self.host = lab.configuration.of_role(Role.CLIENT)[number - 1]
        self.balancer = lab.configuration.balancer
        self.http = http
        self.vip = vip
        self.source_port = 20000
        self.namespace = lab.namespace(Role.CLIENT, number)
        self.open = contextlib.ExitStack()
        self.socket = self.open.enter_context(inside.call(self.namespace, self._open))

    def _open(self) -> socket.socket:
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        wire.bind(("eth0", ETH_P_ALL))
        wire.settimeout(PATIENCE_SECONDS)
        return wire

    def question(self) -> Packet:
        self.source_port += 1
        network = IPv6 if ":" in self.vip else IP
        address = self.host.address(6 if ":" in self.vip else 4)
        return (
            Ether(src=self.host.mac, dst=self.balancer.mac)
            / network(src=address, dst=self.vip)
            / UDP(sport=self.source_port, dport=PORT)
            / b"who?"
        )

    def _listen(self) -> socket.socket:
        """Somebody where the answer comes to: else the client's kernel sends an ICMP error, which counts too."""
        six = ":" in self.vip
        listener = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM)
        listener.bind((self.host.address(6 if six else 4), self.source_port))
        return listener

    def ask(self) -> str:
        """Send a question; the one verdict that counted it."""
        before, question = self._decided(), bytes(self.question())
        self.open.enter_context(inside.call(self.namespace, self._listen))
        self.socket.send(question)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            grown = {name: n for name, n in self._decided().items() if n > before.get(name, 0)}
            if grown:
                ((verdict, packets),) = grown.items()
                assert packets == before.get(verdict, 0) + 1
                return verdict
        raise AssertionError("no verdict counted the question")

    def answer(self) -> Packet:
        """The answer to the last question, as a frame; TimeoutError if none comes."""
        while True:
            frame = Ether(self.socket.recv(65535))
            if UDP in frame and frame[UDP].dport == self.source_port:
                return frame

    def _decided(self) -> dict[str, int]:
        verdicts = self.http.get("/v1/stats").raise_for_status().json()["verdicts"]
        return {name: tally["packets"] for name, tally in verdicts.items() if name.startswith(DECIDED)}


Ask = Callable[[int, int], Asker]


@pytest.fixture
def asker(lab: Lab, http: httpx.Client, vips: dict[int, str], add_service: Any) -> Iterator[Ask]:
    """Client `number`, which asks the VIP of a family."""
    for family in (4, 6):
        add_service(f"dns{family}", vips[family], "udp", PORT, family=family)
    with contextlib.ExitStack() as stack:

        def make(number: int, family: int) -> Asker:
            asker = Asker(lab, http, number, vips[family])
            stack.enter_context(asker.open)
            return asker

        yield make


def sluice(lab: Lab, *words: str) -> subprocess.CompletedProcess[str]:
    command = [str(balancer.SLUICE), "--server", f"unix://{lab.socket}", *words]
    return subprocess.run(command, check=True, capture_output=True, text=True)


PREFIXES = [
    (4, "10.0.1.1/32"),
    (4, "10.0.1.0/24"),
    (4, "10.0.0.0/20"),
    (4, "10.0.0.0/8"),
    (4, "0.0.0.0/0"),
    (6, "fd00:0:0:1::1/128"),
    (6, "fd00:0:0:1::/64"),
    (6, "fd00::/48"),
    (6, "fd00::/32"),
]


@pytest.mark.parametrize(("family", "prefix"), PREFIXES)
def test_blocked_dropped_allowed_unblocked(lab: Lab, asker: Ask, family: int, prefix: str) -> None:
    """A client passes; is blocked: dropped; allowlisted: passes; off it: dropped; unblocked: passes."""
    client = asker(1, family)
    passes, drops = "TX_IPIP", "DROP_BLOCKLIST"
    address = client.host.address(family)

    assert client.ask() == passes
    assert b"who?" in bytes(client.answer()[UDP].payload)
    sluice(lab, "block", prefix, "--force")  # the widest of them cover backends and VIPs too
    assert client.ask() == drops
    sluice(lab, "allowlist", "add", address)
    assert client.ask() == passes
    sluice(lab, "allowlist", "remove", address, "--force")
    assert client.ask() == drops
    sluice(lab, "unblock", prefix)
    assert client.ask() == passes
    assert b"who?" in bytes(client.answer()[UDP].payload)


def test_other_client_goes_on(lab: Lab, asker: Ask) -> None:
    """Blocking one client does not touch its neighbour."""
    sluice(lab, "block", "10.0.1.1")

    assert asker(1, 4).ask() == "DROP_BLOCKLIST"
    other = asker(2, 4)
    assert other.ask() == "TX_IPIP"
    assert other.answer()[IP].src == other.vip


def test_entry_counts_what_it_drops(lab: Lab, http: httpx.Client, asker: Ask) -> None:
    """The longest prefix that matches has the hit, and the shorter one has none."""
    sluice(lab, "block", "10.0.0.0/8", "10.0.1.1", "--force")

    assert asker(1, 4).ask() == "DROP_BLOCKLIST"

    hits = {
        prefix: http.get(f"/v1/blocklist/{prefix.replace('/', '%2F')}")
        .raise_for_status()
        .json()["hits"]["packets"]
        for prefix in ("10.0.1.1/32", "10.0.0.0/8")
    }
    assert hits == {"10.0.1.1/32": 1, "10.0.0.0/8": 0}


def test_count_only_passes(lab: Lab, asker: Ask) -> None:
    """An entry that only counts lets its packets through."""
    sluice(lab, "block", "10.0.1.1", "--count-only")
    client = asker(1, 4)

    assert client.ask() == "TX_IPIP"
    assert client.answer()[IP].src == client.vip


def test_entry_ends_by_itself(lab: Lab, asker: Ask) -> None:
    """When its time to live is over, an entry drops nothing any more."""
    client = asker(1, 4)
    sluice(lab, "block", "10.0.1.1", "--ttl", "1s")
    verdict = client.ask()
    deadline = time.monotonic() + 10 * PATIENCE_SECONDS
    while verdict == "DROP_BLOCKLIST" and time.monotonic() < deadline:
        verdict = client.ask()

    assert verdict == "TX_IPIP"


@pytest.fixture
def published(lab: Lab) -> Iterator[tuple[str, dict[str, bytes]]]:
    """A web server beside the daemon: its URL, and what it has at each path, which can be changed."""
    pages: dict[str, bytes] = {}

    class Answering(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(pages[self.path])))
            self.end_headers()
            self.wfile.write(pages[self.path])

        def log_message(self, *_: Any) -> None:
            pass

    namespace = lab.namespace(Role.BALANCER)
    with inside.call(namespace, lambda: ThreadingHTTPServer(("127.0.0.1", 0), Answering)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}", pages
        server.shutdown()
        thread.join()


def test_feed_drops_and_lets_go(
    lab: Lab, http: httpx.Client, asker: Ask, published: tuple[str, dict[str, bytes]]
) -> None:
    """An address of a feed is dropped and counted for the feed; a refresh after it left the list lets it pass."""
    url, pages = published
    others = b"".join(b"203.0.113.%d\n" % n for n in range(3))
    pages["/drop.txt"] = others + b"10.0.1.1\n"
    client = asker(1, 4)
    assert client.ask() == "TX_IPIP"

    trust = ("--allow-private-url", "--allow-protected")  # the clients of a lab have private addresses
    said = sluice(lab, "feed", "add", "drop", "--url", f"{url}/drop.txt", *trust)
    assert said.stdout == "feed drop is added, with 4 entries\n"
    assert client.ask() == "DROP_BLOCKLIST"
    assert asker(2, 4).ask() == "TX_IPIP"
    seen = http.get("/v1/feeds/drop").raise_for_status().json()["observed"]
    assert (seen["entries"], seen["packets"]) == (4, 1)
    assert 'sluice_feed_packets_total{feed="drop"} 1.0' in http.get("/metrics").text

    pages["/drop.txt"] = others
    assert sluice(lab, "feed", "refresh", "drop").stdout == "feed drop is refreshed, with 3 entries\n"

    assert client.ask() == "TX_IPIP"
    seen = http.get("/v1/feeds/drop").raise_for_status().json()["observed"]
    assert (seen["entries"], seen["packets"]) == (3, 1)


def test_answer_comes_straight_from_the_backend(lab: Lab, asker: Ask) -> None:
    """An answer has the VIP as its source and a backend's MAC: it did not pass the balancer."""
    backends = {host.mac: host.label for host in lab.configuration.of_role(Role.BACKEND)}
    for family in (4, 6):
        client = asker(1, family)
        client.ask()

        answer = client.answer()

        assert answer[IPv6 if family == 6 else IP].src == client.vip
        assert answer.src in backends
        assert bytes(answer[UDP].payload).startswith(backends[answer.src].encode() + b"\n")
