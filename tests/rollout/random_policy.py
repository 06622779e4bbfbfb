"""A very small Qwen2.5-VL with random weights in an engine, and its full forward pass for comparison."""

import io

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from PIL import Image

from benchmarks.stand_ins import tiny_tokenizer
from mmsearch_jax.data.chat import ChatRenderer
from mmsearch_jax.images.processing import ImageProcessor
from mmsearch_jax.images.vision_inputs import pack_images
from mmsearch_jax.models.config import ModelConfig, TextConfig, VisionConfig
from mmsearch_jax.models.mrope import mrope_positions
from mmsearch_jax.models.qwen2_5_vl import Qwen2_5_VL
from mmsearch_jax.rollout.engine import Engine
from mmsearch_jax.rollout.sequence import PreparedImage
from mmsearch_jax.settings.rollout import EngineConfig
from tests.shallow import shallow

TOKENIZER = tiny_tokenizer.build()
RENDERER = ChatRenderer(TOKENIZER)
CONFIG = ModelConfig(
    text=TextConfig(
        vocab_size=RENDERER.vocabulary_size + 8,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        mrope_section=(2, 1, 1),
        tie_word_embeddings=True,
    ),
    vision=VisionConfig(
        depth=2, hidden_size=16, intermediate_size=32, num_heads=2, out_hidden_size=32, fullatt_block_indexes=(1,)
    ),
    image_token_id=RENDERER.image_pad,
    vision_start_token_id=RENDERER.vision_start,
    vision_end_token_id=RENDERER.vision_end,
    eos_token_id=RENDERER.im_end,
)

SHALLOW = shallow(CONFIG)


def picture(shade: int = 0) -> bytes:
    """An encoded picture with some structure."""
    grey = (np.arange(56 * 84 * 3).reshape(56, 84, 3) * (shade + 1) // 7 % 256).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(grey).save(out, "PNG")
    return out.getvalue()


def model(config: ModelConfig = CONFIG) -> Qwen2_5_VL:
    """The policy; its random weights are larger than usual, so that tokens differ."""
    policy = Qwen2_5_VL(config, rngs=nnx.Rngs(0))
    nnx.update(policy, jax.tree.map(lambda x: x * 8.0 if x.ndim > 1 else x, nnx.state(policy)))
    return policy


def engine(config: EngineConfig, policy: Qwen2_5_VL | None = None) -> Engine:
    """An engine with the policy."""
    return Engine.of(policy or model(), TOKENIZER, ImageProcessor(min_pixels=28 * 28, max_pixels=56 * 84), config)


@nnx.jit
def _logprobs(policy, ids, positions, vision, index):
    features = policy.encode_images(vision)
    hidden = policy(ids, positions, jnp.ones(ids.shape, jnp.int32), features, index)
    return jax.nn.log_softmax(policy.logits(hidden)[0], axis=-1)


def full_logprobs(ids: list[int], images: list[PreparedImage]) -> np.ndarray:
    """Log-probs [L, V] of one forward pass over a whole trajectory, as the learner computes them."""
    policy = model()
    vision, numbers = pack_images([image.processed for image in images])
    index = np.full((1, len(ids)), -1)
    index[0, np.asarray(ids) == RENDERER.image_pad] = np.concatenate(numbers)
    positions, _ = mrope_positions(ids, [image.grid for image in images], CONFIG)
    return np.asarray(
        _logprobs(policy, jnp.asarray([ids]), jnp.asarray(positions[:, None]), vision, jnp.asarray(index))
    )
