"""Generates conversations with search from question-answer pairs, as for DeepMMSearchVQA (DeepMMSearch-R1, sec. 2)."""
