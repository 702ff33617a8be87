"""What the campaign breaks: a lab, its daemon, its backends, and what was acknowledged."""

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import Any

import balancer
import httpx
import lifecycle
import place
from place import Lab
from topology import Host, Role

from campaign.clients import Absence, Judge

VIP, VIP6, VIP_L2 = "10.200.1.1", "fc00:1::1", "10.200.1.2"
TARGETS = [(VIP, 80), (VIP6, 80), (VIP_L2, 80)]
SMALL = ("--deny-hosts", "65536", "--deny-ipv6", "65536")
"""Tables that the campaign does not fill."""
CHECK = {
    **{"type": "http", "path": "/whoami", "via": "direct", "established": "keep"},
    **{"interval_seconds": 1.0, "timeout_seconds": 1.0, "rise": 1, "fall": 2},
}
PATIENCE_SECONDS = 90.0


class BrokenError(Exception):
    """Raised when the daemon does not do what it should, whatever the clients see."""


class World:
    """A lab with a daemon under load. acknowledged: the desired state that the daemon was last heard to have."""

    def __init__(self, lab: Lab, judge: Judge) -> None:
        self.lab, self.judge = lab, judge
        self.sizes: tuple[str, ...] = ()
        self.http = balancer.client(lab.socket, timeout=PATIENCE_SECONDS)
        self.acknowledged: dict[str, Any] = {}

    @property
    def backends(self) -> tuple[Host, ...]:
        """All of them."""
        return self.lab.configuration.of_role(Role.BACKEND)

    def document(self, weights: list[int]) -> dict[str, Any]:
        """The desired state that the campaign begins with and comes back to."""
        services = []
        for name, vip, more in (("web", VIP, {}), ("web6", VIP6, {}), ("l2", VIP_L2, {"mode": "l2"})):
            family = 6 if ":" in vip else 4
            backends = [
                {"address": host.address(family), "weight": weight}
                for host, weight in zip(self.backends, weights, strict=True)
            ]
            base = {"name": name, "vip": vip, "port": 80, "protocol": "tcp", "health_check": CHECK}
            services.append({**base, **more, "backends": backends})
        return {"services": services}

    def write(self, method: str, path: str, **more: Any) -> httpx.Response:
        """A change that must be acknowledged. BrokenError if it is not."""
        answer = self.http.request(method, path, **more)
        if not answer.is_success:
            raise BrokenError(f"{method} {path} was answered {answer.status_code}: {answer.text}")
        self.acknowledged = self.desired()
        return answer

    def desired(self) -> dict[str, Any]:
        """As the daemon says it is."""
        answer = self.http.get("/v1/config")
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    def start(self) -> None:
        """Start the daemon, with tables of `sizes`, and wait until it is ready."""
        lifecycle.start_daemon(self.lab, *SMALL, *self.sizes)
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        """Return when /readyz says yes."""
        lifecycle.wait_for_daemon(self.lab)

    def kill(self) -> None:
        """Kill -9 of the daemon, and the end of it."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM."""
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        daemon = lifecycle.find_daemon(self.lab)
        if daemon is None:
            raise BrokenError("there is no daemon")
        self.http.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(daemon.pid, number)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while daemon.is_running():
            if time.monotonic() > deadline:
                raise BrokenError(f"the daemon does not end at {number.name}")
            time.sleep(balancer.POLL_SECONDS)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(daemon.pid, os.WNOHANG)
        self.http = balancer.client(self.lab.socket, timeout=PATIENCE_SECONDS)

    def check_state(self, *or_else: dict[str, Any]) -> None:
        """What was acknowledged is desired; or_else: what else may be, for nobody was told. BrokenError."""
        found = self.desired()
        if found not in (self.acknowledged, *or_else):
            raise BrokenError("the desired state is not what was acknowledged")
        self.acknowledged = found

    def kill_backend(self, host: Host) -> Absence:
        """Kill -9 of a backend's nginx, master and workers."""
        away = Absence(host.label, time.monotonic())
        self.judge.dead.append(away)
        nginx = next(
            entry.process
            for entry in place.started(self.lab)
            if (entry.what, entry.role, entry.number) == ("nginx", host.role, host.number)
        )
        children = Path(f"/proc/{nginx.pid}/task/{nginx.pid}/children").read_text().split()
        for pid in (nginx.pid, *map(int, children)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return away

    def revive_backend(self, host: Host, away: Absence) -> None:
        """Start its nginx again, and wait until it answers."""
        run = self.lab.data / host.label
        words = ["nginx", "-c", str(run / "nginx.conf")]
        lifecycle.start_process(self.lab, "nginx", (host.role, host.number), words, run / "nginx.log")
        lifecycle.backends.wait_until_ready(self.lab.names, self.lab.configuration)
        away.until = time.monotonic()
