"""Settings of sampling: the engine's sizes, the rules of an episode, the search server."""

from __future__ import annotations

import dataclasses
import os

from mmsearch_jax.core import protocol
from mmsearch_jax.core.settings import Section, SettingError, VariableNotSet, setting

MODES = ("policy", "prompted", "direct", "rag")


@dataclasses.dataclass(frozen=True)
class EngineConfig(Section):
    """Sizes of the engine. Each combination of buckets that is used compiles one program, once."""

    num_slots: int = setting(
        64,
        "sequences of one engine that hold a cache at the same time, whether they decode or wait for a tool",
        at_least=1,
    )
    decode_width: int = setting(
        0,
        "sequences that decode at the same time; 0: all that hold a slot. With more slots than that, sequences that wait for a "
        "tool keep their caches while others decode",
        at_least=0,
    )
    max_length: int = setting(
        0, "tokens per slot, at least episode.max_trajectory_tokens; 0: exactly that many", at_least=0
    )
    extend_rows: tuple[int, ...] = setting(
        (1, 8), "row counts of an extend call; the smallest that fits is used", at_least=1
    )
    extend_buckets: tuple[int, ...] = setting(
        (256, 1024, 2048),
        "new tokens of an extend call; longer inputs are split into pieces of the largest",
        at_least=1,
    )
    extend_calls: int = setting(
        4, "extend calls between two decode calls, so that long prompts do not delay decoding; 0: no limit", at_least=0
    )
    decode_rows: tuple[int, ...] = setting(
        (16,), "row counts of a decode call in addition to the full width, for when few slots are live", at_least=1
    )
    length_buckets: tuple[int, ...] = setting(
        (2048, 4096, 8192),
        "cache lengths that are read, in addition to max_length: short sequences read a short cache",
        at_least=1,
    )
    patch_buckets: tuple[int, ...] = setting(
        (),
        "patches per row of the vision tower's input; larger images use steps of a quarter of a power of two",
        at_least=1,
    )
    decode_steps: int = setting(16, "tokens per row before the device returns to the host", at_least=1)
    top_logprobs: int = setting(
        0,
        "most probable tokens whose log-probs a decode step can return, for `top_logprobs` of `mmsearch serve`; computed "
        "only while a reply asks for them",
        at_least=0,
        at_most=20,
    )
    image_cache: int = setting(512, "images whose patches and features are kept on the host", at_least=0)
    tensor: int = setting(
        1, "chips over which an engine's weights and caches are split (tensor parallelism)", at_least=1
    )
    groups: int = setting(
        0,
        "engines of a process, each with weights and slots on `tensor` chips of its own; 0: as many as the host's chips allow",
        at_least=0,
    )

    def check(self) -> None:
        if self.decode_width > self.num_slots:
            raise SettingError(
                "decode_width", f"is {self.decode_width}, must be between 0 (all) and num_slots ({self.num_slots})"
            )
        for name in ("extend_rows", "extend_buckets"):
            if not getattr(self, name):
                raise SettingError(name, "is empty: give at least one size")

    @property
    def width(self) -> int:
        """Sequences that decode at the same time."""
        return self.decode_width or self.num_slots

    def groups_on(self, num_devices: int) -> int:
        """Number of engines of a process that has so many devices; 0 if they are too few for one."""
        return self.groups or num_devices // self.tensor

    @property
    def lengths(self) -> tuple[int, ...]:
        """Cache lengths that are read, the shortest first."""
        return tuple(sorted({*(each for each in self.length_buckets if each < self.max_length), self.max_length}))


@dataclasses.dataclass(frozen=True)
class EpisodeConfig(Section):
    """Rules of an episode. Every limit is a number of tokens or calls; "trajectory" includes prompt and observations."""

    mode: str = setting(
        "policy",
        "policy and prompted run the tool loop (they differ in the checkpoint and, usually, in prompt_style); direct asks for "
        "a plain answer; rag always does a whole-image search, then a text search, then asks for a plain answer",
        one_of=MODES,
    )
    prompt_style: str = setting("paper", "wording of the prompts", one_of=protocol.PROMPT_STYLES)
    max_tool_calls: int = setting(
        10,
        "turns that need not answer; refused calls and corrected turns count. One more turn follows, which must answer",
        at_least=0,
    )
    max_image_searches: int = setting(1, "image searches; a further call gives an observation that says so", at_least=0)
    max_text_searches: int = setting(10, "text searches; a further call gives an observation that says so", at_least=0)
    max_turn_tokens: int = setting(1024, "tokens of one turn", at_least=1)
    max_trajectory_tokens: int = setting(
        12288, "tokens of the whole trajectory, including prompt and observations", at_least=1
    )
    observation_max_tokens: int = setting(
        1024, "tokens to which an observation's content is cut; its tag is always closed", at_least=1
    )
    top_k_text: int = setting(5, "results of a text search", at_least=1)
    top_k_image: int = setting(5, "results of an image search", at_least=1)
    on_invalid: str = setting(
        "end",
        "end the episode at a turn outside the grammar, or correct it by an observation",
        one_of=("end", "correct"),
    )
    say_last_turn: bool = setting(True, "whether the last observation says that the next turn must answer")
    allow_text: bool = setting(True, "offer text search; a call of a tool that is not offered is refused with a note")
    allow_image: bool = setting(True, "offer image search")
    allow_crop: bool = setting(
        True, "false converts a search with a crop to one with the whole image (ablation of crops)"
    )

    @property
    def plain(self) -> bool:
        """Whether the policy answers in plain text, closed by <|im_end|>, instead of tags."""
        return self.mode in ("direct", "rag")


@dataclasses.dataclass(frozen=True)
class ToolsConfig(Section):
    """The search server that episodes call."""

    url: str = setting(
        "http://127.0.0.1:8765",
        "address of the search server, or several separated by commas; empty: one is started over the mini-world's corpus",
    )
    deadline_s: float = setting(60.0, "seconds for one call, including retries", above=0)
    max_concurrency: int = setting(32, "calls in progress at the same time", at_least=1)
    token_env: str = setting("", "environment variable with the token that the server requires; empty: none")

    def check(self) -> None:
        for url in filter(None, (each.strip() for each in self.url.split(","))):
            if not url.startswith(("http://", "https://")):
                raise SettingError("url", f"names '{url}': give an address such as http://localhost:8765")

    def check_ready(self) -> None:
        if self.token_env and not os.environ.get(self.token_env):
            raise VariableNotSet("token_env", self.token_env)
