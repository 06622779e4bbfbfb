"""Every setting of every command, by subject: the one place where a setting's name, type, default and bounds stand.

The defaults are the paper's recipe (DeepMMSearch-R1, arXiv 2510.12801) for a 7B; `mmsearch_jax.recipes` and `configs/` say
where a size, a topology or the tiny policy differs. Nothing here imports JAX: a command line is checked before anything starts.
"""
