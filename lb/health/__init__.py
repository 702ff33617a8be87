"""Health checks: who is asked when, what an answer says, and what follows from it for the ring."""
