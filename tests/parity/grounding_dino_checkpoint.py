"""A small Grounding DINO with random weights: the complete architecture, with the tiny tokenizer."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import BertConfig, GroundingDinoConfig, GroundingDinoForObjectDetection, SwinConfig

from tests.tiny_grounding_dino import VOCABULARY_SIZE, save_tokenizer

QUERIES = 12


def write_checkpoint(folder: Path) -> Path:
    """Writes a checkpoint in the published format; returns the folder. Pictures are scaled to at most 64 x 128."""
    torch.manual_seed(0)
    backbone = SwinConfig(
        embed_dim=16,
        depths=[1, 1, 1, 1],
        num_heads=[2, 2, 4, 4],
        window_size=4,
        out_features=["stage2", "stage3", "stage4"],
    )
    text = BertConfig(
        vocab_size=VOCABULARY_SIZE, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    config = GroundingDinoConfig(
        backbone_config=backbone,
        text_config=text,
        num_queries=QUERIES,
        d_model=64,
        encoder_layers=1,
        decoder_layers=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        disable_custom_kernels=True,
    )
    GroundingDinoForObjectDetection(config).save_pretrained(folder)
    save_tokenizer(folder)
    size = {"shortest_edge": 64, "longest_edge": 128}
    own = {"size": size, "image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.2, 0.3]}
    (folder / "preprocessor_config.json").write_text(json.dumps(own))
    return folder
