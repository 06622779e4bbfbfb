"""Recipes of the bundled configs: the values that differ from the settings' defaults for a size, a topology or the tiny policy.

Your own config may use them: `from mmsearch_jax.recipes import qwen2_5_vl`.
"""
