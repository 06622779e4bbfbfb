"""Finds the region of an image that a referring expression means: one interface, several detectors."""
