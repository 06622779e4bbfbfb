"""`mmsearch index ...`: builds indexes of your own corpus, describes them, and searches them. Loads no JAX."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from mmsearch_jax.commands.command import Command
from mmsearch_jax.core.errors import ConfigError, ToolFailed

if TYPE_CHECKING:
    from tools_server.corpora.embedders import EmbedderSpec
    from tools_server.corpora.manifest import Manifest
    from tools_server.hits import Hit

_EPILOG = """\
examples:
  mmsearch index build runs/wiki wiki-18.jsonl.gz
  mmsearch index build runs/wiki wiki-*.parquet --engine tantivy
  mmsearch index build runs/wiki wiki-18.jsonl.gz --dense models/all-MiniLM-L6-v2
  mmsearch index build runs/wiki wiki-18.jsonl.gz --dense http://localhost:8000/v1 --dense-model intfloat/e5-base-v2 \\
      --query-prefix 'query: ' --passage-prefix 'passage: '
  mmsearch index build-images runs/pictures photos/
  mmsearch index info runs/wiki
  mmsearch index search runs/wiki "who painted the ceiling"
  mmsearch serve-tools --corpus runs/wiki --config.local.pictures=runs/pictures

To resume an interrupted build, run the same command again."""


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Adds the subcommands; each sets `run_index`."""
    command.epilog = _EPILOG
    actions = command.add_subparsers(dest="action", required=True, metavar="ACTION")

    def add(name: str, run, text: str) -> argparse.ArgumentParser:
        action = actions.add_parser(name, help=text.splitlines()[0].rstrip("."), description=text)
        action.set_defaults(run_index=run)
        return action

    build = add("build", _build, "Builds an index of passages.\nThey have title and text, or Search-R1's contents.")
    build.add_argument("out", type=Path, help="folder to write")
    build.add_argument(
        "corpus", type=Path, nargs="+", help=".jsonl, .jsonl.gz or .parquet, or a folder with pages.jsonl"
    )
    build.add_argument(
        "--engine",
        default="fts5",
        metavar="NAME",
        help="fts5 (default), or tantivy (extra of that name): faster above about 500k passages",
    )
    build.add_argument("--max-words", type=int, default=200, help="longer pages are split (default: %(default)s)")
    dense = build.add_argument_group("vectors, searched in addition to the words (extra: dense)")
    dense.add_argument(
        "--dense",
        metavar="MODEL",
        default="",
        help="folder of a sentence model (model.onnx, tokenizer.json), or an endpoint's address up to /v1",
    )
    dense.add_argument("--dense-model", metavar="NAME", default="", help="the model's name at the endpoint")
    dense.add_argument(
        "--dense-key-env", metavar="NAME", default="", help="environment variable with the endpoint's key"
    )
    dense.add_argument("--query-prefix", metavar="TEXT", default="", help="text that the model needs before a query")
    dense.add_argument(
        "--passage-prefix", metavar="TEXT", default="", help="text that the model needs before a passage"
    )
    images = add("build-images", _build_images, "Builds an index of pictures.\nUnreadable ones are listed in a file.")
    images.add_argument("out", type=Path, help="folder to write")
    images.add_argument(
        "source", type=Path, help="folder of pictures, or JSON lines with file, title, description, url"
    )
    for action in (build, images):
        action.add_argument(
            "--exact-up-to",
            type=int,
            default=100_000,
            metavar="N",
            help="search more vectors than this through a graph, which misses some (default: %(default)s)",
        )
    info = add("info", _info, "Shows the contents of an index and how it was built.")
    info.add_argument("index", type=Path, help="folder of an index")
    from tools_server.extracts import MAX_SNIPPET_CHARS

    search = add("search", _search, "Searches an index of passages.\nPrints what the search server would serve.")
    search.add_argument("index", type=Path, help="folder of an index")
    search.add_argument("query")
    search.add_argument("--top-k", type=int, default=5, metavar="N", help="results (default: %(default)s)")
    search.add_argument("--by", default="", help="bm25, dense or both (default: both if the index has vectors)")
    search.add_argument(
        "--extract-chars",
        type=int,
        default=MAX_SNIPPET_CHARS,
        metavar="N",
        help="characters of a result, as the server's local.extract_chars; 0: whole passages (default: %(default)s)",
    )
    search.add_argument("--embedder", default="", help="folder or address of its embedder, if changed since the build")


