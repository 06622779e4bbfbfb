"""`mmsearch export-hf`."""

from __future__ import annotations

import argparse

from mmsearch_jax.commands.command import Command
from mmsearch_jax.commands.import_hf import add_folders


def _run(options: argparse.Namespace) -> None:
    from mmsearch_jax.models.policies import export_hf

    export_hf(options.source, options.out)
    print(f"Hugging Face directory: {options.out}")


COMMAND = Command(
    "export-hf",
    "Converts a policy directory to a Hugging Face directory that transformers loads.",
    _run,
    ("mmsearch export-hf runs/quickstart/policies/grpo runs/exported",),
    add_folders,
    inputs=("source",),
)
