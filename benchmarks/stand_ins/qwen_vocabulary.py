"""The true vocabulary of Qwen2 and later as a `tokenizer.json`, from the ranks that the dashscope package carries.

The package holds tokens with their ranks (`qwen.tiktoken`); the merges follow from them: a token is the merge of the two
pieces into which byte-pair encoding with the earlier ranks alone cuts it. Pre-tokenisation, normalisation and control tokens
are the published ones of Qwen2.5-VL.
"""

import base64
import importlib.util
import itertools
from collections.abc import Mapping
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
FIRST_CONTROL = 151643
CONTROLS = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
]
ADDED = [
    "<tool_call>",
    "</tool_call>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
]
"""Added tokens that are not special: they are shown when special tokens are skipped."""


def ranks() -> dict[bytes, int]:
    """Every ordinary token with its id, from the package's file (the package itself is not imported)."""
    spec = importlib.util.find_spec("dashscope")
    assert spec is not None and spec.submodule_search_locations, "install the `parity` extra: it brings dashscope"
    lines = (Path(spec.submodule_search_locations[0]) / "resources" / "qwen.tiktoken").read_bytes().splitlines()
    return {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in lines)}


def pieces(text: bytes, known: Mapping[bytes, int], below: int | None = None) -> list[bytes]:
    """Byte-pair encoding by its definition: merge the pair of lowest rank (and under `below`) until none is left."""
    parts = [text[i : i + 1] for i in range(len(text))]
    while True:
        joined = [(known.get(a + b, len(known)), i) for i, (a, b) in enumerate(itertools.pairwise(parts))]
        rank, place = min(joined, default=(len(known), 0))
        if rank >= (len(known) if below is None else below):
            return parts
        parts[place : place + 2] = [parts[place] + parts[place + 1]]


def write(folder: Path, known: Mapping[bytes, int]) -> Path:
    """Writes `tokenizer.json` into the folder, and returns the folder."""
    spelling = _spelling()

    def spelt(token: bytes) -> str:
        return "".join(spelling[byte] for byte in token)

    merges = []
    for token, rank in sorted(known.items(), key=lambda item: item[1]):
        if len(token) > 1:
            left, right = pieces(token, known, below=rank)
            merges.append((spelt(left), spelt(right)))
    tokenizer = tokenizers.Tokenizer(models.BPE({spelt(token): rank for token, rank in known.items()}, merges))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(CONTROLS)
    tokenizer.add_tokens([tokenizers.AddedToken(token, normalized=False) for token in ADDED])
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def _spelling() -> list[str]:
    """The character that byte-level BPE writes for each byte: itself where it can be printed, else the next free one."""
    table: list[str] = []
    unprintable = 0
    for byte in range(256):
        if 33 <= byte <= 126 or (161 <= byte <= 255 and byte != 173):
            table.append(chr(byte))
        else:
            table.append(chr(256 + unprintable))
            unprintable += 1
    return table
