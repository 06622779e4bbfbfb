"""Teaching a vision-language model to search the web, in JAX."""

__version__ = "0.1.0"
