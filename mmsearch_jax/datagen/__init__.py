"""Makes conversations with search from questions with answers, as DeepMMSearchVQA was made (DeepMMSearch-R1, sec. 2)."""
