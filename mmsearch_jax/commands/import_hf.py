"""`mmsearch import-hf`."""

from __future__ import annotations

import argparse
from pathlib import Path

from mmsearch_jax.commands.command import Command


def add_folders(parser: argparse.ArgumentParser) -> None:
    """The arguments of import and export."""
    parser.add_argument("source", type=Path, help="directory to read")
    parser.add_argument("out", type=Path, help="directory to write")


def _check_arguments(options: argparse.Namespace) -> None:
    from mmsearch_jax.models.config import ModelConfig

    if options.source.is_dir():
        ModelConfig.from_pretrained(options.source)


def _run(options: argparse.Namespace) -> None:
    from mmsearch_jax.models.policies import import_hf

    import_hf(options.source, options.out)
    print(f"policy: {options.out}")


COMMAND = Command(
    "import-hf",
    "Converts a Hugging Face Qwen2.5-VL directory to our policy directory (Orbax).",
    _run,
    ("mmsearch import-hf assets/tiny-base runs/imported",),
    add_folders,
    inputs=("source",),
    check_arguments=_check_arguments,
)
