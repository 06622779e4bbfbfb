"""`mmsearch cache ...`: exports and imports the search server's cached answers, and converts FVQA's recorded image searches."""

from __future__ import annotations

import argparse
import asyncio
import collections
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mmsearch_jax.commands.command import Command
from mmsearch_jax.core.errors import ConfigError, DataError

if TYPE_CHECKING:
    from tools_server.cache.store import CacheEntry, Store
    from tools_server.settings.server import ServerSettings

_KEPT = "kept"
_EPILOG = """\
examples:
  mmsearch cache stats --config.cache.path=runs/tools/cache.sqlite
  mmsearch cache export answers.jsonl --config configs/tools/serper.py
  mmsearch cache import answers.jsonl --config configs/tools/serper.py
  mmsearch cache import-fvqa fvqa_train_image_search_results_cache.pkl fvqa.array_record --config configs/tools/serper.py

--config is the server's: it names the store and, for import-fvqa, the backends whose answers are replaced."""


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Adds the subcommands; each sets `run_cache`."""
    command.epilog = _EPILOG
    actions = command.add_subparsers(dest="action", required=True, metavar="ACTION")

    def add(name: str, run: Callable[[argparse.Namespace], None], text: str) -> argparse.ArgumentParser:
        action = actions.add_parser(name, help=text.splitlines()[0].rstrip("."), description=text)
        action.add_argument("--config", type=Path, metavar="FILE", help="the server's config (default: its defaults)")
        action.set_defaults(run_cache=run)
        return action

    add("stats", _stats, "Counts the cached answers by tool.")
    export = add("export", _export, "Writes every cached answer to a file of JSON lines.")
    export.add_argument("out", type=Path, help="file to write")
    load = add("import", _import, "Adds the answers of an exported file to the store.")
    load.add_argument("path", type=Path, help="file that `mmsearch cache export` wrote")
    fvqa = add(
        "import-fvqa",
        _import_fvqa,
        "Converts FVQA's own cache to cached whole-image searches.\n"
        "Its pickle is read without executing anything in it; the rows give the image of each data id.",
    )
    fvqa.add_argument("cache", type=Path, help="FVQA's pickle")
    fvqa.add_argument("rows", type=Path, help="the same set's rows (mmsearch data convert fvqa ...)")
    fvqa.add_argument(
        "--top-k",
        type=int,
        default=5,
        metavar="N",
        help="number of results of an image search, as in config.episode.top_k_image (default: %(default)s)",
    )


def run(options: argparse.Namespace) -> None:
    """Runs the chosen subcommand.

    Raises:
      ConfigError, DataError: the config, the store or a file is wrong.
    """
    options.run_cache(options)


def _stats(options: argparse.Namespace) -> None:
    from tools_server.cache.transfer import DOUBTFUL, count_entries

    counts = _with_store(options, count_entries)
    doubtful = counts.pop(DOUBTFUL, 0)
    print(f"{counts.total()} answers")
    for tool, count in counts.most_common():
        print(f"{count:>8} {tool}")
    if doubtful:
        print(
            f"{doubtful:>8} without results, kept before empty answers were checked: they may be failures of a provider. "
            "Every mode except replay fetches them again"
        )


def _export(options: argparse.Namespace) -> None:
    from tools_server.cache.transfer import export_entries

    print(f"{_with_store(options, lambda store: export_entries(store, options.out))} answers written to {options.out}")


def _import(options: argparse.Namespace) -> None:
    from tools_server.cache.transfer import import_entries

    print(f"{_with_store(options, lambda store: import_entries(store, options.path))} answers kept")


def _import_fvqa(options: argparse.Namespace) -> None:
    from tools_server.cache.answers import key_of

    config, counts = _config(options), collections.Counter[str]()
    if config.local.pictures:
        raise ConfigError("config.local.pictures searches your own index, but FVQA's answers replace web searches")

    async def work(store: Store) -> None:
        for entry in _fvqa_entries(options, config, counts):
            await store.put(key_of(entry.request), entry)

    _with_store(options, work)
    kept = counts.pop(_KEPT, 0)
    for reason, count in counts.most_common():
        print(f"{count:>8} {reason}")
    if not kept:
        raise DataError(f"no answer of {options.cache} fits {options.rows}: do both belong to the same split?")
    print(f"{kept} image searches kept")


def _fvqa_entries(
    options: argparse.Namespace, config: ServerSettings, counts: collections.Counter[str]
) -> Iterator[CacheEntry]:
    """The answers that fit a row; `counts` counts the outcome of every row."""
    import tqdm

    from mmsearch_jax.core.search_api import SearchReply, SearchResult
    from mmsearch_jax.data.convert.pickles import image_search_cache
    from mmsearch_jax.data.rows import read_image
    from mmsearch_jax.data.storage import scan_rows
    from tools_server.assembly import identity_of
    from tools_server.cache.store import CacheEntry
    from tools_server.inert import inert_result
    from tools_server.search_service import image_request

    recorded = dict(image_search_cache(options.cache))
    for _, row in tqdm.tqdm(scan_rows(options.rows), desc="fvqa", unit="row"):
        found = None if isinstance(row, DataError) else recorded.get(row.id)
        if isinstance(row, DataError) or found is None or isinstance(found, DataError):
            counts["rows that cannot be read" if isinstance(row, DataError) else "rows without a usable answer"] += 1
            continue
        hits = [hit for hit in found["results"] if hit["title"]][: options.top_k]
        # Answers of a server are neutralised; these are imported without it.
        results = tuple(inert_result(SearchResult(str(hit["title"]), "", str(hit["image_url"] or ""))) for hit in hits)
        status = "ok" if results else "no_results"
        reply = SearchReply(results, "image_search", status=status, backend="fvqa", empty_checked=not results)
        counts[_KEPT] += 1
        yield CacheEntry(image_request(read_image(row.image), options.top_k, identity_of(config)), reply.to_json())


def _with_store(options: argparse.Namespace, work: Callable[[Store], Awaitable]):
    from tools_server.assembly import open_store

    async def go():
        store = open_store(_config(options).cache)
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(go())


def _config(options: argparse.Namespace) -> ServerSettings:
    from mmsearch_jax.core.config_files import load
    from tools_server.settings.server import ServerSettings

    return load(ServerSettings, options.config, options.overrides).settings


COMMAND = Command(
    "cache",
    "Exports, imports and counts the search server's cached answers.\n"
    "With the mode 'replay' a run or an evaluation is repeated from them without network access.",
    run,
    ("mmsearch cache export answers.jsonl --config.cache.path=runs/tools/cache.sqlite",),
    add_arguments,
    inputs=("path", "cache", "rows"),
)
