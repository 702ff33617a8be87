"""The fault campaign: load that checks every answer, and faults drawn from a seed."""
