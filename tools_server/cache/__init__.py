"""Stored answers and replay, and the spending of runs: in SQLite for one server, in Redis for many."""
