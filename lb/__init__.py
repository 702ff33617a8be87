"""The control plane of Sluice: what the operator wants, and how it reaches the packet path."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("sluice")
except PackageNotFoundError:  # run from a tree that was never installed
    __version__ = "0+unknown"
