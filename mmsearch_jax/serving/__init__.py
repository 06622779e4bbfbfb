"""An OpenAI-compatible chat server with our engine behind it (docs/serving.md)."""
