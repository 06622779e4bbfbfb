"""The mini-world: a generated world for training and a real one for evaluation, with pictures, pages and questions."""
