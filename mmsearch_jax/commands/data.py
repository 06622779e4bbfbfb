"""`mmsearch data ...`: converts, exports, validates, counts and shows rows. Loads no JAX."""

from __future__ import annotations

import argparse
import collections
import dataclasses
import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from mmsearch_jax.commands.command import Command
from mmsearch_jax.core.command_line import Parser
from mmsearch_jax.core.errors import DataError
from mmsearch_jax.core.protocol import PROMPT_STYLES

if TYPE_CHECKING:
    import tqdm

    from mmsearch_jax.data.convert.conversion import Counts

T = TypeVar("T")
CACHE_SOURCE = "fvqa-cache"
_SHOWN_PROBLEMS = 20
_EPILOG = """\
examples:
  mmsearch data convert --from csv questions.csv runs/data/mine.array_record
  mmsearch data convert mmsearch-r1 fvqa_train.parquet runs/data/fvqa.array_record
  mmsearch data convert sharegpt conversations.json runs/data/sft.array_record --images pictures
  mmsearch data convert infoseek downloads/infoseek runs/data/infoseek.array_record --split val
  mmsearch data convert fvqa downloads/fvqa runs/tfds --tfds
  mmsearch data convert rows runs/data/sft.array_record runs/data/sft.parquet
  mmsearch data export verl runs/data/sft.array_record train.parquet
  mmsearch data export sharegpt runs/data/sft.array_record llamafactory/set.json
  mmsearch data convert fvqa-cache image_search.pkl runs/data/cache.jsonl
  mmsearch data validate runs/data/sft.array_record
  mmsearch data stats runs/data/sft.array_record
  mmsearch data overlap runs/data/sft.array_record runs/data/infoseek.array_record
  mmsearch data inspect runs/data/sft.array_record --rows 50 -o rows.html

A file's extension gives its format: .jsonl, .array_record (for training), .parquet, .tar."""


