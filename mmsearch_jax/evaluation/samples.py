"""The log of an evaluation: append-only, one line of JSON per episode and per verdict.

A folder holds the samples of one benchmark, one policy and one setting; each shard writes its own file. A killed run
loses only the episodes in progress: an incomplete last line is removed before the next one is written.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmsearch_jax.core.errors import ConfigError, DataError
from mmsearch_jax.data.formats import jsonl
from mmsearch_jax.settings.rollout import EpisodeConfig

RUN_FILE, SAMPLES, JUDGEMENTS, UNREADABLE, SUMMARY = "run.json", "samples", "judgements", "unreadable", "summary.json"
SETTINGS_FILE, IMAGES = "config.json", "images"
IF_CHANGED = ("refuse", "new", "replace")


class Shard(NamedTuple):
    """The part of the questions that this process asks."""

    index: int = 0
    count: int = 1

    def has(self, name: str) -> bool:
        """Whether the row with that id belongs to this part; independent of the other rows."""
        return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % self.count == self.index

    def file(self, stem: str) -> str:
        """The name of this shard's file with that stem."""
        return stem if self.count == 1 else f"{stem}-{self.index}-of-{self.count}"


WHOLE = Shard()
"""All questions."""


def parse_shard(text: str) -> Shard:
    """Reads "1/4": the second of four.

    Raises:
      ConfigError: the text has another form.
    """
    index, slash, count = text.partition("/")
    if not slash or not index.isdecimal() or not count.isdecimal() or int(index) >= int(count):
        raise ConfigError(f"--shard {text}: write INDEX/COUNT with INDEX from 0, such as 0/4")
    return Shard(int(index), int(count))


@dataclasses.dataclass(frozen=True)
class Stamp:
    """The settings of a folder's samples.

    Attributes:
      settings: the settings that determine the answers, as flat, plain values.
      metric: name of the metric that scores the answers.
      identity: further values for the summary (name, seed, ...).
      ids: ids of the rows that are asked.
      samples: number of samples per question.
    """

    settings: Mapping[str, Any]
    metric: str
    identity: Mapping[str, Any]
    ids: Sequence[str]
    samples: int

    @property
    def config(self) -> str:
        """Hash of the settings."""
        return hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()[:12]

    def write(self, folder: Path) -> None:
        """Writes run.json."""
        write_json(folder / RUN_FILE, dataclasses.asdict(self))


def answers_depend_on(
    policy: Mapping[str, Any], benchmark: str, temperature: float, seed: int, oracle: bool, rules: EpisodeConfig
) -> dict[str, Any]:
    """The settings of a stamp.

    Args:
      policy: what identifies the policy.
    """
    return {
        **{f"policy.{key}": value for key, value in policy.items()},
        "benchmark": benchmark,
        "eval.temperature": temperature,
        "seed": seed,
        "eval.oracle": oracle,
        **{f"episode.{key}": value for key, value in dataclasses.asdict(rules).items()},
    }


