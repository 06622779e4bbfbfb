"""A small version of Grounding DINO's tokenizer: its ids of the marks that separate phrases, and a few words."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

VOCABULARY_SIZE = 1100
WORDS = ("the", "a", "flag", "on", "left", "right", "red", "dog", "##s", "building", "with", "tower")


def tokenizer() -> Tokenizer:
    """BERT's tokenizer with twelve words; [PAD], [CLS], [SEP], "." and "?" have the ids that the model expects."""
    vocabulary = {f"[unused{i}]": i for i in range(VOCABULARY_SIZE)}
    marks = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, "[MASK]": 103, ".": 1012, "?": 1029}
    numbers = {**marks, **{word: 200 + i for i, word in enumerate(WORDS)}}
    vocabulary = {text: i for text, i in vocabulary.items() if i not in numbers.values()} | numbers
    made = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.BertProcessing(("[SEP]", 102), ("[CLS]", 101))
    return made


def save_tokenizer(folder: Path) -> None:
    """Writes tokenizer.json."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer().save(str(folder / "tokenizer.json"))
