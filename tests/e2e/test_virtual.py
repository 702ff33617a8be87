"""netns-lab/virtual: what `make vm` puts together before anything boots."""

import stat
from pathlib import Path

import pytest
from virtual import boot, chapters, initramfs


def module(path: Path, *depends: str) -> None:
    """As a kernel module's file says what it needs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\x7fELF\0license=GPL\0depends=" + ",".join(depends).encode() + b"\0name=x\0")


def test_modules_come_after_what_they_need(tmp_path: Path) -> None:
    """Each is loaded once, behind what it depends on; dashes and underscores are one; what is built in is left out."""
    module(tmp_path / "net" / "bonding.ko", "tls")
    module(tmp_path / "net" / "tls.ko")
    module(tmp_path / "fs" / "9p.ko", "9pnet", "fs-cache")
    module(tmp_path / "fs" / "fs-cache.ko")
    module(tmp_path / "net" / "9pnet.ko")

    order = initramfs.in_order(tmp_path, ["9p", "built_in", "bonding", "9pnet"])

    assert [path.stem for path in order] == ["9pnet", "fs-cache", "9p", "tls", "bonding"]


def test_archive_is_of_the_kernels_form() -> None:
    """Header of thirteen numbers, name and content, each filled up to four bytes; a trailer ends it."""
    data = initramfs.archive({"bin": (stat.S_IFDIR | 0o755, b""), "bin/x": (stat.S_IFREG | 0o644, b"12345")})

    first, second = 110 + 4 + 2, 110 + 6 + 8
    assert data[
        :110
    ].decode() == "070701" + "00000001" + "000041ED" + "00000000" * 2 + "00000001" + "00000000" + (
        "00000000" * 5 + "00000004" + "00000000"
    )
    assert data[110:first] == b"bin\0\0\0"
    assert data[first + 110 : first + second] == b"bin/x\0" + b"12345\0\0\0"
    assert data[first + second :][110:] == b"TRAILER!!!\0\0\0\0"
    assert len(data) % 4 == 0


def test_chapters_bring_what_they_need() -> None:
    """Installing and starting come first in any case, a reboot and what is seen after it together."""
    assert chapters.chosen(["vlan"]) == ["install", "prepare", "start", "vlan"]
    assert chapters.chosen(["after"]) == ["install", "prepare", "start", "reboot", "after"]
    assert chapters.chosen([]) == list(chapters.CHAPTERS)
    with pytest.raises(ValueError, match="no chapter team: choose from install, "):
        chapters.chosen(["team"])


@pytest.mark.parametrize(("flags", "expected"), [("fpu sse2", False), ("fpu svm sse2", True), ("vmx", True)])
def test_only_a_processor_that_virtualises_is_asked_to(tmp_path: Path, flags: str, expected: bool) -> None:
    """/dev/kvm may be there without the processor's help, and then runs no Debian kernel."""
    kvm, cpuinfo = tmp_path / "kvm", tmp_path / "cpuinfo"
    kvm.touch()
    cpuinfo.write_text(f"processor\t: 0\nflags\t\t: {flags}\nbugs\t\t: vmx_like\n")

    assert boot.is_accelerated(cpuinfo, kvm) is expected
    assert not boot.is_accelerated(cpuinfo, tmp_path / "none")
