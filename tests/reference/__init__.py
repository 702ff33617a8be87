"""The packet path once more, in plain Python, written from xdp/README.md and not from the C: what must come out.

    frame ─ packet.read ─ lists.Rules.blocks ─ balancer.Balancer.choose ─ send.forward ─ Answer

It is a specification to run, so it is short rather than quick.
"""

from tests.reference.path import Answer, Reference

__all__ = ["Answer", "Reference"]
