"""Who asks, what they may do and how often, and the audit of it. README.md of api/ has the table."""
