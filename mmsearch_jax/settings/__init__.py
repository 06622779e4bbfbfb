"""Every setting of every command, by subject. Only this package defines the name, type, default and bounds of a setting.

The defaults are the paper's recipe (DeepMMSearch-R1, arXiv 2510.12801) for a 7B. `mmsearch_jax.recipes` and `configs/` contain
the values that differ for a size, a topology or the tiny policy. Nothing here imports JAX, so that a command line is checked
before anything starts.
"""
