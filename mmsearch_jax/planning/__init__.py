"""Plans: what a job would take on chips that are not here, from its true programs compiled ahead of time."""
