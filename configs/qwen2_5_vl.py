"""The configs of the published Qwen2.5-VL models: SFT and GRPO by size and topology, on one base. Not a config by itself."""

import math

import ml_collections

from configs import meshes, tiny, tiny_grpo, tiny_sft


def sft(size: str, topology: str) -> ml_collections.ConfigDict:
    """SFT as in DeepMMSearch-R1 (sec. 3.1, 4.1): LoRA of rank 8 on all linear modules of the language model, vision frozen.

    Args:
      size: such as "7b".
      topology: what it runs on, such as "v5p:2x2x4"; decides mesh, rows, and with them the number of steps.

    Raises:
      ConfigError: no such topology, or the size does not fit it.
    """
    config = base(f"Qwen2.5-VL-{size.upper()}-Instruct")
    config.sft = tiny_sft.get_config().sft
    machines = meshes.lay_out(config, "sft", size, topology)
    rows, processes = meshes.num_rows(config, 8), machines.num_processes
    # 10k samples, three epochs, about three conversations in a row of 8,192 tokens: 10,000 rows. `images` are rows of patches,
    # each of which holds one image of the largest size or several small ones.
    num_steps = math.ceil(10_000 / rows)
    config.sft.update(
        {"num_steps": num_steps, "batch": {"rows": rows, "length": 8192, "images": 4 * rows, "patches": 5120}}
    )
    config.sft.data.update({"lanes": processes * max(1, 8 // processes), "num_workers": 8})
    # Warm-up 0.1 of the steps.
    config.sft.optimizer.update(
        {"learning_rate": 1e-4, "warmup_steps": math.ceil(num_steps / 10), "final_fraction": 0.0, "b2": 0.999}
    )
    return config


def grpo(size: str, topology: str) -> ml_collections.ConfigDict:
    """GRPO as in DeepMMSearch-R1 (sec. 3.2, 4.1): live tools, eight rollouts a prompt, an LLM as judge.

    Where the paper contradicts itself: 20 epochs of FVQA's 5,000 prompts, batch 512, mini-batch 64.

    Args:
      size: such as "7b".
      topology: what it runs on, such as "v5p:2x2x4"; decides mesh, engine, rows and, where hosts are many, prompts a step.

    Raises:
      ConfigError: no such topology, or the size does not fit it.
    """
    config = base("runs/sft/policies/sft")
    config.grpo = tiny_grpo.get_config().grpo
    machines = meshes.lay_out(config, "grpo", size, topology)
    rows, processes = meshes.num_rows(config, 8), machines.num_processes
    # Every host takes its share of the prompts.
    prompts = processes * math.ceil(64 / processes)
    config.grpo.update(
        {
            "rows": "fvqa_train.array_record",
            "num_steps": 20 * max(1, 5_000 // prompts),
            "prompts_per_step": prompts,
            "group_size": 8,
            "updates_per_batch": 8,
            "temperature": 1.0,
            "batch": {"rows": rows, "length": 12288, "images": 2 * rows, "patches": 5120},
        }
    )
    config.grpo.loss.update({"clip_low": 0.2, "clip_high": 0.2, "kl_coef": 0.001, "aggregation": "sequence"})
    config.grpo.reward.match = "exact_or_judge"
    config.grpo.optimizer.update({"learning_rate": 2e-6, "warmup_steps": 45, "decay": "constant", "b2": 0.999})
    return config


def base(checkpoint: str) -> ml_collections.ConfigDict:
    """The paper's episodes (DeepMMSearch-R1, sec. 3) and LoRA of rank 8 in bf16."""
    config = tiny.base(checkpoint)
    config.dtype = "bfloat16"
    config.remat = "full"
    # 1,280 tokens an image.
    config.max_pixels = 1280 * 28 * 28
    # Alpha and dropout are not stated in the paper.
    config.lora.update({"rank": 8, "alpha": 16.0})
    config.run.checkpoint_every = 50
    config.tools.update({"url": "http://127.0.0.1:8765", "deadline_s": 60.0})
    config.episode.update(
        {
            "prompt_style": "paper",
            "max_tool_calls": 10,
            "max_image_searches": 1,
            "max_text_searches": 10,
            "max_turn_tokens": 1024,
            "max_trajectory_tokens": 12288,
            "observation_max_tokens": 1024,
            "top_k_text": 5,
            "top_k_image": 5,
            "say_last_turn": True,
        }
    )
    config.engine.update(
        {
            "num_slots": 64,
            "max_length": 12288,
            "extend_rows": (1, 8),
            "extend_buckets": (256, 1024, 2048),
            "decode_rows": (16,),
            "length_buckets": (2048, 4096, 8192),
            "tensor": 4,
        }
    )
    return config
