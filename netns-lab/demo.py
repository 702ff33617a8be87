#!/usr/bin/env python3
"""Sluice in a minute: real traffic through a balancer on this machine, shown on one page with figures.

`make demo` runs it. It builds a lab of its own, removes it whatever happens, and exits 0 only if all that it
claims was seen.
"""

import contextlib
import hashlib
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import rerun

if __name__ == "__main__":
    rerun.in_venv()

import balancer
import click
import httpx
import inside
import lifecycle
import signals
import traffic
from place import Lab
from probe import Prober
from topology import Role

from lb.errors import SluiceError

VIP, VIP6, VIP_L2 = "10.200.1.1", "fc00:1::1", "10.200.1.2"
WEIGHTS = (1, 2, 1)
TCP_CONNECTIONS, UDP_FLOWS = 2000, 20000
TCP_FIRST_PORT = 30000
"""Below the ports the kernel gives out. With fixed tuples the ring spreads them alike in every run."""
TOLERANCE = 3.0
"""Percentage points that a backend's share may be off its weight's."""


class DemoError(SluiceError):
    """Raised when something the demo is there to show was not seen."""


def say(text: str = "") -> None:
    """Print a line, indented under its heading."""
    print(f"   {text}" if text else "", flush=True)


@contextlib.contextmanager
def chapter(title: str) -> Iterator[None]:
    """Print a heading, and after the chapter how long it took."""
    print(f"\n== {title}", flush=True)
    begin = time.monotonic()
    yield
    say(f"({time.monotonic() - begin:.1f} s)")


def expect(seen: bool, claim: str) -> None:
    """DemoError unless it was seen."""
    if not seen:
        raise DemoError(f"not seen: {claim}")


