"""A small byte-level BPE tokenizer with Qwen's control tokens, trained on the spot."""

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

CONTROLS = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
]
TEXT = [
    "user\nassistant\nsystem\nWhat is the capital of the country with this flag?",
    "The flag of France. Capital: Paris.",
    "<reason>I know this flag.</reason><answer>Paris</answer>\nSearch if needed. Population: 67,400,000",
    "<reason>I must look.</reason><text_search>capital of Peru</text_search>",
    "<information>[1] Peru</information>",
    "<reason>The left one.</reason><img_search>the flag on the left</img_search>",
    "<reason>All of it.</reason><img_search><img></img_search>",
] * 4


def build(vocab_size: int = 400) -> tokenizers.Tokenizer:
    """Trains the tokenizer; control tokens follow the ordinary ones."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(CONTROLS), initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    tokenizer.add_special_tokens(CONTROLS)
    return tokenizer
