"""The only renderer of conversations to token ids, for SFT, rollout and evaluation.

It writes Qwen's chat markup and inserts control tokens by id. All text is encoded as plain text, so that no question and no web
page can inject a control token. It supports byte-level BPE tokenizers (also wrapped in a transformers fast tokenizer), does not
depend on models or tools, and imports neither JAX nor transformers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import tokenizers

from mmsearch_jax.core import protocol
from mmsearch_jax.core.characters import whole_characters
from mmsearch_jax.core.errors import DataError
from mmsearch_jax.core.trajectory import OBSERVATION, PROMPT, SAMPLED

IM_START, IM_END, END_OF_TEXT = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
TEMPLATE = (
    "{%- for message in messages -%}"
    "{{ '<|im_start|>' + message.role + '\\n' }}"
    "{%- if message.content is string -%}{{ message.content }}"
    "{%- else -%}{%- for part in message.content -%}"
    "{%- if part.type == 'image' or part.type == 'image_url' -%}{{ '<|vision_start|><|image_pad|><|vision_end|>' }}"
    "{%- else -%}{{ part.text }}{%- endif -%}"
    "{%- endfor -%}{%- endif -%}"
    "{{ '<|im_end|>\\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"
)
"""What `ChatRenderer` renders, as a chat template in Jinja: Qwen's, without its default system message."""
VISION_START, VISION_END, IMAGE_PAD = "<|vision_start|>", "<|vision_end|>", "<|image_pad|>"


class Rendered(NamedTuple):
    """A whole conversation: token ids and the provenance of each (same length)."""

    token_ids: list[int]
    provenance: list[int]

    @property
    def loss_mask(self) -> list[bool]:
        """True on tokens that the policy writes."""
        return [source == SAMPLED for source in self.provenance]


