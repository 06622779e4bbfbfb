"""Generates conversations with search from question-answer pairs, with a teacher at a chat endpoint and the live tools.

mmsearch datagen --workdir runs/datagen --config.seeds.path=infoseek.array_record \
    --config.teacher.url=http://localhost:8000/v1 --config.teacher.model=NAME --config.tools.url=http://localhost:8765 \
    --config.tokenizer=Qwen2.5-VL-7B-Instruct
"""

import ml_collections

from mmsearch_jax.core.config_files import as_config
from mmsearch_jax.settings.datagen import DatagenSettings


def get_config() -> ml_collections.ConfigDict:
    """The paper's rules and sizes (DeepMMSearch-R1, sec. 2)."""
    return as_config(DatagenSettings())
