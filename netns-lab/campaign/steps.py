"""What the campaign does to a balancer, one fault at a time. Each has a weight; all it draws comes from `draw`."""

import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import build
import httpx
import inside
import lifecycle
from generate import Generator, interface_index, make_template
from topology import Role

from campaign.clients import Absence
from campaign.world import VIP, BrokenError, World

FLOOD_PACKETS = 200_000
TABLE_SIZES = (
    *(("--flow-slots", str(1 << bits)) for bits in (17, 18, 19, 21)),
    ("--backends", "16384"),
    ("--services", "1024", "--rings", "64"),
)


@dataclass(frozen=True, slots=True)
class Step:
    """A fault. weight: how often it is drawn, beside the others."""

    name: str
    run: Callable[[World, random.Random], str]
    """Returns what it did, in words."""
    weight: int


def pause(draw: random.Random, least: float = 0.2, most: float = 1.5) -> None:
    """Let load go on for a moment."""
    time.sleep(draw.uniform(least, most))


def kill_daemon(world: World, draw: random.Random) -> str:
    """Kill -9; packets go on; it starts again and finds all that it had acknowledged."""
    world.kill()
    pause(draw)
    world.start()
    world.check_state()
    return "the daemon was killed, and started"


def kill_in_a_write(world: World, draw: random.Random) -> str:
    """Kill -9 within a change: all of it is there afterwards, or nothing."""
    wanted = world.document([draw.randint(1, 5) for _ in world.backends])
    daemon = lifecycle.find_daemon(world.lab)
    if daemon is None:
        raise BrokenError("there is no daemon")
    delay = draw.uniform(0.0, 0.1)
    killer = threading.Timer(delay, os.kill, (daemon.pid, signal.SIGKILL))
    killer.start()
    with contextlib.suppress(httpx.HTTPError):  # which is what is wanted
        world.http.put("/v1/config", json=wanted)
    killer.join()
    world.kill()
    world.start()
    found = world.desired()
    weights = {tuple(b["weight"] for b in s["backends"]) for s in found["services"] if s["name"] != "more"}
    if len(weights) != 1:
        raise BrokenError("half of a change is there")
    world.check_state(found)
    return f"the daemon was killed {delay * 1000:.0f} ms after a change was asked for"


def upgrade(world: World, draw: random.Random) -> str:
    """Stop, and start with tables of other sizes: built beside, and swapped."""
    world.stop()
    pause(draw, 0.0, 0.5)
    world.sizes = draw.choice([sizes for sizes in TABLE_SIZES if sizes != world.sizes])
    world.start()
    world.check_state()
    return f"the daemon was started again with {' '.join(world.sizes)}"


def swap(world: World, draw: random.Random) -> str:
    """A service of a mode that no other has, or a rule, comes and goes: the program is another, twice."""
    backends = [{"address": host.address(4)} for host in world.backends]
    path, more = draw.choice(
        (
            (
                "/v1/services/more",
                {"vip": "10.200.1.50", "port": 8080, "protocol": "tcp", "mode": "gue", "backends": backends},
            ),
            ("/v1/rules/more", {"action": "drop", "source": "198.51.100.0/24"}),
            ("/v1/blocklist/198.51.100.0%2F24", {"reason": "chaos"}),
        )
    )
    world.write("PUT", path, json=more)
    pause(draw)
    world.write("DELETE", path)
    return f"the program was swapped: {path} came and went"


def reweigh(world: World, draw: random.Random) -> str:
    """A whole document with other weights."""
    weights = [draw.randint(1, 9) for _ in world.backends]
    world.write("PUT", "/v1/config", json=world.document(weights))
    return f"weights {weights} were applied"


def roll_back(world: World, draw: random.Random) -> str:
    """A document is applied and taken back."""
    world.write("PUT", "/v1/config", json=world.document([draw.randint(1, 9) for _ in world.backends]))
    pause(draw, 0.1, 0.5)
    world.write("POST", "/v1/config/rollback", json={})
    return "a document was applied, and rolled back"


def drain(world: World, draw: random.Random) -> str:
    """A backend drains: from the acknowledgement on it takes nothing new, and what it has stays."""
    host = draw.choice(world.backends)
    for name, family in (("web", 4), ("web6", 6), ("l2", 4)):
        path = f"/v1/services/{name}/backends/{host.address(family)}"
        world.write("POST", f"{path}/drain")
    away = Absence(host.label, time.monotonic())
    world.judge.drained.append(away)
    pause(draw, 0.5, 2.0)
    away.until = time.monotonic()
    for name, family in (("web", 4), ("web6", 6), ("l2", 4)):
        world.write("POST", f"/v1/services/{name}/backends/{host.address(family)}/enable")
    return f"{host.label} was drained, and enabled"


def kill_backend(world: World, draw: random.Random) -> str:
    """Kill -9 of a backend's nginx; it comes back."""
    host = draw.choice(world.backends)
    away = world.kill_backend(host)
    pause(draw, 0.5, 3.0)
    world.revive_backend(host, away)
    return f"{host.label} was killed, and started"


def unplug(world: World, draw: random.Random) -> str:
    """A cable is unplugged for a moment: the balancer's, or a backend's."""
    host = draw.choice((world.lab.configuration.balancer, *world.backends))
    build.set_cable(world.lab.names, host, "down")
    pause(draw, 0.1, 1.0)
    build.set_cable(world.lab.names, host, "up")
    world.wait_until_ready()
    return f"{host.label}'s cable was unplugged"


def interface_down(world: World, draw: random.Random) -> str:
    """The balancer's interface goes down and up; the kernel forgets routes and IPv6 addresses meanwhile."""
    configuration = world.lab.configuration
    build.set_interface(world.lab.names, configuration, configuration.balancer, "down")
    pause(draw, 0.1, 1.0)
    build.set_interface(world.lab.names, configuration, configuration.balancer, "up")
    world.wait_until_ready()
    return "the balancer's interface was down"


def new_interface(world: World, draw: random.Random) -> str:
    """The balancer's interface is deleted and made anew."""
    configuration = world.lab.configuration
    build.renew_cable(world.lab.names, configuration, configuration.balancer)
    world.wait_until_ready()
    return "the balancer's interface was deleted, and made anew"


def flood(world: World, draw: random.Random) -> str:
    """SYNs of random sources, as fast as a core makes them, for a service of no backends but the same VIP."""
    port = draw.choice((80, 81))

    def send() -> None:
        macs = ("02:00:c1:1e:00:77", world.lab.configuration.balancer.mac)
        template = make_template("tcp:S", "10.77.0.1", 1024, VIP, port, macs=macs, length=60)
        out = interface_index(world.lab.configuration.balancer.label)
        generator = Generator(template, out, sources=1 << 16, ports=60000, random=True)
        generator.send(FLOOD_PACKETS)

    inside.call(world.lab.namespace(Role.SWITCH), send)
    return f"{FLOOD_PACKETS} SYNs of spoofed sources came for port {port}"


STEPS = (
    Step("kill", kill_daemon, 4),
    Step("kill-in-a-write", kill_in_a_write, 3),
    Step("upgrade", upgrade, 4),
    Step("swap", swap, 4),
    Step("reweigh", reweigh, 4),
    Step("rollback", roll_back, 2),
    Step("drain", drain, 3),
    Step("kill-backend", kill_backend, 3),
    Step("unplug", unplug, 3),
    Step("interface-down", interface_down, 2),
    Step("new-interface", new_interface, 2),
    Step("flood", flood, 2),
)
