"""GRPO updates by Tunix's trainer, in its own environment: python tunix_grpo.py WORK.json."""

import importlib.metadata
import json
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from tunix.models.qwen2.model import ModelConfig
from tunix.models.qwen2.params import create_model_from_safe_tensors
from tunix.rl.algo_core import grpo_loss_fn
from tunix.rl.grpo.grpo_learner import GRPOConfig, TrainExample
from tunix.rl.trainer import Trainer
from tunix.sft.peft_trainer import TrainingConfig


def examples(file: str, rows: int, prompt: int, completion: int, pad: int) -> list[TrainExample]:
    """Micro-batches as Tunix's learner makes them: prompts padded to the left, completions to the right, to fixed sizes."""
    arrays = np.load(file)
    count = sum(name.startswith("ids") for name in arrays)
    made = []
    for begin in range(0, count, rows):
        ids = {"prompt": np.full((rows, prompt), pad), "completion": np.full((rows, completion), pad)}
        mask, old = np.zeros((rows, completion), bool), np.zeros((rows, completion), np.float32)
        for row in range(rows):
            own, begins = arrays[f"ids{begin + row}"], int(arrays["prompts"][begin + row])
            ids["prompt"][row, prompt - begins :] = own[:begins]
            ids["completion"][row, : len(own) - begins] = own[begins:]
            mask[row, : len(own) - begins] = arrays[f"weights{begin + row}"][begins:] > 0
            old[row, : len(own) - begins] = arrays[f"old{begin + row}"][begins:]
        made.append(
            TrainExample(
                prompt_ids=jnp.asarray(ids["prompt"], jnp.int32),
                prompt_mask=jnp.asarray(ids["prompt"] != pad),
                completion_ids=jnp.asarray(ids["completion"], jnp.int32),
                completion_mask=jnp.asarray(mask),
                advantages=jnp.asarray(arrays["advantages"][begin : begin + rows]),
                ref_per_token_logps=None,
                old_per_token_logps=jnp.asarray(old),
            )
        )
    return made


def main() -> None:
    """Prints the loss and the seconds of each step as JSON."""
    work = json.loads(Path(sys.argv[1]).read_text())
    text = work["text"]
    config = ModelConfig(
        num_layers=text["num_hidden_layers"],
        vocab_size=text["vocab_size"],
        embed_dim=text["hidden_size"],
        hidden_dim=text["intermediate_size"],
        num_heads=text["num_attention_heads"],
        head_dim=text["hidden_size"] // text["num_attention_heads"],
        num_kv_heads=text["num_key_value_heads"],
        rope_theta=int(text["rope_theta"]),
        norm_eps=text["rms_norm_eps"],
        use_tied_embedding=True,
    )
    mesh = jax.sharding.Mesh(np.array(jax.devices()).reshape(1, 1), ("fsdp", "tp"))
    model = create_model_from_safe_tensors(work["text_folder"], config, mesh, dtype=jnp.float32)
    batches = [examples(file, work["rows"], work["prompt"], work["completion"], work["pad"]) for file in work["steps"]]
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(work["learning_rate"], b1=0.9, b2=0.95, weight_decay=0.0)
    )
    training = TrainingConfig(eval_every_n_steps=10**6, gradient_accumulation_steps=len(batches[0]))
    trainer = Trainer(model, optimizer, training, custom_checkpoint_metadata_fn=dict)
    algorithm = GRPOConfig(num_generations=work["group_size"], beta=0.0, epsilon=0.2)
    # Its learner gives the temperature to the config when it is made.
    algorithm.temperature = 1.0
    trainer.with_loss_fn(
        lambda model, train_example: grpo_loss_fn(model, train_example, algorithm, work["pad"], work["pad"]),
        has_aux=True,
    ).with_gen_model_input_fn(lambda example: {"train_example": example})
    step, _ = trainer.jit_train_and_eval_step()
    # Compiled by steps that move no weight, as all advantages are 0; the optimiser's count begins anew after them.
    fresh = jax.tree.map(jnp.copy, nnx.state(trainer.optimizer))
    for example in batches[0]:
        step(example.replace(advantages=jnp.zeros_like(example.advantages)))
    nnx.update(trainer.optimizer, fresh)
    losses, seconds = [], []
    for batch in batches:
        began = time.perf_counter()
        losses.append(float(np.mean([float(step(example)[0]) for example in batch])))
        jax.block_until_ready(trainer.model.embedder.input_embedding.value)
        seconds.append(time.perf_counter() - began)
    version = f"Tunix {importlib.metadata.version('google-tunix')}"
    print(json.dumps({"losses": losses, "seconds": seconds, "version": version}))


if __name__ == "__main__":
    main()
