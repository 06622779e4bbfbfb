"""Tar in WebDataset's layout: the files of a sample are adjacent and share their name up to the first dot.

A record is `000000012.json`, its embedded images `000000012.0.jpg`, `000000012.1.png`, ...; in the JSON such an image is
{"file": "0.jpg"}. The file is read from front to back, like a stream.
"""

from __future__ import annotations

import io
import itertools
import json
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mmsearch_jax.core.errors import DataError

_EXTENSIONS = ((b"\xff\xd8\xff", "jpg"), (b"\x89PNG", "png"), (b"GIF8", "gif"), (b"RIFF", "webp"))


def write(records: Iterable[dict[str, Any]], path: Path) -> None:
    """Writes one file."""
    with tarfile.open(path, "w") as archive:
        for number, record in enumerate(records):
            _add(archive, f"{number:09d}", record)


def read(path: Path) -> Iterator[Any]:
    """The record of every sample, or the error if it cannot be read.

    Raises:
      DataError: the file is cut short or not a tar file.
    """
    try:
        with tarfile.open(path) as archive:
            for key, members in itertools.groupby(filter(tarfile.TarInfo.isfile, archive), lambda m: _split(m.name)[0]):
                yield _record(key, {_split(member.name)[1]: _content(archive, member) for member in members})
    except (tarfile.TarError, EOFError) as error:
        raise DataError(f"{path} is cut short or not a tar file ({error}): copy or write it again") from error


def extension(encoded: bytes) -> str:
    """The extension of an encoded image's name, by its first bytes; "bin" if they are unknown."""
    return next((name for magic, name in _EXTENSIONS if encoded.startswith(magic)), "bin")


def _add(archive: tarfile.TarFile, key: str, record: dict[str, Any]) -> None:
    files: dict[str, bytes] = {}

    def set_aside(value: Any) -> Any:
        if not isinstance(value, bytes):
            raise TypeError(f"a {type(value).__name__} cannot be stored in a row")
        name = f"{len(files)}.{extension(value)}"
        files[name] = value
        return {"file": name}

    head = json.dumps(record, ensure_ascii=False, default=set_aside).encode()
    for name, content in {"json": head, **files}.items():
        member = tarfile.TarInfo(f"{key}.{name}")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))


def _split(name: str) -> tuple[str, str]:
    folder, slash, base = name.rpartition("/")
    key, _, rest = base.partition(".")
    return folder + slash + key, rest


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    opened = archive.extractfile(member)
    return b"" if opened is None else opened.read()


def _record(key: str, files: dict[str, bytes]) -> Any:
    if "json" not in files:
        return DataError(f"sample {key} has no {key}.json")

    def put_back(value: dict[str, Any]) -> Any:
        if value.keys() != {"file"}:
            return value
        if value["file"] not in files:
            raise DataError(f"sample {key} has no {key}.{value['file']}")
        return files[value["file"]]

    try:
        return json.loads(files["json"], object_hook=put_back)
    except DataError as error:
        return error
    except ValueError as error:
        return DataError(f"{key}.json is not JSON ({error})")
