"""What the bundled configs are made of: where a size, a topology or the tiny policy differs from the defaults of the settings.

A config of your own may build on them: `from mmsearch_jax.recipes import qwen2_5_vl`.
"""
