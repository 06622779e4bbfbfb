"""Scores of trajectories: answer match, format, and their composition."""
