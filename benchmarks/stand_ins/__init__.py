"""Stand-ins for what a measurement or a test does not measure: a scripted policy, tokenizers, a web search provider."""
