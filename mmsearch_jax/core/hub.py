"""What to say of a checkpoint that is not on this machine: nothing is downloaded, but the command that does is named."""

from __future__ import annotations

import re
from pathlib import Path

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_PUBLISHED = re.compile(r"Qwen2\.5-VL-\d+B-Instruct")


def missing_checkpoint(folder: str | Path) -> str:
    """The message about a checkpoint folder that does not exist.

    A name such as "Qwen/Qwen2.5-VL-7B-Instruct", or a path that ends with the name of a published model, also gets the
    `hf download` line.

    >>> missing_checkpoint("Qwen/Qwen2.5-VL-7B-Instruct")  # doctest: +ELLIPSIS
    'no checkpoint at Qwen/Qwen2.5-VL-7B-Instruct: ... hf download Qwen/Qwen2.5-VL-7B-Instruct --local-dir ...'
    """
    path = Path(folder)
    if _PUBLISHED.fullmatch(path.name):
        model, target = f"Qwen/{path.name}", path.name if str(folder) == f"Qwen/{path.name}" else str(folder)
    elif _HUB_ID.fullmatch(str(folder)) and not path.parent.exists():
        model, target = str(folder), path.name
    else:
        return f"no checkpoint at {folder}: give the folder of a policy or of a Hugging Face model"
    return (
        f"no checkpoint at {folder}: models are read from folders, not from the Hub; fetch it with "
        f"`hf download {model} --local-dir {target}` and give that folder"
    )
