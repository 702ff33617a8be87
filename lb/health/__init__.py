"""Health checks: which backend is checked when, what an answer means, and what follows for the ring."""
