"""Desired state to map contents: pure functions (ring, compile, diff), and one loop that applies them."""
