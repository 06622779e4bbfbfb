"""Tar in WebDataset's layout: the files of a sample are adjacent and share their name up to the first dot.

A record is `000000012.json`, its embedded images `000000012.0.jpg`, `000000012.1.png`, ...; in the JSON such an image is
{"file": "0.jpg"}. The file is read from front to back, like a stream.
"""

from __future__ import annotations

import io
import itertools
import json
import lzma
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mmsearch_jax.core.characters import brief
from mmsearch_jax.core.errors import DataError
from mmsearch_jax.data.formats import json_text

_EXTENSIONS = ((b"\xff\xd8\xff", "jpg"), (b"\x89PNG", "png"), (b"GIF8", "gif"), (b"RIFF", "webp"))
_IMAGE_ENDINGS = ("jpg", "jpeg", "png", "gif", "webp", "bmp", "tif", "tiff")


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
            for key, members in itertools.groupby(filter(_is_data, archive), lambda m: _split(m.name)[0]):
                yield _record(key, [(_split(member.name)[1], _content(archive, member)) for member in members])
            _check_end(archive)
    except (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path} is cut short or not a tar file ({why}): copy or write it again") from error


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


def _check_end(archive: tarfile.TarFile) -> None:
    """Raises ReadError if the file ends without a block of zeros: tarfile takes a cut between two members for the end."""
    archive.fileobj.seek(archive.offset)
    if archive.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("it has no end")


def _is_data(member: tarfile.TarInfo) -> bool:
    """Whether a member belongs to a sample: macOS adds `._NAME` beside each file, `.DS_Store`, and `__MACOSX/`."""
    *folders, base = member.name.split("/")
    return member.isfile() and not base.startswith(".") and "__MACOSX" not in folders


def _split(name: str) -> tuple[str, str]:
    folder, slash, base = name.rpartition("/")
    key, _, rest = base.partition(".")
    return folder + slash + key, rest.lower()


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    opened = archive.extractfile(member)
    return b"" if opened is None else opened.read()


def _record(key: str, members: list[tuple[str, bytes]]) -> Any:
    files, unnamed = dict(members), {name for name, _ in members if name.rpartition(".")[2] in _IMAGE_ENDINGS}
    if len(files) < len(members):
        return DataError(f"sample {key} has two files with one name: the samples need different names")
    if "json" not in files:
        return DataError(f"sample {key} has no {key}.json")

    def put_back(value: Any) -> Any:
        if not isinstance(value, dict) or value.keys() != {"file"}:
            return value
        name = str(value["file"]).lower()
        if name not in files:
            raise DataError(f"sample {key} has no {key}.{brief(name)[1:-1]}")
        unnamed.discard(name)
        return files[name]

    try:
        record = json_text.record(files["json"])
        # Only where rows have images: elsewhere, an object with this one key is a row's own.
        if isinstance(record, dict):
            record |= {"image": put_back(record["image"])} if "image" in record else {}
            if isinstance(more := record.get("more_images"), list):
                record["more_images"] = [put_back(image) for image in more]
    except DataError as error:
        return DataError(f"{key}.json: {error}")
    if unnamed:
        return DataError(f"sample {key} has {key}.{min(unnamed)}, which {key}.json does not name")
    return record
