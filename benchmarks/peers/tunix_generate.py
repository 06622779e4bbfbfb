"""Greedy decoding by Tunix's sampler, in its own environment: python tunix_generate.py WORK.json."""

import importlib.metadata
import json
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from tunix.generate.sampler import CacheConfig, Sampler
from tunix.models.qwen2.model import ModelConfig
from tunix.models.qwen2.params import create_model_from_safe_tensors


class Numbers:
    """A tokenizer whose text is the ids themselves."""

    def __init__(self, pad: int, stop: int):
        self._pad, self._stop = pad, stop

    def encode(self, text: str, **_: object) -> list[int]:
        """ "5 7" -> [5, 7]."""
        return [int(word) for word in text.split()]

    def decode(self, ids: list[int], **_: object) -> str:
        """[5, 7] -> "5 7"."""
        return " ".join(map(str, ids))

    def bos_id(self) -> None:
        """There is none."""
        return None

    def eos_id(self) -> int:
        """Ends a sample."""
        return self._stop

    def pad_id(self) -> int:
        """Stands to the left of short prompts."""
        return self._pad


def main() -> None:
    """Prints the new tokens and the seconds of each repeat as JSON."""
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
    longest = max(map(len, work["prompts"]))
    cache = CacheConfig(
        cache_size=longest + work["new_tokens"],
        num_layers=config.num_layers,
        num_kv_heads=config.num_kv_heads,
        head_dim=config.head_dim,
    )
    sampler = Sampler(model, Numbers(work["pad"], work["stop"][0]), cache)
    prompts = [" ".join(map(str, prompt)) for prompt in work["prompts"]]
    seconds = []
    for _ in range(work["repeats"] + 1):
        began = time.perf_counter()
        made = sampler(
            prompts,
            max_generation_steps=work["new_tokens"],
            max_prompt_length=longest,
            eos_tokens=work["stop"],
            forbidden_tokens=work["suppress"],
            return_logprobs=True,
        )
        tokens = [np.asarray(row).tolist() for row in made.tokens]
        seconds.append(time.perf_counter() - began)
    version = f"Tunix {importlib.metadata.version('google-tunix')}"
    # The first is the warm-up.
    print(json.dumps({"tokens": tokens, "seconds": seconds[1:], "version": version}))


if __name__ == "__main__":
    main()
