"""`mmsearch ask`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from mmsearch_jax.commands.command import Command
from mmsearch_jax.core.errors import ConfigError, ToolFailed
from mmsearch_jax.core.settings import Section


def _settings() -> type[Section]:
    from mmsearch_jax.settings.commands import EvaluationSettings

    return EvaluationSettings


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    # Optional for the parser, so that --print-config works without them.
    parser.add_argument("image", nargs="?", default="", help="image file, or its URL")
    parser.add_argument("question", nargs="?", default="", help="what to ask")
    parser.add_argument("--json", action="store_true", help="print the trajectory as one JSON object instead")


def _check_arguments(options: argparse.Namespace) -> None:
    if not options.question:
        raise ConfigError("mmsearch ask needs an image and a question")
    if Path(options.image).is_file():
        from mmsearch_jax.core.pictures import decode_picture

        decode_picture(options.image, options.image)


def _run(options: argparse.Namespace) -> None:
    _check_arguments(options)
    from mmsearch_jax.jobs.ask import read_image_argument, run_ask

    # Checked before anything slow starts.
    encoded = read_image_argument(options.image)
    if options.json:
        trajectory = run_ask(options.settings, options.workdir, encoded, options.question)
        print(json.dumps({"question": options.question, "image": options.image, **trajectory.to_json()}))
    else:
        from mmsearch_jax.evaluation.ask import EpisodePrinter
        from mmsearch_jax.images.processing import load_image

        printer = EpisodePrinter(image=load_image(encoded), crops=options.workdir / "crops")
        trajectory = run_ask(options.settings, options.workdir, encoded, options.question, printer)
    if trajectory.infrastructure_failure:
        raise ToolFailed(trajectory.error or f"the episode ended with status {trajectory.status}")


COMMAND = Command(
    "ask",
    "Asks one question about one image and prints the episode as it goes; crops are saved to WORKDIR/crops.\n"
    "Searches the real mini-world, or the server named by --config.tools.url.",
    _run,
    (
        'mmsearch ask photo.jpg "What is the capital of the country of the flag on the left?" \\\n'
        "      --config.checkpoint=runs/grpo/policies/grpo",
        'mmsearch ask photo.jpg "What is this?" --json',
    ),
    _add_arguments,
    _settings,
    config="eval/miniworld.py",
    workdir=True,
    inputs=("image",),
    check_arguments=_check_arguments,
)
