"""Programs for the machine, compiled outside of it where it is emulated: same compiler, its kernel's headers.

A program is kept under a name that is made of all that its bytecode depends on (lb/dataplane/kept.py). What is another
in the machine has another name there, is not found, and is compiled by it. Run as a script this is the daemon and its
operator, in a namespace where the machine's /usr is put over ours:

    unshare --mount --net compiled.py RELEASE FOLDER
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rerun import CHECKOUT
from virtual import translated
from virtual.debian import GIVEN, Kernel
from virtual.report import within
from virtual.sluice import SERVICE_WORDS

from lb.errors import SetupError

FOLDER = GIVEN / "compiled"
SLUICE = str(CHECKOUT / ".venv" / "bin" / "sluice")
START_SECONDS = 300.0
QUIET_SECONDS = 15.0
"""After a change the daemon compiles what is to be kept ready, and ten seconds later what it can be trimmed to."""
_SERVE = """
import os, sys
real, release = os.uname(), sys.argv.pop(1)
os.uname = lambda: os.uname_result((real.sysname, real.nodename, release, real.version, real.machine))
from lb.cli.main import main
main()
"""
"""`sluice`, which takes the machine's kernel for the one that it runs on."""


def compiled(kernel: Kernel) -> None:
    """Have in FOLDER what the machine will need. SetupError."""
    FOLDER.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="sluice-machine-") as work:
        # bcc asks the kernel for its release: what it finds there must be the machine's.
        alias = Path(work) / "lib" / "modules"
        alias.mkdir(parents=True)
        (alias / os.uname().release).symlink_to(kernel.version)
        under = f"lowerdir={work}:{kernel.root / 'usr'}:/usr"
        steps = (
            f"mount -t overlay -o {under} overlay /usr && mount -t bpf bpf /sys/fs/bpf && "
            "ip link set lo up && ip link add out type veth peer name away && ip link set out up && "
            f"exec {sys.executable} {Path(__file__).resolve()} {kernel.version} {work}"
        )
        words = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "sh", "-c", steps]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SetupError(f"the machine's programs cannot be compiled: {(done.stderr or done.stdout)[-1500:]}")


def _operate(release: str, work: Path) -> None:
    """What is done in the machine, as far as it decides what is compiled."""
    socket = work / "sluice.sock"
    serve = [sys.executable, "-c", _SERVE, release, "serve", "--interface", "out", "--socket", str(socket)]
    serve += ["--state-dir", str(work / "state"), "--cache-dir", str(FOLDER)]
    environment = os.environ | {"SLUICE_SERVER": f"unix://{socket}"}

    def ask(*words: str, feed: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [SLUICE, *words], env=environment, capture_output=True, text=True, check=False, input=feed
        )

    def sluice(*words: str, feed: str | None = None) -> bool:
        return ask(*words, feed=feed).returncode == 0

    with subprocess.Popen(serve) as daemon:
        try:
            within(
                START_SECONDS, "a daemon that answers", lambda: sluice("status") or daemon.poll() is not None
            )
            sluice("service", "add", *SERVICE_WORDS)
            within(START_SECONDS, "an end of compiling", _Quiet())
            sluice("doctor")
            within(START_SECONDS, "an end of compiling", _Quiet())
            exported = json.loads(ask("export", "-o", "json").stdout)
            for _, document in translated.documents(exported):
                sluice("apply", "-f", "-", feed=document)
                within(START_SECONDS, "an end of compiling", _Quiet())
        finally:
            daemon.terminate()


class _Quiet:
    """Whether nothing was added to FOLDER for a while."""

    def __init__(self) -> None:
        self._count, self._since = -1, 0.0

    def __call__(self) -> bool:
        count = len(list(FOLDER.iterdir()))
        if count != self._count:
            self._count, self._since = count, time.monotonic()
        return time.monotonic() - self._since > QUIET_SECONDS


if __name__ == "__main__":
    _operate(sys.argv[1], Path(sys.argv[2]))
