"""The `sluice` command: speaks HTTP to the daemon, and starts quickly because it imports very little."""