class ChatRenderer:
    """Renders prompts, actions and observations with one tokenizer.

    Args:
      tokenizer: a `tokenizers.Tokenizer`, or a transformers fast tokenizer that wraps one.

    Raises:
      DataError: the tokenizer lacks a control token of the chat markup, or is not byte-level.
    """

    def __init__(self, tokenizer: Any):
        backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
        # A private copy: truncation or padding that a caller sets on a shared tokenizer must not affect the ids.
        self._tokenizer = tokenizers.Tokenizer.from_str(backend.to_str())
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self.im_start, self.im_end = self._control(IM_START), self._control(IM_END)
        self.vision_start, self.vision_end = self._control(VISION_START), self._control(VISION_END)
        self.image_pad = self._control(IMAGE_PAD)
        self.end_of_text = self._tokenizer.token_to_id(END_OF_TEXT)
        """The placeholder's id; None if the tokenizer has no such token."""
        added = {token.content: i for i, token in self._tokenizer.get_added_tokens_decoder().items()}
        names = (protocol.REASON, *protocol.ACTION_TAGS, protocol.INFORMATION, "img")
        own_tags = {f"<{slash}{name}>" for name in names for slash in ("", "/")}
        self._controls = {content: i for content, i in added.items() if content not in own_tags}
        spellings = sorted(self._controls, key=len, reverse=True)
        self._spelling = re.compile("|".join(map(re.escape, spellings)))
        self._newline = self.encode("\n")
        self._assistant = self.encode("assistant\n")
        self.token_bytes = self._byte_table(added)
        """The bytes of each id; b"" for control tokens and unused ids."""

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Control tokens that the policy may sample and that end its turn."""
        return tuple(i for i in (self.im_end, self.end_of_text) if i is not None)

    @property
    def vocabulary_size(self) -> int:
        """Number of ids in the tokenizer (a model's vocabulary may be larger)."""
        return len(self.token_bytes)

    def encode(self, text: str) -> list[int]:
        """Encodes plain text; the spelling of a control token in it becomes ordinary tokens, a half character U+FFFD."""
        text = whole_characters(text)
        ids: list[int] = []
        start = 0
        while (match := self._spelling.search(text, start)) is not None and len(match[0]) > 1:
            # Split inside the spelling: neither half can match the control token.
            cut = match.start() + 1
            ids += self._tokenizer.encode(text[start:cut], add_special_tokens=False).ids
            start = cut
        return ids + self._tokenizer.encode(text[start:], add_special_tokens=False).ids

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of the ids, including control tokens. It serves parsing and display and must never be encoded again."""
        return self._tokenizer.decode(list(token_ids), skip_special_tokens=False)

    def prompt_ids(self, text: str, image_token_counts: Sequence[int] = (), system: str | None = None) -> list[int]:
        """The conversation up to the start of the assistant's message: first the images, then `text`.

        Args:
          image_token_counts: number of merged patches (placeholder tokens) of each image.
        """
        return self._system_message(system) + self._user_message([*image_token_counts, text])

    def dialogue_ids(self, messages: Sequence[Sequence[str | int]], system: str | None = None) -> list[int]:
        """A free dialogue up to the start of the assistant's next message, equal to `conversation(..., plain=True)` where the
        images of each message come first.

        Args:
          messages: the user's and the assistant's in turn. Each lists its parts in order: a text, or an image's number of
            merged patches.
        """
        ids = self._system_message(system)
        for place, parts in enumerate(messages):
            if place % 2:
                text = "".join(part for part in parts if isinstance(part, str))
                ids += [*self.action_ids(text, plain=True), *self._newline]
            else:
                ids += self._user_message(parts)
        return ids

    def observation_ids(self, text: str, image_token_counts: Sequence[int] = (), *, closed: bool = False) -> list[int]:
        """The tokens between two turns: closes the assistant's message, adds a user message with images and `text`, and opens
        the next assistant's message.

        Args:
          image_token_counts: as in `prompt_ids`.
          closed: the assistant's message was already closed by a sampled <|im_end|>.
        """
        close = [] if closed else [self.im_end]
        return [*close, *self._newline, *self._user_message([*image_token_counts, text])]

    def action_ids(self, text: str, *, plain: bool = False) -> list[int]:
        """The ids that the policy writes. In the plain answer format (no tags) they include <|im_end|>."""
        return [*self.encode(text), self.im_end] if plain else self.encode(text)

    def conversation(
        self,
        prompt: str,
        turns: Sequence[tuple[str, str | None]],
        image_token_counts: Sequence[int] = (),
        *,
        later_image_token_counts: Mapping[int, Sequence[int]] = MappingProxyType({}),
        system: str | None = None,
        plain: bool = False,
    ) -> Rendered:
        """A whole conversation, identical to what rollout would assemble.

        Args:
          prompt: the first user text (`protocol.first_turn_prompt(...)`), which follows the images.
          turns: the assistant's text and the user text that follows (`observation + later_prompt`; None at the end of the
            conversation).
          image_token_counts: of the images before the prompt (see `prompt_ids`).
          later_image_token_counts: by turn, from 0: of the images that its observation shows before its text.
          plain: free dialogue instead of tags: every assistant text ends with a trained <|im_end|>.

        Raises:
          DataError: a turn before the last has no observation, or images belong to no observation.
        """
        for i in later_image_token_counts:
            if not 0 <= i < len(turns) or turns[i][1] is None:
                raise DataError(f"images are given for turn {i} (from 0) of {len(turns)}, which has no observation")
        ids = self.prompt_ids(prompt, image_token_counts, system)
        provenance = [PROMPT] * len(ids)
        for i, (text, observation) in enumerate(turns):
            action = self.action_ids(text, plain=plain)
            ids += action
            provenance += [SAMPLED] * len(action)
            if observation is not None:
                more = self.observation_ids(observation, later_image_token_counts.get(i, ()), closed=plain)
                ids += more
                provenance += [OBSERVATION] * len(more)
            elif i + 1 < len(turns):
                raise DataError(f"turn {i + 1} of {len(turns)} has no observation: only the last turn may lack one")
        return Rendered(ids, provenance)

    def _system_message(self, system: str | None) -> list[int]:
        return [self.im_start, *self.encode(f"system\n{system}"), self.im_end, *self._newline] if system else []

    def _user_message(self, parts: Sequence[str | int]) -> list[int]:
        body: list[int] = []
        # Texts that meet are encoded as one, as in a template.
        text = "user\n"
        for part in parts:
            if isinstance(part, str):
                text += part
                continue
            body += [*self.encode(text), self.vision_start, *[self.image_pad] * part, self.vision_end]
            text = ""
        body += self.encode(text)
        return [self.im_start, *body, self.im_end, *self._newline, self.im_start, *self._assistant]

    def _control(self, token: str) -> int:
        token_id = self._tokenizer.token_to_id(token)
        if token_id is None:
            raise DataError(f"the tokenizer has no {token} token: use the tokenizer of a Qwen2.5-VL checkpoint")
        return token_id

    def _byte_table(self, added: dict[str, int]) -> list[bytes]:
        vocabulary = self._tokenizer.get_vocab(with_added_tokens=True)
        table = [b""] * (max(vocabulary.values()) + 1)
        to_byte = _byte_level_alphabet()
        for token, token_id in vocabulary.items():
            if token in self._controls:
                continue
            if token in added:
                table[token_id] = token.encode()
            elif all(character in to_byte for character in token):
                table[token_id] = bytes(to_byte[character] for character in token)
            else:
                raise DataError(f"the tokenizer is not byte-level BPE (token {token_id} is {token!r})")
        return table


def _byte_level_alphabet() -> dict[str, int]:
    """The printable characters that byte-level BPE uses for bytes: printable Latin-1 characters represent themselves, and the
    other bytes are numbered from U+0100."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + i): byte for i, byte in enumerate(others)}
