"""Ask the kernel and bcc whether Sluice can run here; deploy/setup.sh calls this.

    probe.py kernel     BPF system call and the features Sluice cannot do without (standard library only)
    probe.py bcc        bcc is the right one, and compiles and loads an XDP program

Prints nothing and exits 0, or prints one sentence with the remedy and exits 1.
"""

import ctypes
import errno
import os
import struct
import sys

BPF_MAP_CREATE, BPF_PROG_LOAD = 0, 5
BPF_MAP_TYPE_ARRAY, BPF_MAP_TYPE_RINGBUF, BPF_PROG_TYPE_XDP = 2, 27, 6
BPF_F_MMAPABLE = 1 << 10
SYSTEM_CALL = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "s390x": 351, "ppc64le": 361}

XDP_SOURCE = b"int pass(struct xdp_md *ctx) {\n    return XDP_PASS;\n}\n"


def bpf(command: int, attributes: bytes) -> int:
    """Make one BPF system call and close what it creates; return 0 or the error number."""
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(attributes.ljust(128, b"\0"), 128)
    descriptor = libc.syscall(SYSTEM_CALL[os.uname().machine], command, buffer, 128)
    if descriptor < 0:
        return ctypes.get_errno()
    os.close(descriptor)
    return 0


def create_map(kind: int, key_size: int, value_size: int, entries: int, flags: int = 0) -> int:
    """Try a map of this kind."""
    return bpf(BPF_MAP_CREATE, struct.pack("=5I", kind, key_size, value_size, entries, flags))


def load_compare_and_swap() -> int:
    """Try an XDP program with a fetching atomic: r0 = 2; [r10-8] = r1 = 0; cmpxchg; r0 = 2; exit."""
    code = b"".join(
        struct.pack("=BBhi", opcode, registers, offset, value)
        for opcode, registers, offset, value in [
            (0xB7, 0x00, 0, 2),
            (0xB7, 0x01, 0, 0),
            (0x7B, 0x1A, -8, 0),
            (0xDB, 0x1A, -8, 0xF1),
            (0xB7, 0x00, 0, 2),
            (0x95, 0x00, 0, 0),
        ]
    )
    instructions = ctypes.create_string_buffer(code, len(code))
    licence = ctypes.create_string_buffer(b"GPL")
    addresses = (ctypes.addressof(instructions), ctypes.addressof(licence))
    return bpf(BPF_PROG_LOAD, struct.pack("=IIQQ", BPF_PROG_TYPE_XDP, len(code) // 8, *addresses))


def check_kernel() -> str | None:
    """Return what this kernel lacks, as a sentence."""
    system = os.uname()
    if system.machine not in SYSTEM_CALL:
        return None  # an architecture nobody tried: let bcc be the judge
    page = os.sysconf("SC_PAGE_SIZE")
    features = {
        "BPF array maps": create_map(BPF_MAP_TYPE_ARRAY, 4, 8, 1),
        "memory-mapped BPF arrays": create_map(BPF_MAP_TYPE_ARRAY, 4, 8, 1, BPF_F_MMAPABLE),
        "BPF ring buffers": create_map(BPF_MAP_TYPE_RINGBUF, 0, 0, page),
        "BPF compare-and-swap": load_compare_and_swap(),
    }
    if errno.ENOSYS in features.values():
        return (
            f"Kernel {system.release} has no BPF system call: "
            "boot a kernel built with CONFIG_BPF_SYSCALL, such as the distribution's own."
        )
    if errno.EPERM in features.values():
        return (
            "The kernel refuses BPF even to root, as it does in an unprivileged container or under lockdown: "
            "run on the host, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON, or lift the lockdown."
        )
    missing = [f"{name} ({os.strerror(error)})" for name, error in features.items() if error]
    if missing:
        return (
            f"Kernel {system.release} lacks {', '.join(missing)}: Sluice needs Linux 5.15 or newer; "
            "install a newer kernel and reboot."
        )
    return None


def check_bcc() -> str | None:
    """Return what is wrong with bcc, as a sentence. Compiler messages go to standard error."""
    from lb.dataplane import headers

    try:
        import bcc
    except (ImportError, OSError) as error:
        return (
            f"bcc cannot be imported ({error}): "
            "reinstall it with `apt-get install --reinstall python3-bpfcc libbpfcc`."
        )
    if not hasattr(bcc, "BPF"):
        return (
            f"The bcc at {bcc.__file__} is another project of that name: "
            "remove it, then run `apt-get install --reinstall python3-bpfcc`."
        )
    tree = headers.use()
    try:
        bcc.BPF(text=XDP_SOURCE).load_func(b"pass", bcc.BPF.XDP)
    except Exception as error:  # bcc raises nothing more precise
        return (
            f"bcc cannot compile and load an XDP program against the headers in {tree} ({error}): "
            "reinstall the linux-headers package, or set BCC_KERNEL_SOURCE to a complete tree."
        )
    return None


def main(arguments: list[str]) -> int:
    """Run the check named on the command line."""
    checks = {"kernel": check_kernel, "bcc": check_bcc}
    if len(arguments) != 1 or arguments[0] not in checks:
        print("usage: probe.py kernel|bcc", file=sys.stderr)
        return 2
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libbcc prints is not part of the answer
    problem = checks[arguments[0]]()
    if problem:
        print(problem, file=answer, flush=True)
    return 1 if problem else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
