"""Mode nat with the client's own address (`nat_source: keep`), where the balancer is the backends' gateway."""

import select
import shutil
import socket
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import inside
import nat_servers
import pytest
from place import Lab
from test_modes import digest
from test_nat_e2e import MESSAGES, VIPS, bracketed, put, run, translated
from test_nat_ping import HOPS_ONCE, Pings, ended, pinged, started
from topology import CLIENT_MTU, CLIENTS, Host, Role

THERE = 7001
"""Where backends listen; clients ask at 80."""
FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
STREAM, DATAGRAM = socket.SOCK_STREAM, socket.SOCK_DGRAM


def lead(lab: Lab, host: Host, *, by_balancer: bool) -> None:
    """How a backend reaches the clients: by the balancer, or straight."""
    for network in CLIENTS:
        balancer = lab.configuration.balancer.address(network.version)
        way = ["via", balancer] if by_balancer else ["scope", "link"]
        words = ["ip", "route", "replace", str(network), *way]
        words += ["dev", lab.names.interface(host), "mtu", str(CLIENT_MTU)]
        subprocess.run(inside.command(lab.namespace(Role.BACKEND, host.number), words), check=True)


@pytest.fixture
def gateway(lab: Lab) -> Iterator[None]:
    """Backends answer clients by way of the balancer."""
    for host in nat_servers.hosts(lab):
        lead(lab, host, by_balancer=True)
    try:
        yield
    finally:
        for host in nat_servers.hosts(lab):
            lead(lab, host, by_balancer=False)


def put_kept(http: httpx.Client, services: list[dict[str, Any]]) -> None:
    """Make these the desired state, with sources that are kept: there is no pool."""
    put(http, [{**service, "nat_source": "keep"} for service in services], pool=[])


def listening(lab: Lab, stack: ExitStack, family: int, kind: socket.SocketKind) -> list[socket.socket]:
    """A socket of each backend, on its address."""
    found = []
    for host in nat_servers.hosts(lab):
        namespace = lab.namespace(Role.BACKEND, host.number)
        one = stack.enter_context(inside.call(namespace, partial(socket.socket, FAMILIES[family], kind)))
        one.bind((host.address(family), THERE))
        if kind == STREAM:
            one.listen()
        found.append(one)
    return found


def chosen(servers: list[socket.socket]) -> socket.socket:
    """The one at which a client has come."""
    ready = select.select(servers, [], [], 10)[0]
    assert len(ready) == 1
    return ready[0]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.usefixtures("gateway")
def test_backends_see_the_client(lab: Lab, http: httpx.Client, family: int) -> None:
    """TCP and UDP: the backend's peer is the client's own address and port, and both hear what the other says."""
    vip, client = VIPS[family, family], lab.namespace(Role.CLIENT, 1)
    put_kept(http, [translated(lab, (family, family), kind, 80, port_there=THERE) for kind in ("tcp", "udp")])

    with ExitStack() as stack:
        servers = listening(lab, stack, family, STREAM)
        connect = partial(socket.create_connection, (vip, 80), 10)
        asking = stack.enter_context(inside.call(client, connect))
        answering, peer = chosen(servers).accept()
        stack.enter_context(answering).settimeout(10)
        assert peer == asking.getsockname()
        heard_by = {end: stack.enter_context(end.makefile("rb")) for end in (asking, answering)}
        for message in MESSAGES[1:-1]:
            for end, other in ((asking, answering), (answering, asking)):
                end.sendall(message)
                assert heard_by[other].read(len(message)) == message

    with ExitStack() as stack:
        servers = listening(lab, stack, family, DATAGRAM)
        asking = stack.enter_context(inside.call(client, partial(socket.socket, FAMILIES[family], DATAGRAM)))
        asking.settimeout(10)
        asking.connect((vip, 80))
        asking.send(b"asked")
        server = chosen(servers)
        heard, peer = server.recvfrom(100)
        assert (heard, peer) == (b"asked", asking.getsockname())
        server.sendto(b"answered", peer)
        assert asking.recv(100) == b"answered"


@pytest.mark.usefixtures("gateway")
def test_transfers_and_ping(lab: Lab, http: httpx.Client, tmp_path: Path) -> None:
    """In both families: 100 MB by curl, checksummed, wrk without an error, and ping, if there is one."""
    pairs = [(family, family) for family in FAMILIES]
    web = [translated(lab, pair, "tcp", 80, port_there=8080) for pair in pairs]
    put_kept(http, [*web, *(pinged(pair, lab) for pair in pairs)])
    fetched = tmp_path / "fetched"

    for pair in pairs:
        url = f"http://{bracketed(VIPS[pair])}"
        run(lab, "curl", "-sS", "--fail", "--max-time", "100", "-o", str(fetched), f"{url}/100m")
        assert digest(fetched) == digest(lab.data / "100m")
        told = run(lab, "wrk", "-t1", "-c16", "-d1s", "-H", "Connection: close", f"{url}/whoami")
        assert "requests in" in told
        assert "Socket errors" not in told
        assert "Non-2xx" not in told
        if shutil.which("ping"):
            words = ("-c", "20", "-i", "0.01", "-s", "1401")
            assert ended(started(lab, 1, VIPS[pair], *words)) == Pings(20, 20, Counter({HOPS_ONCE: 20}))

    verdicts = http.get("/v1/stats").json()["verdicts"]
    assert verdicts["TX_NAT_REPLY"]["packets"] > 0
    assert [name for name in verdicts if name.startswith("DROP_NAT") and verdicts[name]["packets"]] == []
