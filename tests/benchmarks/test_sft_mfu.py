"""The parameters that the benchmark of a step trains."""

import jax
from flax import nnx

from benchmarks import sft_mfu
from mmsearch_jax.learners.train_state import split_model
from mmsearch_jax.planning.sizes import SIZES


def test_the_updates_alone_are_trained():
    policy = nnx.eval_shape(lambda: sft_mfu.random_policy(SIZES["7b"], "full"))
    _, trained, frozen = split_model(policy)
    sizes = [sum(leaf.size for leaf in jax.tree.leaves(part)) for part in (trained, frozen)]
    # Full training needs more than a GPU's 80 GB. LoRA of rank 8 on seven matrices in 28 layers; PEFT's count.
    assert sizes[0] == 20_185_088
    assert sizes[1] > 7e9
