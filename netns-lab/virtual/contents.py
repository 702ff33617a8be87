"""What the machine boots with: an archive of busybox, modules, the first script, and all of /etc that is its own."""

import stat
from pathlib import Path

from rerun import CHECKOUT
from virtual import initramfs
from virtual.debian import Kernel
from virtual.initramfs import Entry

HERE = Path(__file__).resolve().parent
TO_REACH_THE_ROOT = ("virtio_pci", "virtio_blk", "9pnet_virtio", "9p", "overlay", "crc32c_generic", "ext4")
TO_BE_THERE = (
    "veth",
    "bridge",
    "bonding",
    "8021q",
    "ipip",
    "sch_ingress",
    "cls_bpf",
    "autofs4",
    "binfmt_misc",
)
"""There is no modprobe in the machine."""
SETTINGS = {"bonding": "max_bonds=0"}
"""It would make a bond0 by itself."""
APPLETS = ("sh", "mount", "mkdir", "insmod", "cat", "cp", "mv", "ln", "chmod", "switch_root", "poweroff")
COPIED = (
    *("ld.so.cache", "ld.so.conf", "ld.so.conf.d", "alternatives", "nsswitch.conf", "services", "protocols"),
    *("login.defs", "default/useradd", "ssl/certs/ca-certificates.crt"),
)
"""Of this machine's /etc: what programs need. None of its services is started in there."""
FOLDER, FILE, SECRET, PROGRAM, LINK = (
    stat.S_IFDIR | 0o755,
    stat.S_IFREG | 0o644,
    stat.S_IFREG | 0o600,
    stat.S_IFREG | 0o755,
    stat.S_IFLNK | 0o777,
)


def archive(kernel: Kernel, job: str) -> bytes:
    """The whole. job: the words that virtual/guest.py is called with."""
    first = initramfs.in_order(kernel.modules, TO_REACH_THE_ROOT)
    then = [path for path in initramfs.in_order(kernel.modules, TO_BE_THERE) if path not in first]
    files: dict[str, Entry] = dict.fromkeys(("bin", "dev", "proc", "sys", "modules.d"), (FOLDER, b""))
    files["init"] = (PROGRAM, (HERE / "init").read_bytes())
    files["bin/busybox"] = (PROGRAM, kernel.busybox.read_bytes())
    files |= {f"bin/{applet}": (LINK, b"busybox") for applet in APPLETS}
    files |= {f"modules.d/{path.name}": (FILE, path.read_bytes()) for path in first}
    files["first-modules"] = (FILE, "".join(f"/modules.d/{path.name}\n" for path in first).encode())
    lines = (f"{path.relative_to(kernel.root)} {SETTINGS.get(path.stem, '')}\n" for path in then)
    files["modules"] = (FILE, "".join(lines).encode())
    files["checkout"] = (FILE, str(CHECKOUT).encode())
    files |= dict(initramfs.tree(HERE / "skeleton", "skeleton"))
    files |= _etc(Path("/etc"))
    files["skeleton/etc/sluice-machine.env"] = (FILE, f"CHECKOUT={CHECKOUT}\nJOB={job}\n".encode())
    return initramfs.archive(files)


def _etc(source: Path) -> dict[str, Entry]:
    """What is copied, and the users, of whom none is Sluice's yet."""
    found: dict[str, Entry] = {}
    for name in COPIED:
        path = source / name
        if path.is_dir():
            found |= dict(initramfs.tree(path, f"skeleton/etc/{name}"))
        elif path.exists():
            for parent in reversed(Path(name).parents[:-1]):
                found[f"skeleton/etc/{parent}"] = (FOLDER, b"")
            found[f"skeleton/etc/{name}"] = (FILE, path.read_bytes())
    for name in ("passwd", "group"):
        lines = (source / name).read_text().splitlines(keepends=True)
        kept = "".join(line for line in lines if not line.startswith("sluice:"))
        found[f"skeleton/etc/{name}"] = (FILE, kept.encode())
    found["skeleton/etc/shadow"] = (SECRET, b"root:*:::::::\n")
    found["skeleton/etc/gshadow"] = (SECRET, b"")
    return found