class _SourceFirst(Parser):
    """Reads `--from SOURCE` as the first positional argument, which argparse cannot make optional."""

    def parse_known_args(self, args=None, namespace=None):
        args = list(args or ())
        for i, argument in enumerate(args):
            if argument == "--from" and i + 1 < len(args):
                args = [args[i + 1], *args[:i], *args[i + 2 :]]
                break
            if argument.startswith("--from="):
                args = [argument.removeprefix("--from="), *args[:i], *args[i + 1 :]]
                break
        return super().parse_known_args(args, namespace)


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Adds the subcommands; each sets `run_data`."""
    command.epilog = _EPILOG
    actions = command.add_subparsers(dest="action", required=True, metavar="ACTION", parser_class=_SourceFirst)

    def add(name: str, run, text: str) -> argparse.ArgumentParser:
        action = actions.add_parser(name, help=text.splitlines()[0].rstrip("."), description=text)
        action.set_defaults(run_data=run)
        return action

    convert = add("convert", _convert, "Converts other projects' data to rows.\nBad records go to rejected-OUT.jsonl.")
    convert.add_argument(
        "source",
        help="for a file: csv (your own questions), mmsearch-r1, search-r1, verl, sharegpt, rows (our own), fvqa-cache; "
        "for a folder: deepmmsearchvqa, fvqa, infoseek, encyclopedic-vqa, simplevqa, dynvqa, okvqa, a-okvqa; or --from SOURCE",
    )
    convert.add_argument("path", type=Path, help="file to read, or a published set's folder")
    convert.add_argument("out", type=Path, help="file to write (with --tfds: folder)")
    convert.add_argument("--split", help="split of a published set")
    convert.add_argument(
        "--tfds", action="store_true", help="prepare all splits of a published set as a TFDS data set below OUT"
    )
    convert.add_argument("--images", type=Path, help="folder of the images (default: that of the file)")
    convert.add_argument("--no-embed", action="store_true", help="keep references, and do not check the images")
    export = add(
        "export",
        _export,
        "Writes rows in another project's layout.\nRows that the layout cannot represent go to rejected-OUT.jsonl.",
    )
    export.add_argument("form", metavar="layout", help="sharegpt (LLaMA-Factory), verl, mmsearch-r1, search-r1")
    export.add_argument("path", type=Path, help="file of rows, or folder with rows.jsonl")
    export.add_argument("out", type=Path, help="file to write: .json or .jsonl for sharegpt, else .parquet")
    export.add_argument(
        "--prompt-style",
        choices=PROMPT_STYLES,
        default=PROMPT_STYLES[0],
        help="style of the prompts in sharegpt's conversations (default: %(default)s)",
    )
    validate = add("validate", _validate, "Checks every row; reports file, row, field and reason of each error.")
    validate.add_argument(
        "--images", action="store_true", help="also read and decode the images, as a policy does (slow)"
    )
    add("stats", _stats, "Counts rows by source, kind, category, turns and images.")
    overlap = add(
        "overlap", _overlap, "Finds evaluation images and questions in a training set.\nLists every pair in a file."
    )
    overlap.add_argument("train", type=Path, help="file of training rows")
    overlap.add_argument("evaluation", type=Path, help="file of evaluation rows")
    overlap.add_argument(
        "--max-distance",
        type=int,
        default=4,
        metavar="BITS",
        help="image hashes (64 bits) that differ in at most this many bits are near-duplicates (default: %(default)s)",
    )
    overlap.add_argument(
        "--min-similarity",
        type=float,
        default=0.8,
        metavar="SHARE",
        help="questions with this share of common words are the same (default: %(default)s)",
    )
    overlap.add_argument(
        "-o", "--out", type=Path, default=Path("overlap.jsonl"), help="file to write (default: overlap.jsonl)"
    )
    inspect = add("inspect", _inspect, "Shows rows with their images as one HTML page.")
    inspect.add_argument(
        "--rows", type=int, default=50, metavar="N", help="number of rows to show (default: %(default)s)"
    )
    inspect.add_argument("--skip", type=int, default=0, metavar="N", help="number of rows to skip first")
    inspect.add_argument("-o", "--out", type=Path, default=Path("rows.html"), help="file to write (default: rows.html)")
    for action in (validate, actions.choices["stats"], inspect):
        action.add_argument("path", type=Path, help="file of rows, or folder with rows.jsonl")


def run(options: argparse.Namespace) -> None:
    """Runs the chosen subcommand.

    Raises:
      DataError: a file cannot be read, or (`validate`) contains bad rows.
    """
    options.run_data(options)


def _check_arguments(options: argparse.Namespace) -> None:
    if options.action == "convert" and options.source != CACHE_SOURCE:
        from mmsearch_jax.data.convert.conversion import require_source

        require_source(options.source)


def _convert(options: argparse.Namespace) -> None:
    from mmsearch_jax.data.convert import conversion

    if options.tfds:
        _prepare(options)
        return
    if options.source == CACHE_SOURCE:
        counts = conversion.convert_cache(options.path, options.out)
    else:
        counts = conversion.convert(
            options.source,
            options.path,
            options.out,
            split=options.split,
            images=options.images,
            embed=not options.no_embed,
        )
    _print_counts(counts, options.out, conversion.rejected_file(options.out))


def _export(options: argparse.Namespace) -> None:
    from mmsearch_jax.data.convert.conversion import rejected_file
    from mmsearch_jax.data.convert.export import export

    counts = export(options.form, options.path, options.out, prompt_style=options.prompt_style)
    _print_counts(counts, options.out, rejected_file(options.out))


def _prepare(options: argparse.Namespace) -> None:
    from mmsearch_jax.data import tfds_builders

    if options.split or options.images or options.no_embed:
        raise DataError("--tfds prepares all splits with their images: remove --split, --images and --no-embed")
    prepared = tfds_builders.prepare(options.source, options.path, options.out)
    if not prepared.counts:
        print(f"{prepared.folder} already exists: remove it to build it again")
    for split, counts in prepared.counts.items():
        print(f"{split}: ", end="")
        _print_counts(counts, prepared.folder, tfds_builders.rejected_file(options.source, split, options.out))


def _print_counts(counts: Counts, out: Path, rejected: Path) -> None:
    print(f"{counts.read} read, {counts.written} written to {out}, {counts.rejected.total()} rejected")
    for reason, number in counts.rejected.most_common():
        print(f"  {number:>8} {reason}")
    if counts.rejected:
        print(f"each with its row and reason: {rejected}")


def _validate(options: argparse.Namespace) -> None:
    from mmsearch_jax.data.storage import scan_rows
    from mmsearch_jax.data.usable import why_unusable

    seen: dict[str, int] = {}
    rows = bad = 0
    scanned = _progress(scan_rows(options.path), "validate")
    for number, row in scanned:
        rows += 1
        problem = str(row) if isinstance(row, DataError) else None
        if not isinstance(row, DataError):
            if seen.setdefault(row.id, number) != number:
                problem = f"id: '{row.id}' is already used by row {seen[row.id]}"
            elif options.images:
                problem = why_unusable(row)
        if problem:
            bad += 1
            if bad <= _SHOWN_PROBLEMS:
                scanned.write(f"row {number}: {problem}")
    if bad or not rows:
        raise DataError(f"{options.path}: {bad} of {rows} rows are bad" if rows else f"{options.path} contains no rows")
    print(f"{options.path}: {rows} rows, all valid")


def _stats(options: argparse.Namespace) -> None:
    from mmsearch_jax.data.storage import stream_rows

    counts: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    rows = 0
    for row in _progress(stream_rows(options.path), "stats"):
        rows += 1
        search = {True: "yes", False: "no", None: "unknown"}[row.search_required]
        images = ["bytes" if isinstance(image, bytes) else "reference" for image in row.images] or ["none"]
        for name, value in (
            ("source", row.provenance.get("source", "")),
            ("kind", row.kind),
            ("category", row.category),
            ("search required", search),
            ("turns", str(len(row.turns))),
            ("answers", str(len(row.answers))),
            ("images", str(len(row.images))),
            ("first image", images[0]),
        ):
            counts[name][value or "(none)"] += 1
    print(f"{options.path}: {rows} rows")
    for name, values in counts.items():
        print(f"{name:<16} {_listed(values.most_common(12))}{' ...' if len(values) > 12 else ''}")


def _overlap(options: argparse.Namespace) -> None:
    from mmsearch_jax.data.formats import jsonl
    from mmsearch_jax.data.overlap import find_overlap
    from mmsearch_jax.data.storage import stream_rows

    if not 0 <= options.max_distance < 64 or not 0 < options.min_similarity <= 1:
        raise DataError("--max-distance must be in [0, 63] and --min-similarity in (0, 1]")
    report = find_overlap(
        _progress(stream_rows(options.train), "train"),
        _progress(stream_rows(options.evaluation), "evaluation"),
        options.max_distance,
        options.min_similarity,
    )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    jsonl.write(map(dataclasses.asdict, report.pairs), options.out)
    for what, pairs in (
        ("share an image", [pair for pair in report.pairs if pair.image_distance is not None]),
        (
            "ask the same question (about the same image, or without an image)",
            [p for p in report.pairs if p.same_question],
        ),
    ):
        train, evaluation = {pair.train_id for pair in pairs}, {pair.eval_id for pair in pairs}
        print(
            f"{len(train)} of {report.train_rows} training rows {what} with "
            f"{len(evaluation)} of {report.eval_rows} evaluation rows"
        )
    print(f"{report.unreadable} images could not be read; every pair: {options.out}")


def _progress(items: Iterable[T], what: str) -> tqdm.tqdm[T]:
    # Imported here: `mmsearch check` imports this module in Pythons that lack it.
    import tqdm

    return tqdm.tqdm(items, desc=what, unit="row")


def _listed(values: Iterable[tuple[str, int]]) -> str:
    return ", ".join(f"{value} {count}" for value, count in values)


def _inspect(options: argparse.Namespace) -> None:
    from mmsearch_jax.data.storage import scan_rows
    from mmsearch_jax.report.rows_page import write_rows_page

    scanned = itertools.islice(scan_rows(options.path), options.skip, options.skip + options.rows)
    shown = write_rows_page(_progress(scanned, "inspect"), options.out, str(options.path))
    if not shown:
        raise DataError(f"{options.path} has no row after the first {options.skip}: give a smaller --skip")
    print(f"{shown} rows: {options.out}")


COMMAND = Command(
    "data",
    "Converts, validates, counts and shows rows.\nSources: MMSearch-R1, Search-R1, verl, ShareGPT.",
    run,
    ("mmsearch data convert mmsearch-r1 fvqa_train.parquet fvqa.array_record",),
    add_arguments,
    inputs=("path", "train", "evaluation"),
    check_arguments=_check_arguments,
)
