"""A real daemon on a cable of the bench: how it is started, told what to do, and asked."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any

import balancer
import processes

from benchmarks import cases, world
from benchmarks.world import Cable
from lb.dataplane import libbpf
from lb.errors import SetupError, SluiceError
from lb.settings import PIN_ROOT

TRIMMED_SECONDS = 40.0
"""How long to wait for the program without what is not in use: the daemon waits ten seconds, and compiles."""
UNUSED = "HAVE_ALLOW"
"""A feature that no setup uses: as long as it is compiled in, so may others be."""


class Daemon:
    """`sluice serve` on the near end of a cable. Use as a context."""

    def __init__(self, cable: Cable, folder: Path) -> None:
        """Start it; `wait` for it before the first call, so that several can start at once. SetupError."""
        self.cable = cable
        self._folder = folder
        folder.mkdir()
        self.socket, self._log = folder / "sluice.sock", folder / "log"
        self._open()

    def _open(self) -> None:
        if not balancer.SLUICE.exists():
            raise SetupError("there is no sluice command in .venv yet: run `make setup` in the checkout")
        places = ["--socket", str(self.socket), "--state-dir", str(self._folder / "state")]
        words = [str(balancer.SLUICE), "serve", "--interface", self.cable.near, *places]
        self._child = world.start(words, self._log)
        self._http = balancer.client(self.socket, timeout=120.0)

    def wait(self) -> None:
        """Return when it forwards. SetupError with its log's end if it does not."""
        process = processes.find(self._child.pid) or processes.Process(self._child.pid, -1)
        balancer.wait_until_ready(process, self.socket, self._log)

    def stop(self) -> None:
        """End it as systemd would; the program stays attached."""
        self._http.close()
        self._child.send_signal(signal.SIGTERM)
        try:
            self._child.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()

    def restart(self) -> None:
        """Start it again over what it left attached; does not wait."""
        self._open()

    def __enter__(self) -> "Daemon":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def pid(self) -> int:
        """Its process."""
        return self._child.pid

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """One REST call; the document. SluiceError with the daemon's words if it refuses."""
        answer = self._http.request(method, path, json=body)
        if not answer.is_success:
            raise SluiceError(
                f"the daemon refuses {method} {path} ({answer.status_code}): {answer.text[:400]}"
            )
        return answer.json() if answer.content else None

    def sluice(self, *words: str) -> str:
        """One call of the command line; what it prints. SetupError if it fails."""
        return world.run(str(balancer.SLUICE), "--server", f"unix://{self.socket}", *words)

    def program(self) -> int:
        """The program in force, by its pin; a new file descriptor."""
        return libbpf.obj_get(PIN_ROOT / self.cable.near / "program")

    def block(self, prefixes: int) -> None:
        """Make the blocklist hold so many prefixes, and no others."""
        self.sluice("blocklist", "clear", "--yes")
        if prefixes:
            path = self._folder / "prefixes.txt"
            path.write_text(cases.prefixes_text(prefixes))
            self.sluice("blocklist", "import", str(path))

    def apply(
        self,
        services: Sequence[dict[str, Any]],
        rules: Sequence[dict[str, Any]] = (),
        settings: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """Make these the services, rules and settings, and the lists empty."""
        document = {"services": list(services), "rules": list(rules), "settings": dict(settings)}
        self.call("PUT", "/v1/config", document)

    def features(self) -> list[str]:
        """What the program in force has compiled in."""
        found: list[str] = self.call("GET", "/v1/status")["program"]["features"]
        return found

    def settle(self) -> list[str]:
        """Return when the program holds what is in use and no more; its features. SluiceError if it takes too long."""
        deadline = time.monotonic() + TRIMMED_SECONDS
        while True:
            features = self.features()
            if UNUSED not in features:
                return features
            if time.monotonic() > deadline:
                raise SluiceError(
                    f"after {TRIMMED_SECONDS:.0f} s the program still has what nothing uses: {features}"
                )
            time.sleep(0.1)

    def instructions(self) -> int:
        """How long the program in force is, after the verifier."""
        program = self.program()
        try:
            return libbpf.prog_info(program).instructions
        finally:
            os.close(program)
