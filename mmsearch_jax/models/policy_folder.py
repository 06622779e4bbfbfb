"""The files of a policy's folder: where its weights come from, and how a new policy takes the place of an old one.

One rule serves reading and writing: a folder holds its weights in one layout. Two layouts are an error, never a choice, and
whoever writes a policy removes what an older one left, so that a folder reads as the policy that was written last.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from mmsearch_jax.core.buckets import is_address
from mmsearch_jax.core.errors import CheckpointError
from mmsearch_jax.core.hub import missing_checkpoint
from mmsearch_jax.core.json_files import json_object

PARAMS, SINGLE, INDEX = "params", "model.safetensors", "model.safetensors.index.json"
CONFIG, GENERATION_CONFIG, MIXED_DTYPES = "config.json", "generation_config.json", "mixed_dtypes.json"
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
SIDE_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
    "chat_template.json",
    "chat_template.jinja",
    GENERATION_CONFIG,
)
"""The tokenizer's and the processor's files of a checkpoint, and its defaults for generation."""
_FOREIGN = (
    "*.safetensors",
    "*.safetensors.index.json",
    "pytorch_model*.bin",
    "pytorch_model.bin.index.json",
    "adapter_model.*",
)


def weights_layout(folder: Path) -> str:
    """Which of `PARAMS`, `SINGLE`, `INDEX` and `ADAPTER_CONFIG` the folder's weights are in; "" if it has none.

    Raises:
      CheckpointError: weights in several layouts, of which the rest may be those of another policy.
    """
    found = _held(folder)
    if INDEX in found and SINGLE in found and SINGLE in shards(folder):
        found.remove(SINGLE)
    if len(found) > 1:
        raise CheckpointError(
            f"{folder} holds weights in {len(found)} layouts ({', '.join(found)}), perhaps of different policies: remove "
            "all but one"
        )
    return found[0] if found else ""


def shards(folder: Path) -> set[str]:
    """The names of the files that the folder's index lists.

    Raises:
      CheckpointError: the index is damaged.
    """
    try:
        return set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{folder / INDEX} is damaged ({error}): download it again") from error


def base_of(adapter: Path, given: str = "") -> str:
    """The checkpoint that an adapter's updates belong to: `given`, or the one that its config names.

    Raises:
      CheckpointError: the config cannot be read, or there is no such directory here.
    """
    base = given or str(json_object(adapter / ADAPTER_CONFIG, CheckpointError).get("base_model_name_or_path") or "")
    if not base or not (is_address(base) or Path(base).is_dir()):
        raise CheckpointError(
            f"{adapter} is an adapter of '{base}', which is not a directory here: give it with --config.base=DIR "
            f"({missing_checkpoint(base)})"
        )
    return base


def refuse_used(out: Path) -> None:
    """Raises CheckpointError if `out` is a file, or a folder that holds weights."""
    if out.exists() and not out.is_dir():
        raise CheckpointError(f"{out} is a file: choose another folder")
    if held := dict.fromkeys([*_held(out), *_foreign(out)]):
        raise CheckpointError(f"{out} already holds a policy ({', '.join(held)}): choose another folder or remove it")


@contextlib.contextmanager
def replacing(out: Path, more: Iterable[str] = ()) -> Iterator[Path]:
    """Yields an empty folder to write a policy to. When the block ends, its files take the place of the policy in `out`.

    Weights and config.json of the old policy go in any case; other files of `out` stay. An error in the block leaves `out`
    as it was. Weights come last: a folder that was left in between has none, and is refused.

    Args:
      more: names of further files that go.

    Raises:
      CheckpointError: `out` is a file.
    """
    # A link keeps its place.
    out = out.resolve()
    if out.exists() and not out.is_dir():
        raise CheckpointError(f"{out} is a file: choose another folder")
    # An existing folder may be a file system of its own, to which nothing can be renamed from beside it.
    place = out if out.exists() else out.parent
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=place) as work:
        draft, old = Path(work) / "new", Path(work) / "old"
        draft.mkdir()
        yield draft
        if not out.exists():
            draft.rename(out)
            return
        old.mkdir()
        for name in (*_weight_files(out), CONFIG, *more):
            if (out / name).exists() or (out / name).is_symlink():
                os.rename(out / name, old / name)
        for path in sorted(draft.iterdir(), key=lambda path: path.name in (PARAMS, SINGLE, INDEX, ADAPTER_WEIGHTS)):
            os.replace(path, out / path.name)


def _held(folder: Path) -> list[str]:
    return [name for name in (PARAMS, INDEX, SINGLE, ADAPTER_CONFIG) if (folder / name).exists()]


def _foreign(folder: Path) -> list[str]:
    """The weight files that other programs may read: vLLM every safetensors file, transformers a lone pytorch_model.bin."""
    return sorted({path.name for pattern in _FOREIGN for path in folder.glob(pattern)})


def _weight_files(folder: Path) -> list[str]:
    """Everything in a folder that is a policy's or an adapter's weights, weights that index files name first."""
    names = [PARAMS, SINGLE, INDEX, MIXED_DTYPES, ADAPTER_CONFIG, ADAPTER_WEIGHTS, *_foreign(folder)]
    if (folder / INDEX).is_file():
        with contextlib.suppress(CheckpointError):  # a damaged index names nothing; it goes all the same
            names = [name for name in sorted(shards(folder)) if Path(name).name == name] + names
    return list(dict.fromkeys(names))
