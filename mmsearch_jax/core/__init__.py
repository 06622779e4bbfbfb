"""The base of all other packages, and everything that the trainer and the search server share: errors, settings, config files,
the tag grammar, the HTTP schema of searches, trajectories, the chat client, HTTP serving. Nothing here imports JAX.
"""
