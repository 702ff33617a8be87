"""Whether Sluice can run on this machine at all: kernel, bcc, headers, bpffs, capabilities, clock.

Standard library only, as facts.py.
"""

from collections.abc import Iterator

from lb.doctor.facts import HostFacts
from lb.doctor.finding import Finding, fail, ok, warn

STEP_SECONDS = 2.0
"""By how much the wall clock may have been set while the daemon ran."""
NO_START = (
    "No program can be compiled and loaded: the daemon does not start, and a running one cannot change."
)


def examine(facts: HostFacts) -> Iterator[Finding]:
    """A finding for each check of the machine."""
    yield kernel(facts)
    yield bcc(facts)
    yield headers(facts)
    yield bpffs(facts)
    yield capabilities(facts)
    yield clock(facts)


def kernel(facts: HostFacts) -> Finding:
    """The BPF system call, and the features that the packet path is built on."""
    said, name = {why.lower() for why in facts.kernel_lacks.values()}, f"kernel {facts.release}"
    if not facts.kernel_lacks:
        return ok("kernel", facts.release, f"{name} has all the BPF features that are needed")
    if any("not implemented" in why for why in said):
        return fail(
            "kernel",
            facts.release,
            f"{name} has no BPF system call: boot one built with CONFIG_BPF_SYSCALL, such as the distribution's",
            effect=NO_START,
            command="apt-get install linux-image-$(dpkg --print-architecture) && reboot",
        )
    if any("not permitted" in why for why in said):
        return fail(
            "kernel",
            facts.release,
            f"{name} refuses BPF to this process: it lacks privileges, is in a container, or the kernel is locked down",
            effect=NO_START,
            command="sudo sluice doctor",
        )
    missing = ", ".join(f"{feature} ({why})" for feature, why in facts.kernel_lacks.items())
    return fail(
        "kernel",
        facts.release,
        f"{name} lacks {missing}: Linux 5.15 or newer is needed",
        effect=NO_START,
        command="apt-get install linux-image-$(dpkg --print-architecture) && reboot",
    )


def bcc(facts: HostFacts) -> Finding:
    """The compiler."""
    if facts.bcc_fault is None:
        return ok("bcc", "bcc", "bcc can be used")
    return fail(
        "bcc",
        "bcc",
        f"bcc cannot be used: {facts.bcc_fault}",
        effect=NO_START,
        command="apt-get install --reinstall python3-bpfcc libbpfcc",
    )


def headers(facts: HostFacts) -> Finding:
    """What bcc compiles against."""
    if facts.headers is not None and facts.headers_complete:
        return ok("headers", facts.headers, f"bcc compiles against {facts.headers}")
    if facts.headers_chosen:
        return fail(
            "headers",
            str(facts.headers),
            f"BCC_KERNEL_SOURCE names {facts.headers}, which does not hold complete kernel headers",
            effect=NO_START,
            command="unset BCC_KERNEL_SOURCE",
        )
    package = "linux-headers-$(dpkg --print-architecture)"
    return fail(
        "headers",
        facts.release,
        "there are no kernel headers; those of any recent kernel will do",
        effect=NO_START,
        command=f"apt-get install {package} && {facts.python} -m lb.dataplane.headers merge",
    )


def bpffs(facts: HostFacts) -> Finding:
    """Where programs and maps are pinned."""
    if facts.bpffs_mounted:
        return ok("bpffs", facts.bpffs, f"a BPF file system is mounted at {facts.bpffs}")
    found = warn if facts.can_mount else fail
    return found(
        "bpffs",
        facts.bpffs,
        f"no BPF file system is mounted at {facts.bpffs}"
        + (
            "; the daemon mounts one when it starts"
            if facts.can_mount
            else ", and this process may not mount one"
        ),
        effect="Nothing can be pinned: forwarding would end with the daemon.",
        command=f"mount -t bpf bpf {facts.bpffs}",
    )


def capabilities(facts: HostFacts) -> Finding:
    """What a daemon must be allowed to do."""
    if not facts.lacks_capabilities:
        return ok("capabilities", "process", "this process may load programs and set up interfaces")
    return fail(
        "capabilities",
        "process",
        f"this process lacks {', '.join(facts.lacks_capabilities)}",
        effect=NO_START,
        command="sudo sluice doctor",
    )


def clock(facts: HostFacts) -> Finding:
    """Deadlines of entries, and the times in events, go by the wall clock."""
    stepped = facts.clock_stepped_seconds
    if stepped is not None and abs(stepped) >= STEP_SECONDS:
        way, when = ("forward", "early") if stepped > 0 else ("back", "late")
        return warn(
            "clock",
            "clock",
            f"the clock was set {way} by {abs(stepped):.0f} s since the daemon started",
            effect=f"Blocklist entries that were made before end {abs(stepped):.0f} s {when}.",
            command="sluice blocklist list",
        )
    if facts.clock_synchronised is False:
        return warn(
            "clock",
            "clock",
            "the clock is not synchronised",
            effect="Forwarding is not affected; entries expire, and events are dated, by a clock that may be wrong.",
            command="timedatectl set-ntp true",
        )
    return ok("clock", "clock", "the clock is synchronised and was not set while the daemon ran")
