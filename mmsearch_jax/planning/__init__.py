"""Plans: what a job needs on hardware that is not present, from its actual programs compiled ahead of time."""
