"""A model that says what it is told: next tokens by script and index, with a real cache that records what was
fed."""

import asyncio
import dataclasses
import io
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from PIL import Image

from benchmarks.stand_ins import tiny_tokenizer
from mmsearch_jax.core import protocol
from mmsearch_jax.core.errors import ToolFailed
from mmsearch_jax.core.protocol import TextSearch
from mmsearch_jax.core.search_api import SearchReply, SearchResult
from mmsearch_jax.data.chat import ChatRenderer
from mmsearch_jax.images.processing import ProcessedImage
from mmsearch_jax.models.config import ModelConfig, TextConfig, VisionConfig
from mmsearch_jax.rollout.engine import Engine
from mmsearch_jax.rollout.episode import observe
from mmsearch_jax.settings.rollout import EngineConfig, EpisodeConfig

TOKENIZER = tiny_tokenizer.build()
RENDERER = ChatRenderer(TOKENIZER)
MARK = "#"
"""How often it stands in what was fed chooses the script."""
MAX_LENGTH = 512
CONFIG = EpisodeConfig(prompt_style="short", max_trajectory_tokens=MAX_LENGTH, max_turn_tokens=120, max_tool_calls=4)
ENGINE_CONFIG = EngineConfig(
    num_slots=4,
    max_length=MAX_LENGTH,
    extend_rows=(2,),
    extend_buckets=(32, 128),
    decode_rows=(2,),
    length_buckets=(256,),
    decode_steps=8,
)


def num_image_tokens() -> int:
    """Placeholders of one test image."""
    return 4


class ScriptedModel(nnx.Module):
    """Its hidden state is (tokens fed so far, script number); its logits put all weight on the script's next
    token."""

    def __init__(self, scripts: np.ndarray):
        self.scripts = nnx.Param(jnp.asarray(scripts))
        self.dtype = jnp.float32
        text = TextConfig(
            vocab_size=RENDERER.vocabulary_size,
            hidden_size=2,
            intermediate_size=2,
            num_hidden_layers=1,
            num_attention_heads=1,
            num_key_value_heads=1,
            mrope_section=(1, 0, 0),
        )
        self.config = ModelConfig(text, VisionConfig(out_hidden_size=2), image_token_id=RENDERER.image_pad)

    def with_single_layers(self):
        return self

    def encode_images(self, vision: Any) -> jax.Array:
        rows, patches = vision.patches.shape[:2]
        return jnp.zeros((rows * patches // 4, 2))

    def extend(self, cache, token_ids, positions, num_new, features=None, feature_index=None):
        rows, width = token_ids.shape
        length = cache.tokens.shape[1]
        index = cache.lengths[:, None] + jnp.arange(width)[None, :]
        places = jnp.where(jnp.arange(width)[None, :] < num_new[:, None], index, length)
        tokens = cache.tokens.at[jnp.arange(rows)[:, None], places, 0, 0].set(token_ids.astype(float), mode="drop")
        marks = jnp.cumsum(tokens[:, :, 0, 0] == RENDERER.encode(MARK)[0], axis=1)
        script = jnp.take_along_axis(marks, jnp.minimum(index, length - 1), axis=1)
        hidden = jnp.stack([index + 1, script], axis=-1).astype(jnp.float32)
        return hidden, Recorded(tokens, cache.lengths + num_new)

    def logits(self, hidden):
        place, script = hidden[..., 0].astype(int), hidden[..., 1].astype(int)
        return 50.0 * jax.nn.one_hot(self.scripts[...][script, place], self.config.text.vocab_size)


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Recorded:
    """A cache whose only content is the tokens themselves."""

    tokens: jax.Array
    lengths: jax.Array


class SmallProcessor:
    """An image processor that makes every image 4 x 4 patches."""

    max_pixels = 56 * 56

    def __call__(self, image: Image.Image) -> ProcessedImage:
        return ProcessedImage(np.zeros((16, 6), np.uint8), (1, 4, 4))


def picture(shade: int = 0) -> bytes:
    """An encoded picture."""
    out = io.BytesIO()
    Image.new("RGB", (8, 8), (shade, 0, 0)).save(out, "PNG")
    return out.getvalue()


@dataclasses.dataclass
class Play:
    """A script: what the policy writes, turn by turn, for the question that holds `number` marks."""

    number: int
    texts: list[str]

    @property
    def question(self) -> str:
        return f"Where{MARK * self.number}?"


def hit(query: str) -> SearchReply:
    """What the fake search finds for a query."""
    return SearchReply((SearchResult("Peru", f"{query} is Lima."),), "text_search")


def rendered(play: Play, config: EpisodeConfig = CONFIG):
    """The SFT rendering of a play whose searches are answered by `hit`."""
    turns = []
    for text in play.texts:
        action = protocol.parse_turn(text).action
        user = None
        if isinstance(action, TextSearch):
            user = observe(config, RENDERER, action, hit(action.query).results)[1]
        turns.append((text, user))
    plain = config.plain
    make = protocol.direct_prompt if plain else protocol.first_turn_prompt
    return RENDERER.conversation(make(play.question, "short"), turns, [num_image_tokens()], plain=plain)


def engine(*plays: Play, config: EngineConfig = ENGINE_CONFIG, episode: EpisodeConfig = CONFIG) -> Engine:
    """An engine whose policy plays the given scripts."""
    scripts = np.zeros((max(play.number for play in plays) + 1, config.max_length + 1), np.int32)
    for play in plays:
        ids = rendered(play, episode).token_ids
        scripts[play.number, : len(ids)] = ids
    cache = Recorded(jnp.zeros((config.num_slots, config.max_length, 1, 1)), jnp.zeros(config.num_slots, jnp.int32))
    return Engine.of(ScriptedModel(scripts), TOKENIZER, SmallProcessor(), config, cache=cache)  # type: ignore[arg-type]


class FakeTools:
    """Stands in for the tool client: answers by `hit`, after `delay_s`; queries named "broken" fail."""

    def __init__(self, delay_s: float = 0.0):
        self.delay_s, self.calls, self.in_flight, self.peak = delay_s, [], 0, 0

    async def text_search(self, query: str, top_k: int = 5, question: str = "") -> SearchReply:
        self.calls.append(query)
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        await asyncio.sleep(self.delay_s)
        self.in_flight -= 1
        if query == "broken":
            raise ToolFailed("HTTP 500")
        return hit(query)

    async def image_search(self, image: bytes, expression: str | None = None, top_k: int = 5) -> SearchReply:
        self.calls.append(("image", expression))
        return hit("image")

    async def close(self) -> None:
        self.calls = list(self.calls)
