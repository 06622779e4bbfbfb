"""`mmsearch export-hf`."""

from __future__ import annotations

import argparse

from mmsearch_jax.commands.command import Command
from mmsearch_jax.commands.import_hf import add_folders


def _add(parser: argparse.ArgumentParser) -> None:
    add_folders(parser)
    parser.add_argument("--replace", action="store_true", help="replace the policy that the directory to write holds")


def _run(options: argparse.Namespace) -> None:
    from mmsearch_jax.models.policies import export_hf

    export_hf(options.source, options.out, replace=options.replace)
    print(f"Hugging Face directory: {options.out}")


COMMAND = Command(
    "export-hf",
    "Converts a policy directory to a Hugging Face directory that transformers loads.",
    _run,
    ("mmsearch export-hf runs/quickstart/policies/grpo runs/exported",),
    _add,
    inputs=("source",),
)
