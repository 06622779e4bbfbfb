"""Hand-made grounding and embedding of pictures for the mini-world, without learned weights."""
