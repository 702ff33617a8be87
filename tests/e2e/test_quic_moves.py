"""Real QUIC through the balancer: connections go on while their client changes port and address."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import inside
import pytest
import quic_hosts
import traffic
from aioquic.asyncio import server as aioquic_server
from place import Lab
from quic_hosts import Client, Place
from ring_names import ring_names
from topology import Role

PORT = 4433
IDS = (17, 0xABCDE, 0xDEADBEEF)
"""One for each form of connection ids: of 16, 24 and 32 bits."""
CONNECTIONS = 9
MOVES = 4
SECOND_ADDRESS = {4: ("10.0.1.101", 24), 6: ("fd00:0:0:1::101", 64)}
NO_DUPLICATE_DETECTION = 0x02


@pytest.fixture(params=[4, 6])
def family(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def sources(lab: Lab, family: int) -> Iterator[tuple[str, str]]:
    """Two addresses of client 1, the second of which it has for as long as the test runs."""
    namespace, (second, length) = lab.namespace(Role.CLIENT, 1), SECOND_ADDRESS[family]
    flags = NO_DUPLICATE_DETECTION if family == 6 else 0

    def change(verb: str) -> None:
        inside.route(
            namespace,
            lambda route: route.addr(
                verb,
                index=route.link_lookup(ifname="eth0")[0],
                address=second,
                prefixlen=length,
                **({"flags": flags} if verb == "add" else {}),
            ),
        )

    change("add")
    yield lab.configuration.of_role(Role.CLIENT)[0].address(family), second
    change("del")


def routes(lab: Lab, service: dict[str, Any], sources: tuple[str, str]) -> list[tuple[str, list[Place]]]:
    """For each connection the backend that it begins at, and the places it comes from.

    At every later place, the last of them with the second address, a new flow would get another backend.
    """

    def chosen(places: list[Place]) -> list[str]:
        vip, port = service["vip"], service["port"]
        return ring_names(lab, service, [traffic.Flow("udp", *place, vip, port) for place in places])

    free = {address: [(address, 20000 + n) for n in range(CONNECTIONS * 20)] for address in sources}
    names = {
        place: name for places in free.values() for place, name in zip(places, chosen(places), strict=True)
    }
    hosts = [host.label for host in lab.configuration.of_role(Role.BACKEND)]
    made = []
    for number in range(CONNECTIONS):
        begin = hosts[number % len(hosts)]
        first = next(place for place in free[sources[0]] if names[place] == begin)
        free[sources[0]].remove(first)
        way = [first]
        for address in (*[sources[0]] * (MOVES - 1), sources[1]):
            way.append(next(place for place in free[address] if names[place] != begin))
            free[address].remove(way[-1])
        made.append((begin, way))
    return made


async def answers_of(
    lab: Lab, server: Place, certificate: tuple[Path, Path], ways: list[list[Place]], patience: float
) -> list[list[str | None]]:
    """The answers that each connection got at each place; servers run on all backends meanwhile."""
    client = lab.namespace(Role.CLIENT, 1)
    async with contextlib.AsyncExitStack() as stack:
        for form, host in enumerate(lab.configuration.of_role(Role.BACKEND), 1):
            namespace = lab.namespace(Role.BACKEND, host.number)
            await stack.enter_async_context(
                quic_hosts.serving(
                    namespace, host.label, server, certificate, form=form, number=IDS[form - 1]
                )
            )
        journeys = (quic_hosts.journey(Client(client, patience), server, way) for way in ways)
        return await asyncio.gather(*journeys)


@pytest.fixture
def travel(
    lab: Lab, sources: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[dict[str, Any], float], tuple[list[str], list[list[str | None]]]]:
    """Lets nine connections to a service travel: the backends that they begin at, and the answers they get."""
    monkeypatch.setattr(aioquic_server, "QuicConnection", quic_hosts.NumberedConnection)
    certificate = quic_hosts.write_certificate(tmp_path)

    def go(service: dict[str, Any], patience: float) -> tuple[list[str], list[list[str | None]]]:
        plan = routes(lab, service, sources)
        server = service["vip"], service["port"]
        got = asyncio.run(answers_of(lab, server, certificate, [way for _, way in plan], patience))
        return [begin for begin, _ in plan], got

    return go


@pytest.fixture
def make_service(add_service: Any, vips: dict[int, str], family: int) -> Callable[..., dict[str, Any]]:
    """Adds a UDP service of the family."""
    return partial(add_service, vip=vips[family], protocol="udp", port=PORT, family=family)


@pytest.mark.parametrize("mode", ["ipip", "gue"])
def test_connections_stay_with_their_backend(
    http: httpx.Client, make_service: Any, travel: Any, mode: str
) -> None:
    """Nine connections to three backends, each with another form of ids: from every new port, and from a new address,
    they go on with the server they began with, wherever the ring would send a new flow."""
    begins, answers = travel(make_service("quic", mode=mode, quic=True, quic_ids=IDS), 30.0)

    assert answers == [[begin] * (1 + MOVES) for begin in begins]
    assert http.get("/v1/stats").json()["quic"]["by_id"] > CONNECTIONS * MOVES


def test_without_quic_they_are_lost(make_service: Any, travel: Any) -> None:
    """The same connections to a service that reads no ids: at their first move they come to a server that knows nothing
    of them, and get no answer."""
    begins, answers = travel(make_service("plain"), 2.0)

    assert answers == [[begin, None] for begin in begins]