def run(options: argparse.Namespace) -> None:
    """Runs the chosen subcommand.

    Raises:
      DataError: a file or an index cannot be used.
      ConfigError: an argument is wrong, or a library is not installed.
      ToolFailed: a search returned no answer.
    """
    options.run_index(options)


def _build(options: argparse.Namespace) -> None:
    from tools_server.corpora.passage_build import build_index

    manifest = build_index(
        options.out, options.corpus, options.engine, _embedder(options), options.max_words, options.exact_up_to
    )
    size = sum(manifest.files.values()) / 1e6
    print(
        f"{options.out}: {manifest.count:,} passages, {size:,.1f} MB. Try: mmsearch index search {options.out} 'QUERY'"
    )
    _tell_dropped(manifest)


def _embedder(options: argparse.Namespace) -> EmbedderSpec | None:
    from tools_server.corpora.embedders import EmbedderSpec

    if options.dense:
        # The full path of a folder is stored, because the server may run from another directory.
        where = options.dense if "://" in options.dense else str(Path(options.dense).absolute())
        return EmbedderSpec(
            where, options.dense_model, options.dense_key_env, options.query_prefix, options.passage_prefix
        )
    if options.dense_model or options.dense_key_env or options.query_prefix or options.passage_prefix:
        raise ConfigError("the model, key and prefixes belong to an embedder: name it with --dense")
    return None


def _build_images(options: argparse.Namespace) -> None:
    from tools_server.corpora.picture_build import REJECTED_FILE, build_picture_index

    manifest, rejected = build_picture_index(options.out, options.source, options.exact_up_to)
    print(f"{options.out}: {manifest.count:,} pictures, {sum(manifest.files.values()) / 1e6:,.1f} MB")
    if rejected:
        print(f"{rejected:,} could not be read; each with its reason: {options.out / REJECTED_FILE}")
    _tell_dropped(manifest)


def _tell_dropped(manifest: Manifest) -> None:
    if manifest.dropped_addresses:
        print(
            f"{manifest.dropped_addresses:,} addresses will not be shown in results: only http and https addresses "
            "without blanks are"
        )


def _info(options: argparse.Namespace) -> None:
    from tools_server.corpora.manifest import read_manifest

    manifest = read_manifest(options.index)
    print(f"{options.index}: {manifest.count:,} {manifest.kind}, built {manifest.built}, id {manifest.id}")
    for source in manifest.recipe["sources"]:
        print(f"{'source':<12} {source['path']} ({source['bytes']:,} bytes)")
    for name, value in {**manifest.recipe, **manifest.versions}.items():
        if name != "sources":
            print(f"{name:<12} {value}")
    if manifest.vectors is not None:
        how = "compared one by one" if manifest.vectors["exact"] else "searched through a graph"
        print(f"{'vectors':<12} {manifest.vectors['count']:,} of {manifest.vectors['dim']} dimensions, {how}")
    for name, size in manifest.files.items():
        print(f"{size:>16,} bytes  {name}")


def _search(options: argparse.Namespace) -> None:
    from tools_server.backends.local import as_result
    from tools_server.extracts import shown_result
    from tools_server.settings.answering import ServiceLimits

    if options.top_k < 1:
        raise ConfigError(f"--top-k is {options.top_k}, must be above 0")
    if options.extract_chars < 0:
        raise ConfigError(f"--extract-chars is {options.extract_chars}, must be 0 or more")
    query = " ".join(options.query.split())
    hits = asyncio.run(_hits(options))
    chars = options.extract_chars, ServiceLimits().max_snippet_chars
    for result in (shown_result(as_result(hit), query, *chars) for hit in hits):
        print(f"{result.score:9.4f}  {result.title}  {result.url or result.id}")
        print("           " + result.snippet.replace("\n", "\n           "))
    if not hits:
        print("nothing found")


async def _hits(options: argparse.Namespace) -> list[Hit]:
    from tools_server.corpora.open import open_index
    from tools_server.failures import SearchFailure

    index = open_index(options.index, options.by, options.embedder)
    try:
        return index.search(options.query, options.top_k, await index.embed(options.query))
    except SearchFailure as failure:
        raise ToolFailed(failure.message) from failure
    finally:
        await index.close()


COMMAND = Command(
    "index",
    "Builds and searches indexes of your own passages and pictures.\nFor serve-tools --corpus.",
    run,
    ("mmsearch index build runs/wiki wiki-18.jsonl.gz", "mmsearch serve-tools --corpus runs/wiki"),
    add_arguments,
    inputs=("corpus", "source", "index"),
    resumes="the last finished stage",
)
