"""The control plane of Sluice: what the operator wants, and how it reaches the packet path."""

__version__ = "0.1.0"
"""Written here and taken by the package: reading its metadata would take longer than most commands do."""
