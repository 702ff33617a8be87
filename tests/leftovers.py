"""What runs that were killed left of labs, lone machines, pins and folders. The next run takes it away, as does the end
of a run whose workers were interrupted too often to do so.
"""

import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "netns-lab"))

import inside
import lifecycle
import processes
from place import RUN_ROOT
from pyroute2 import netns
from rerun import CHECKOUT

LAB, MACHINE, FOLDER, PINS = "e2e-", "sl-around-", "sluice-e2e-", "sluice-test-"
"""What names begin with; the pid of the run follows."""
BPFFS, FOLDERS = Path("/sys/fs/bpf"), Path("/tmp")
SLUICE = str(CHECKOUT / ".venv" / "bin" / "sluice")


def of_dead(prefix: str, names: Iterable[str]) -> Iterator[str]:
    """Those names whose run is no more."""
    for name in names:
        pid = name.removeprefix(prefix).partition("-")[0]
        if name.startswith(prefix) and pid.isdecimal() and not processes.find(int(pid)):
            yield name


def labs() -> None:
    """Namespaces, daemons, servers and files."""
    for name in of_dead(LAB, [path.name for path in RUN_ROOT.glob("*")]):
        lifecycle.down(name)


def machines() -> None:
    """Namespaces with one daemon."""
    for name in of_dead(MACHINE, netns.listnetns()):
        end_machine(name, [machine_interface(int(name.removeprefix(MACHINE)))])


def machine_interface(pid: int) -> str:
    """That a lone machine serves first; at most 15 characters."""
    return f"sla{pid % 10**7}"


def end_machine(namespace: str, served: Iterable[str]) -> None:
    """End what runs in there, take the programs off those interfaces, and remove it."""
    processes.end_inside([namespace])
    detach(namespace, served)
    netns.remove(namespace)


def detach(namespace: str, served: Iterable[str]) -> None:
    """Take the programs off those interfaces in there."""
    for name in served:
        words = [SLUICE, "detach", "--interface", name]
        subprocess.run(inside.command(namespace, words), capture_output=True, check=False)


def pins() -> None:
    """Of the test runs of programs."""
    for name in of_dead(PINS, [path.name for path in BPFFS.glob("*")]):
        shutil.rmtree(BPFFS / name, ignore_errors=True)  # another test run may be at it


def folders() -> None:
    """That any user may look into."""
    for name in of_dead(FOLDER, [path.name for path in FOLDERS.glob("*")]):
        shutil.rmtree(FOLDERS / name, ignore_errors=True)


def clear() -> None:
    """All of it."""
    for each in (labs, machines, pins, folders):
        each()
