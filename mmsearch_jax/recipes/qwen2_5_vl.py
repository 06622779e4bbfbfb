"""The published Qwen2.5-VL models: SFT and GRPO by size and topology.

The settings' defaults are the paper's recipe; this module sets what depends on the size and the machines.
"""

from __future__ import annotations

import math

import ml_collections

from mmsearch_jax.core.config_files import as_config
from mmsearch_jax.recipes import meshes
from mmsearch_jax.settings.commands import GRPOSettings, SFTSettings


def sft(size: str, topology: str) -> ml_collections.ConfigDict:
    """SFT as in DeepMMSearch-R1 (sec. 3.1, 4.1): LoRA of rank 8 on all linear modules of the language model, vision frozen.

    Args:
      size: such as "7b".
      topology: such as "v5p:2x2x4"; determines mesh, rows, and number of steps.

    Raises:
      ConfigError: no such topology, or the size does not fit it.
    """
    config = as_config(SFTSettings(checkpoint=f"Qwen2.5-VL-{size.upper()}-Instruct"))
    meshes.lay_out(config, "sft", size, topology)
    rows = meshes.num_rows(config, 8)
    # 10,000 conversations, three epochs, about three conversations in a row of 8,192 tokens: 10,000 rows.
    num_steps = math.ceil(10_000 / rows)
    config.sft.num_steps = num_steps
    # Exported policies are run by other programs, which stop at <|im_end|>.
    config.sft.train_end = True
    config.sft.batch.update({"rows": rows, "images": 4 * rows})
    # Warm-up: 0.1 of the steps.
    config.sft.optimizer.warmup_steps = math.ceil(num_steps / 10)
    return config


def grpo(size: str, topology: str) -> ml_collections.ConfigDict:
    """GRPO as in DeepMMSearch-R1 (sec. 3.2, 4.1): live tools, eight rollouts per prompt, an LLM as judge.

    The paper contradicts itself; this recipe uses 20 epochs of FVQA's 5,000 prompts, batch 512, mini-batch 64.

    Args:
      size: such as "7b".
      topology: such as "v5p:2x2x4"; determines mesh, engine, rows and, with many hosts, prompts per step.

    Raises:
      ConfigError: no such topology, or the size does not fit it.
    """
    config = as_config(GRPOSettings())
    machines = meshes.lay_out(config, "grpo", size, topology)
    rows, processes = meshes.num_rows(config, 8), machines.num_processes
    # Every host takes an equal share of the prompts.
    prompts = processes * math.ceil(64 / processes)
    config.grpo.update({"num_steps": 20 * max(1, 5_000 // prompts), "prompts_per_step": prompts})
    config.grpo.batch.update({"rows": rows, "images": 2 * rows})
    return config
