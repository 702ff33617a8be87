"""Traffic from the machine's client: curl, and connections that go on while something is done to the balancer."""

import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import inside
from virtual import sluice
from virtual.network import BACKENDS, BIG_FILE, CLIENT
from virtual.report import NotSeenError, check

SCRIPT = Path(__file__).resolve().parents[1] / "campaign" / "load.py"
KEPT, FRESH_PER_SECOND = 12, 3.0
REQUESTS = 60
"""So many more show that things go on."""
PATIENCE_SECONDS = 120.0


def balance(requests: int = 20) -> str:
    """curl, again and again, and a file each way; who answered, in words. NotSeenError."""
    names = [curl("/whoami").decode().strip() for _ in range(requests)]
    check(set(names) == BACKENDS.keys(), f"answers came from {names}")
    size = len(curl("/100m"))
    check(size == BIG_FILE.stat().st_size, f"{size} bytes came instead of {BIG_FILE.stat().st_size}")
    sent = curl("/upload/one", "-T", str(BIG_FILE), "-w", "%{size_upload}").decode()
    check(sent.endswith(str(size)), f"upload: {sent}")
    shares = ", ".join(f"{name} {names.count(name)}" for name in BACKENDS)
    return f"curl through {sluice.served()['name']}: {shares}; {size} bytes down and up"


def curl(path: str, *words: str, vip: str = sluice.VIP) -> bytes:
    """What comes from the VIP. NotSeenError."""
    url = f"http://{vip}{path}"
    command = inside.command(CLIENT, ["curl", "-sS", "-f", "-m", "120", *words, url])
    done = subprocess.run(command, capture_output=True, check=False)
    check(done.returncode == 0, f"curl {url}: {done.stderr.decode().strip()}")
    return done.stdout


class Clients:
    """A context, in which requests go on. No fault is excused, for no backend is taken away."""

    def __init__(self) -> None:
        asked = {"targets": [[sluice.VIP, 80]], "kept": KEPT, "fresh_per_second": FRESH_PER_SECOND}
        self._process = subprocess.Popen(
            inside.command(CLIENT, [sys.executable, str(SCRIPT), json.dumps(asked)]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.done, self.faults = 0, list[dict[str, Any]]()
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            said = json.loads(line)
            self.done += said["done"]
            self.faults += said["faults"]

    def more(self, requests: int = REQUESTS) -> float:
        """Wait until so many more were answered; how long it took. NotSeenError."""
        began = time.monotonic()
        wanted = self.done + requests
        while self.done < wanted and not self.faults:
            rest = began + PATIENCE_SECONDS - time.monotonic()
            check(rest > 0, f"not even {requests} answers came in {PATIENCE_SECONDS:.0f} s")
            time.sleep(0.05)
        return time.monotonic() - began

    def __enter__(self) -> "Clients":
        try:
            self.more(2 * KEPT)
        except BaseException:
            self._process.kill()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        assert self._process.stdin is not None
        if kind is not None:
            self._process.kill()
        self._process.stdin.close()
        try:
            self._process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise NotSeenError("a client did not come to its end") from None
        finally:
            self._thread.join()
        if kind is None and self.faults:
            raise NotSeenError(f"{len(self.faults)} of {self.done} requests failed, first: {self.faults[0]}")
