"""The data plane as Python sees it: the only package that imports bcc or touches the kernel."""
