"""Feeds: lists of prefixes that others publish, fetched, read, guarded and kept fresh on the blocklist."""