class Demo:
    """The chapters, over one lab."""

    def __init__(self, lab: Lab, http: httpx.Client) -> None:
        self.lab = lab
        self.http = http
        self.backends = lab.configuration.of_role(Role.BACKEND)
        self.clients = lab.configuration.of_role(Role.CLIENT)

    def rest(self, method: str, path: str, body: Any = None) -> Any:
        """One call; says what was asked and what came. DemoError if it was refused."""
        begin = time.monotonic()
        answer = self.http.request(method, f"/v1{path}", json=body)
        took = (time.monotonic() - begin) * 1000
        expect(answer.is_success, f"{method} {path} accepted (it was {answer.status_code}: {answer.text})")
        if method != "GET":
            revision = answer.headers.get("Sluice-Revision", "?")
            what = f"{path} {body['name']}" if isinstance(body, dict) else path
            say(
                f"{method} /v1{what}: {answer.status_code}, revision {revision}, in force after {took:.0f} ms"
            )
        return answer.json() if answer.content else None

    def sluice(self, *words: str) -> str:
        """One call of the command line; what it printed. DemoError if it failed."""
        command = [str(balancer.SLUICE), "--server", f"unix://{self.lab.socket}", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        shown = f"sluice {shlex.join(words)}"
        say(f"$ {shown}")
        expect(done.returncode == 0, f"`{shown}` done (it exited {done.returncode}: {done.stderr})")
        for line in done.stdout.splitlines():
            say(f"    {line}")
        return done.stdout

    def namespace(self, role: Role, number: int) -> str:
        """The namespace of a host."""
        return self.lab.namespace(role, number)

    def add_services(self) -> None:
        """A service and its backends, by REST."""
        backends = [
            {"address": host.address(4), "weight": weight}
            for host, weight in zip(self.backends, WEIGHTS, strict=True)
        ]
        self.rest(
            "POST", "/services", {"name": "web", "vip": VIP, "port": 80, "protocol": "tcp", "mode": "ipip"}
        )
        self.rest("PUT", "/services/web/backends", backends)
        say("The first service of a kind takes longest: an XDP program with what it needs is compiled.")
        for name, vip, port, protocol in (
            ("web6", VIP6, 80, "tcp"),
            ("dns", VIP, 53, "udp"),
            ("dns6", VIP6, 53, "udp"),
        ):
            service = {"name": name, "vip": vip, "port": port, "protocol": protocol, "mode": "ipip"}
            self.rest("POST", "/services", {**service, "backends": backends})

    def spread(self) -> None:
        """Many flows, counted by the backend that answered, against the weights."""
        client = self.namespace(Role.CLIENT, 1)
        columns = {
            f"TCP {VIP}": traffic.run(client, "tcp", VIP, 80, TCP_CONNECTIONS, first_port=TCP_FIRST_PORT),
            f"TCP {VIP6}": traffic.run(client, "tcp", VIP6, 80, TCP_CONNECTIONS, first_port=TCP_FIRST_PORT),
            f"UDP {VIP}": traffic.run(client, "udp", VIP, 53, UDP_FLOWS),
            f"UDP {VIP6}": traffic.run(client, "udp", VIP6, 53, UDP_FLOWS),
        }
        counts = {title: traffic.count(answers) for title, answers in columns.items()}
        say(f"{'backend':9} {'weight':>7} {'share':>7}" + "".join(f"{title:>20}" for title in columns))
        for host, weight in zip(self.backends, WEIGHTS, strict=True):
            wanted = 100 * weight / sum(WEIGHTS)
            line = f"{host.label:9} {weight:>7} {wanted:>5.1f} %"
            for title, answers in columns.items():
                flows = counts[title][host.label]
                share = 100 * flows / len(answers)
                line += f"{flows:>11,} {share:>5.1f} %"
                expect(
                    abs(share - wanted) <= TOLERANCE,
                    f"{host.label} near {wanted:.0f} % of {title} ({share:.1f} %)",
                )
            say(line)
        lost = sum(count[None] for count in counts.values())
        say(f"{sum(map(len, columns.values())):,} flows, {lost} without an answer.")
        expect(lost == 0, "every flow answered")

    def fetch(self) -> None:
        """100 MB by each mode: the checksum, the speed, and that the answers do not pass the balancer."""
        backends = [{"address": host.address(4)} for host in self.backends]
        service = {"name": "web-l2", "vip": VIP_L2, "port": 80, "protocol": "tcp", "mode": "l2"}
        self.rest("POST", "/services", {**service, "backends": backends})
        wanted = _digest(self.lab.data / "100m")
        for name, vip in (("web", VIP), ("web-l2", VIP_L2)):
            before = self.rest("GET", "/stats")["services"].get(name, {"bytes": 0})["bytes"]
            target = self.lab.data / "fetched"
            curl = ["curl", "-sS", "--fail", "--max-time", "60", "-o", str(target), "-w", "%{speed_download}"]
            words = inside.command(self.namespace(Role.CLIENT, 1), [*curl, f"http://{vip}/100m"])
            speed = subprocess.run(words, check=True, capture_output=True, text=True).stdout
            carried = self.rest("GET", "/stats")["services"][name]["bytes"] - before
            size = target.stat().st_size
            expect(_digest(target) == wanted, f"the fetched file equal to the served one ({name})")
            say(
                f"{name}: {size / 1e6:.0f} MB at {float(speed) / 1e6:.0f} MB/s, SHA-256 as served. "
                f"The balancer saw {carried / 1e6:.1f} MB, all of it requests and acknowledgements."
            )

    def block(self) -> None:
        """Block one client by CLI, and show that its packets stop, why, and that the other goes on."""
        blocked, other = self.clients[0], self.clients[1]
        before = self.drops()
        with Prober(self.namespace(Role.CLIENT, blocked.number), VIP, 53) as prober:
            expect(prober.wait_for(answered=True), "answers before the block")
            begin = time.monotonic()
            self.sluice("block", blocked.address(4), "--reason", "part of the demo")
            returned = time.monotonic()
            expect(prober.wait_for(answered=False), f"packets of {blocked.address(4)} dropped")
            first = prober.since
        say(
            f"First packet dropped {1000 * (first - begin):.0f} ms after the command began; "
            f"the command took {1000 * (returned - begin):.0f} ms."
        )
        self.tell_reachability(blocked.number, False)
        self.tell_reachability(other.number, True)
        self.tell_drops(before)
        self.sluice("blocklist", "show", blocked.address(4))
        with Prober(self.namespace(Role.CLIENT, blocked.number), VIP, 53) as prober:
            self.sluice("unblock", blocked.address(4))
            expect(prober.wait_for(answered=True), "answers after the block")
        self.tell_reachability(blocked.number, True)

    def tell_reachability(self, client: int, wanted: bool) -> None:
        """Whether the client's connections are answered. DemoError if that is not as wanted."""
        answers = traffic.run(self.namespace(Role.CLIENT, client), "tcp", VIP, 80, flows=20, patience=1.0)
        answered = sum(name is not None for name in answers.values())
        say(f"client {client}: {answered} of {len(answers)} new connections answered.")
        expect(
            answered == (len(answers) if wanted else 0),
            f"client {client} {'served' if wanted else 'blocked'}",
        )

    def drops(self) -> dict[str, int]:
        """Packets dropped so far, by verdict."""
        verdicts = self.rest("GET", "/stats")["verdicts"]
        return {name: tally["packets"] for name, tally in verdicts.items() if name.startswith("DROP_")}

    def tell_drops(self, before: dict[str, int]) -> None:
        """Which drop verdicts counted since, and what they mean. DemoError if none did."""
        sentences = {
            verdict["name"]: verdict["sentence"] for verdict in self.rest("GET", "/verdicts")["items"]
        }
        grown = {name: now for name, now in self.drops().items() if now > before.get(name, 0)}
        for name, now in grown.items():
            say(f"{name}: {before.get(name, 0)} packets before, {now} now. {sentences[name]}")
        expect(bool(grown), "a DROP_ verdict that counts the packets")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def run(name: str) -> None:
    """Build, show, and clean up. SluiceError if something was not as it should be."""
    begin = time.monotonic()
    try:
        with chapter("The lab: clients, a switch, a balancer and backends, each in a network namespace"):
            lab = lifecycle.up(name, document=False)
            say(
                f"{len(lab.configuration.hosts)} hosts; `sluice serve` runs on {lab.names.balancer_interface}."
            )
        with balancer.client(lab.socket, timeout=30.0) as http:
            demo = Demo(lab, http)
            with chapter("Services and their backends, by REST"):
                demo.add_services()
            with chapter(f"{TCP_CONNECTIONS:,} TCP connections and {UDP_FLOWS:,} UDP flows, IPv4 and IPv6"):
                demo.spread()
            with chapter("A second mode, l2, and 100 MB through each"):
                demo.fetch()
            with chapter("One client is blocked, then unblocked"):
                demo.block()
    finally:
        lifecycle.down(name)
    print(f"\nEverything worked as claimed, and the lab is removed again: {time.monotonic() - begin:.0f} s.")


@click.command()
@click.option("--name", default="demo", show_default=True, help="Name of the demo's lab.")
def main(name: str) -> None:
    """Show Sluice at work; exits 0 if everything was seen."""
    signals.end_by_exit()
    try:
        run(name)
    except (SluiceError, ValueError, OSError, subprocess.CalledProcessError, httpx.HTTPError) as error:
        click.echo(f"\ndemo.py: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main(prog_name="demo.py")
