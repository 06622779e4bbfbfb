"""The search server: text search, image search and grounding over a folder of pages and pictures, in a
process of its own.

It sees pixels and strings only. It shares nothing with the trainer but the HTTP schema in
`mmsearch_jax.core.protocol`.
"""
