"""Answers kept and played back, and what a run has spent: in SQLite beside one server, in Redis for many."""
