"""The only rooms that see untrusted text: each returns a value of ours or refuses with the path of the field."""