def read_stamp(folder: Path) -> Stamp:
    """The stamp of a folder.

    Raises:
      DataError: the folder has no stamp.
    """
    try:
        return Stamp(**json.loads((folder / RUN_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"no evaluation in {folder} ({error}): give the folder that holds its {RUN_FILE}") from error


def open_folder(folder: Path, stamp: Stamp, if_changed: str = "refuse") -> Path:
    """Makes the folder ready for samples of these settings, and returns it.

    Args:
      if_changed: what to do if it holds samples of other settings. "refuse": raise; "new": use a folder next to it,
        named after the settings; "replace": remove them.

    Raises:
      ConfigError: the folder holds samples of other settings; names the first setting that differs and both values.
    """
    if if_changed not in IF_CHANGED:
        raise ConfigError(f"eval.if_changed is '{if_changed}', expected one of {', '.join(IF_CHANGED)}")
    if (folder / RUN_FILE).is_file() and (old := read_stamp(folder)).config != stamp.config:
        if if_changed == "new":
            return open_folder(folder.with_name(f"{folder.name}-{stamp.config[:8]}"), stamp, "refuse")
        if if_changed == "refuse":
            raise _refused(folder, old, stamp.settings, stamp.identity["checkpoint"])
        _remove(folder)
    folder.mkdir(parents=True, exist_ok=True)
    stamp.write(folder)
    return folder


def require_same_answers(folder: Path, settings: Mapping[str, Any], checkpoint: str) -> None:
    """Compares an evaluation with the samples in its folder, if there are any, without changing it.

    Args:
      settings: those of the settings that determine the answers which are known.
      checkpoint: the policy's name.

    Raises:
      ConfigError: see `open_folder`.
    """
    if not (folder / RUN_FILE).is_file():
        return
    old = read_stamp(folder)
    known = {key: value for key, value in json.loads(json.dumps(settings)).items() if key in old.settings}
    if any(old.settings[key] != value for key, value in known.items()):
        raise _refused(folder, old, {**old.settings, **known}, checkpoint)


class Log:
    """Appends records to one file."""

    def __init__(self, path: Path):
        _cut_torn_line(path)
        self._file = path.open("a", encoding="utf-8")

    def write(self, record: Mapping[str, Any]) -> None:
        """Adds a line and flushes it to the operating system."""
        self._file.write(jsonl.dumps(record) + "\n")
        self._file.flush()

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def read_samples(folder: str | Path) -> list[dict[str, Any]]:
    """All samples of a folder, over all shards; of lines with the same id and repeat, the last one counts.

    Raises:
      DataError: a line is damaged that is not the last of its file.
    """
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for record in _records(Path(folder), SAMPLES):
        key = tuple(record[part] for part in ("benchmark", "id", "repeat", "config"))
        # Another shard may have retried a failed episode with success.
        if record["correct"] is not None or key not in found:
            found[key] = record
    return sorted(found.values(), key=lambda record: (record["id"], record["repeat"]))


def read_judgements(folder: str | Path) -> list[dict[str, Any]]:
    """All verdicts of a folder, over all shards."""
    return list(_records(Path(folder), JUDGEMENTS))


def read_unreadable(folder: Path) -> dict[str, str]:
    """The rows whose image could not be read, over all shards: row id -> reason."""
    return {
        name: why
        for path in sorted(folder.glob(f"{UNREADABLE}*.json"))
        for name, why in json.loads(path.read_text(encoding="utf-8")).items()
    }


def write_json(path: Path, content: Any) -> None:
    """Writes JSON; the file appears only when it is complete."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(partial, path)


def _remove(folder: Path) -> None:
    """Removes the files that an evaluation writes, and no others."""
    for stem in (SAMPLES, JUDGEMENTS, UNREADABLE, "summary"):
        for path in (*folder.glob(f"{stem}.json*"), *folder.glob(f"{stem}-*-of-*.json*")):
            path.unlink()
    shutil.rmtree(folder / IMAGES, ignore_errors=True)


def _records(folder: Path, stem: str) -> Iterator[dict[str, Any]]:
    for path in sorted([*folder.glob(f"{stem}.jsonl"), *folder.glob(f"{stem}-*-of-*.jsonl")]):
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if not line.endswith(b"\n"):
                    break  # Incomplete after a kill, or being written by another process.
                try:
                    yield json.loads(line)
                except ValueError as error:
                    raise DataError(f"{path}, line {number} is damaged ({error}): remove the line to resume") from error


def _cut_torn_line(path: Path) -> None:
    if not path.is_file():
        return
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        while size:
            # Searches backwards in blocks, because a line may be long.
            start = max(0, size - (1 << 16))
            file.seek(start)
            newline = file.read(size - start).rfind(b"\n")
            if newline >= 0:
                size = start + newline + 1
                break
            size = start
        file.truncate(size)


def _refused(folder: Path, old: Stamp, settings: Mapping[str, Any], checkpoint: str) -> ConfigError:
    key = next(key for key in [*settings, *old.settings] if old.settings.get(key) != settings.get(key))
    values = [f"{each.get(key)}" for each in (old.settings, settings)]
    if key.startswith("policy."):
        names = (old.identity["checkpoint"], checkpoint)
        values = [f"{value} ({name})" for value, name in zip(values, names, strict=True)]
    return ConfigError(
        f"{folder} holds samples made with {key} = {values[0]}, which is now {values[1]}: restore the setting, or choose "
        "another --config.eval.name, or --config.eval.if_changed=new"
    )
