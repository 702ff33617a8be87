"""The packet path once more, in plain Python, written from xdp/README.md and not from the C: what must come out.

    frame ─ packet ─ admission ─ icmp ─ services ─ balancer ─ send ─ Answer
                      ├ lists     │                 ├ quic    └ too_big
                      ├ sources   └ echo reply      └ guards
                      └ rules ─ limits

`path.py` has the stages in their order. It is a specification to run, so it is plain before it is quick.
"""

from tests.reference.path import Answer, Reference

__all__ = ["Answer", "Reference"]
