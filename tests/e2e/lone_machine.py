"""A network namespace with one cable and a daemon in it: what surrounds the daemon is the test's to break."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import balancer
import httpx
import inside
import leftovers
from leftovers import SLUICE
from pyroute2 import IPRoute, netns
from rerun import CHECKOUT

from lb.dataplane import xdpload

PASS_PROGRAM = CHECKOUT / "netns-lab" / "pass.c"
SMALL = ["--flow-slots", "4096", "--rings", "32", "--deny-hosts", "1024", "--deny-ipv6", "1024"]
PATIENCE_SECONDS = 120.0


class Machine:
    """A network namespace with one cable, and the daemon in it."""

    def __init__(self, folder: Path, pid: int) -> None:
        self.namespace = f"{leftovers.MACHINE}{pid}"
        self.interface = leftovers.machine_interface(pid)
        self._served = {self.interface}
        self.socket = folder / "run" / "sluice.sock"
        self.state = folder / "state"

    def plug(self) -> None:
        """Give it the cable."""

        def lay() -> None:
            with IPRoute() as route:
                route.link("add", ifname=self.interface, kind="veth", peer={"ifname": f"{self.interface}p"})
                for name in (self.interface, f"{self.interface}p"):
                    route.link("set", index=route.link_lookup(ifname=name)[0], state="up")

        inside.call(self.namespace, lay)

    def unplug(self) -> None:
        """Take the cable away."""
        inside.route(self.namespace, lambda r: r.link("del", index=r.link_lookup(ifname=self.interface)[0]))

    def attach_foreign(self, interface: str = "") -> None:
        """Somebody else's program on the hook, or on another interface's."""
        program = xdpload.compile_source(PASS_PROGRAM)
        descriptor = xdpload.load_program(program, "pass")
        try:
            inside.call(self.namespace, lambda: xdpload.attach(interface or self.interface, descriptor))
        finally:
            os.close(descriptor)
            program.cleanup()

    def serve(self, *more: str, command: Sequence[str] = (SLUICE,)) -> subprocess.Popen[str]:
        """Start the daemon; command: what is the sluice command."""
        further = (name for option, name in pairwise(more) if option == "--interface")
        self._served |= {self.interface, *further}
        words = [*command, "serve", "--interface", self.interface, "--socket", str(self.socket), *SMALL]
        return subprocess.Popen(
            inside.command(self.namespace, [*words, "--state-dir", str(self.state), *more]),
            stderr=subprocess.PIPE,
            text=True,
        )

    def refusal(self, *more: str) -> str:
        """What a daemon that must not start says; it exits 1."""
        with self.serve(*more) as daemon:
            _, words = daemon.communicate(timeout=PATIENCE_SECONDS)
        assert daemon.returncode == 1, words
        return words.strip().splitlines()[-1]

    def detach(self) -> None:
        """Take the program off every interface that it is on."""
        leftovers.detach(self.namespace, self._served)

    def clear(self) -> None:
        """Take all of it away."""
        leftovers.end_machine(self.namespace, self._served)

    def wait(self, http: httpx.Client, ready: bool) -> httpx.Response:
        """/readyz, once it says what is waited for."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            answer = http.get("/readyz")
            if answer.is_success == ready or time.monotonic() > deadline:
                assert answer.is_success == ready, answer.text
                return answer
            time.sleep(balancer.POLL_SECONDS)

    @contextmanager
    def running(self, *more: str, **how: Any) -> Iterator[subprocess.Popen[str]]:
        """A daemon that listens; it is ended afterwards."""
        with self.serve(*more, **how) as process:
            try:
                self.wait_until_listening(process)
                yield process
            finally:
                process.send_signal(signal.SIGTERM)
                print(process.communicate(timeout=PATIENCE_SECONDS)[1])  # shown where a test fails

    def wait_until_listening(self, process: subprocess.Popen[str]) -> None:
        """Return when it answers on its socket."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self._answers() and time.monotonic() < deadline:
            assert process.poll() is None, process.communicate()[1]
            time.sleep(balancer.POLL_SECONDS)

    def _answers(self) -> bool:
        if not balancer.is_listening(self.socket):
            return False
        with self.client() as http, contextlib.suppress(httpx.TransportError):
            return http.get("/healthz").is_success
        return False

    def client(self) -> httpx.Client:
        """Of its API."""
        return balancer.client(self.socket, timeout=PATIENCE_SECONDS)


@contextmanager
def lone_machine(folder: Path) -> Iterator[Machine]:
    """A namespace of this run's own, and an end to those of runs that were killed."""
    leftovers.machines()
    machine = Machine(folder, os.getpid())
    netns.create(machine.namespace)
    try:
        machine.plug()
        yield machine
    finally:
        machine.clear()
