"""Qwen2.5-VL's chat format as a Jinja template, and conversations to render with it and with our renderer.

The template follows the published format: a default system message if the conversation has none, each message between
<|im_start|>role and <|im_end|>, each image as one placeholder between its vision markup, and an open assistant message
at the end if one is to be generated.
"""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedTokenizerFast

SYSTEM = "You are a helpful assistant."
TEMPLATE = (
    "{%- if messages[0].role != 'system' -%}{{ '<|im_start|>system\\n" + SYSTEM + "<|im_end|>\\n' }}{%- endif -%}"
    "{%- for message in messages -%}"
    "{{ '<|im_start|>' + message.role + '\\n' }}"
    "{%- if message.content is string -%}{{ message.content }}"
    "{%- else -%}{%- for part in message.content -%}"
    "{%- if part.type == 'image' -%}{{ '<|vision_start|><|image_pad|><|vision_end|>' }}"
    "{%- else -%}{{ part.text }}{%- endif -%}"
    "{%- endfor -%}{%- endif -%}"
    "{{ '<|im_end|>\\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"
)

LOOK = "<reason>I must look.</reason><text_search>capital of Peru</text_search>"
SEE = "<reason>The left one.</reason><img_search>the flag on the left</img_search>"
FINAL = "<reason>I know.</reason><answer>Lima</answer>"
FOUND = "<information>[1] Peru: Capital: Lima</information>\nSearch if needed."


@dataclasses.dataclass(frozen=True)
class Case:
    """A conversation: `images` before the prompt, `turns` of assistant and user texts, `later` images by turn."""

    prompt: str
    turns: Sequence[tuple[str, str | None]] = ()
    images: Sequence[int] = ()
    later: dict[int, Sequence[int]] = dataclasses.field(default_factory=dict)
    system: str | None = None

    def messages(self) -> list[dict[str, Any]]:
        """The conversation as `apply_chat_template` takes it."""
        opening = [{"role": "system", "content": self.system}] if self.system else []
        made = [*opening, {"role": "user", "content": _content(self.images, self.prompt)}]
        for i, (text, observation) in enumerate(self.turns):
            made.append({"role": "assistant", "content": text})
            if observation is not None:
                made.append({"role": "user", "content": _content(self.later.get(i, ()), observation)})
        return made

    def image_sizes(self) -> list[int]:
        """Tokens of every image, in order."""
        return [*self.images, *(size for i in sorted(self.later) for size in self.later[i])]


CASES = {
    "text only": Case("What is the capital of Peru?"),
    "text only, answered": Case("What is the capital of Peru?", [(FINAL, None)]),
    "a system message": Case("What?", [(FINAL, None)], system="Be brief.\nSay nothing else."),
    "one image": Case("What is it?", [(FINAL, None)], [6]),
    "several images": Case("Which is older?", [(FINAL, None)], [6, 1, 12]),
    "several turns": Case("What?", [(LOOK, FOUND), (LOOK, FOUND), (FINAL, None)], [4]),
    "an image in a later turn": Case("What?", [(SEE, FOUND), (FINAL, None)], [4], {0: [9]}),
    "images in every turn": Case("What?", [(SEE, FOUND), (SEE, FOUND), (FINAL, None)], [4, 2], {0: [9, 3], 1: [1]}),
    "images in later turns only": Case("What?", [(SEE, FOUND), (SEE, FOUND), (FINAL, None)], (), {1: [3, 3]}),
    "a turn to be written": Case("What?", [(SEE, FOUND)], [4], {0: [2]}),
    "difficult text": Case("  Où est 北京?\n\n", [(LOOK, "\n\n 42\t<b>é</b> 🇵🇪 "), (FINAL, None)], [2]),
}


def reference_ids(tokenizer: Any, case: Case, template: str = TEMPLATE) -> list[int]:
    """The token ids of a template's text, with control tokens and one placeholder per merged patch."""
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    fast.chat_template = template
    to_be_written = not case.turns or case.turns[-1][1] is not None
    text = fast.apply_chat_template(case.messages(), tokenize=False, add_generation_prompt=to_be_written)
    assert isinstance(text, str)
    sizes = iter(case.image_sizes())
    text = re.sub(r"<\|image_pad\|>", lambda match: match[0] * next(sizes), text)
    assert next(sizes, None) is None, "the template shows fewer images than the case has"
    return tokenizer.encode(text, add_special_tokens=False).ids


def rendered_ids(renderer: Any, case: Case, system: str | None = SYSTEM) -> list[int]:
    """Our renderer's ids, closed as the template closes a finished conversation."""
    made = renderer.conversation(
        case.prompt, case.turns, case.images, later_image_token_counts=case.later, system=case.system or system
    )
    finished = case.turns and case.turns[-1][1] is None
    return [*made.token_ids, *([renderer.im_end, *renderer.encode("\n")] if finished else [])]


def _content(images: Sequence[int], text: str) -> Any:
    return [*({"type": "image"} for _ in images), {"type": "text", "text": text}] if images else text
