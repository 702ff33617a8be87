"""The control plane of Sluice: what the operator wants, and how it reaches the packet path."""


def __getattr__(name: str) -> str:
    """`__version__`, looked up when it is asked for: reading the metadata takes longer than most commands."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("sluice")
    except PackageNotFoundError:  # run from a tree that was never installed
        return "0+unknown"
