"""The search server: text search, image search and grounding over HTTP, in its own process.

It works on images and strings only and loads no JAX. Of the trainer's package it imports only `mmsearch_jax.core`: errors,
settings and config files, the HTTP schema (`search_api`), the tag grammar (`protocol`), the chat client, bounded replies and
the HTTP serving loop. The rest of the trainer reaches it over HTTP.
"""
