"""An OpenAI-compatible chat server on our engine (docs/serving.md)."""
