"""One router a resource; each reads from, or writes through, the reconciler and nothing else."""
