"""Whether bcc is installed, is the right project, and compiles. What libbcc prints goes to standard error."""

from lb.dataplane import headers

XDP_SOURCE = b"int pass(struct xdp_md *ctx) {\n    return XDP_PASS;\n}\n"


def fault(*, compiling: bool) -> str | None:
    """What is wrong with it, None if nothing is. compiling: try that too, which takes half a second."""
    try:
        import bcc
    except (ImportError, OSError) as error:
        return f"it cannot be imported ({error})"
    if not hasattr(bcc, "BPF"):
        return f"{bcc.__file__} is another project of that name, which has to be removed"
    if not compiling:
        return None
    tree = headers.use()
    try:
        bcc.BPF(text=XDP_SOURCE).load_func(b"pass", bcc.BPF.XDP)
    except Exception as error:  # bcc raises nothing more precise
        return f"it cannot compile and load an XDP program against the headers in {tree} ({error})"
    return None
