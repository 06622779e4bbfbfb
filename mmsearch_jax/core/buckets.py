"""Objects in a bucket (gs:// or s3://): list, read, write, create, replace. It knows nothing of what they hold.

Google's is reached through gcsfs, which Orbax needs for its own files there; S3 through obstore, which needs nothing else.
Credentials and endpoints are found as by the clouds' own tools (environment, files, instance roles).
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from mmsearch_jax.core.errors import StorageError

_ADDRESS = re.compile(r"^(gs|s3):/{1,2}([^/]+)/?(.*)$")
_PACKAGES = {"gs": ("gcsfs",), "s3": ("obstore",)}
_BLOCK = 8 << 20
_CHECK_S = 15
# Between the parts of an upload; it must not be in them.
_BOUNDARY = b"part-of-mmsearch-upload"


def is_address(text: str | Path) -> bool:
    """Whether this is a bucket's address; also after `Path` has removed its second slash."""
    return _ADDRESS.match(str(text)) is not None


def normal(text: str | Path) -> str:
    """The address with two slashes, and without one at its end."""
    found = _ADDRESS.match(str(text))
    if found is None:
        raise ValueError(f"{text} is no bucket's address")
    return f"{found[1]}://{found[2]}/{found[3]}".rstrip("/")


class Bucket(Protocol):
    """The objects below an address, by their names relative to it. Every method raises `StorageError` when it fails."""

    def list(self) -> dict[str, str]:
        """Each object's name and a tag that changes with its content."""
        ...

    def read(self, name: str) -> bytes | None:
        """An object, None if there is none."""
        ...

    def write(self, name: str, content: bytes) -> None:
        """Writes an object, whether there is one or not."""
        ...

    def create(self, name: str, content: bytes) -> bool:
        """Writes an object if there is none, in one operation of the store; whether it did."""
        ...

    def replace(self, name: str, old: bytes, new: bytes) -> bool:
        """Writes an object in the place of one with the content `old`, in one operation of the store; whether it did."""
        ...

    def upload(self, path: Path, name: str) -> None:
        """Writes a file's content as one object."""
        ...

    def download(self, name: str, path: Path) -> None:
        """Writes an object to a file."""
        ...

    def delete(self, name: str) -> None:
        """Removes an object, if it is there."""
        ...


def open_bucket(address: str | Path) -> Bucket:
    """The objects below an address, after one look whether they can be reached.

    Raises:
      StorageError: a package or credentials are missing, or there is no such bucket; one line that says which.
    """
    scheme, bucket, prefix = _ADDRESS.match(normal(address)).groups()  # pyright: ignore[reportOptionalMemberAccess]
    for package in _PACKAGES[scheme]:
        if importlib.util.find_spec(package) is None:
            raise StorageError(f"{normal(address)} needs the package {package}: pip install 'mmsearch-jax[bucket]'")
    opened = (_Google if scheme == "gs" else _S3)(bucket, prefix.rstrip("/"))
    opened.check()
    return opened


class _S3:
    def __init__(self, bucket: str, prefix: str):
        from obstore.store import from_url

        self._address = f"s3://{bucket}/{prefix}".rstrip("/")
        with _named(self._address):
            # Every start asks once; without credentials the default would ask the instance's role for minutes.
            retries: Any = {"max_retries": 3}
            self._store: Any = from_url(self._address, retry_config=retries)

    def check(self) -> None:
        import obstore

        with _named(self._address):
            next(iter(obstore.list(self._store, chunk_size=1)), None)

    def list(self) -> dict[str, str]:
        import obstore

        with _named(self._address):
            return {each["path"]: f"{each['e_tag']}" for part in obstore.list(self._store) for each in part}

    def read(self, name: str) -> bytes | None:
        import obstore

        try:
            with _named(self._address, FileNotFoundError):
                return bytes(obstore.get(self._store, name).bytes())
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes) -> None:
        import obstore

        with _named(self._address):
            obstore.put(self._store, name, content)

    def create(self, name: str, content: bytes) -> bool:
        import obstore
        from obstore.exceptions import AlreadyExistsError

        with _named(self._address, AlreadyExistsError), contextlib.suppress(AlreadyExistsError):
            obstore.put(self._store, name, content, mode="create")
            return True
        return False

    def replace(self, name: str, old: bytes, new: bytes) -> bool:
        import obstore
        from obstore.exceptions import PreconditionError

        with contextlib.suppress(FileNotFoundError), _named(self._address, FileNotFoundError):
            found = obstore.get(self._store, name)
            if bytes(found.bytes()) != old:
                return False
            with contextlib.suppress(PreconditionError), _named(self._address, PreconditionError):
                obstore.put(self._store, name, new, mode={"e_tag": found.meta["e_tag"] or ""})
                return True
        # The client tries again after a lost reply, and may then meet what it wrote itself.
        return self.read(name) == new

    def upload(self, path: Path, name: str) -> None:
        import obstore

        with _named(self._address):
            obstore.put(self._store, name, path)

    def download(self, name: str, path: Path) -> None:
        import obstore

        with _named(self._address), path.open("wb") as out:
            for block in obstore.get(self._store, name).stream(min_chunk_size=_BLOCK):
                out.write(block)

    def delete(self, name: str) -> None:
        import obstore

        with _named(self._address):
            obstore.delete(self._store, name)


class _Google:
    def __init__(self, bucket: str, prefix: str):
        self._bucket, self._root = bucket, f"{bucket}/{prefix}".rstrip("/")
        self._address = f"gs://{self._root}"
        with _named(self._address):
            self._files: Any = _google_files()

    def check(self) -> None:
        from fsspec.asyn import sync
        from fsspec.exceptions import FSTimeoutError

        with _named(self._address):
            # The library tries six times with pauses, which would let a mistake wait for over a minute.
            try:
                found = sync(self._files.loop, self._files._exists, self._bucket, timeout=_CHECK_S)
            except FSTimeoutError as error:
                raise TimeoutError(f"no answer within {_CHECK_S} s") from error
            if not found:
                raise FileNotFoundError("there is no such bucket")

    def list(self) -> dict[str, str]:
        with _named(self._address):
            self._files.invalidate_cache()
            found = self._files.find(self._root, detail=True)
        skipped = len(self._root) + 1
        return {
            name[skipped:]: f"{about.get('etag')}/{about.get('generation')}"
            for name, about in found.items()
            if about["type"] == "file" and len(name) > skipped and not name.endswith("/")
        }

    def read(self, name: str) -> bytes | None:
        try:
            with _named(self._address, FileNotFoundError):
                return self._files.cat_file(self._path(name))
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes) -> None:
        with _named(self._address):
            self._files.pipe_file(self._path(name), content)

    def create(self, name: str, content: bytes) -> bool:
        return self._write_over(0, name, content)

    def replace(self, name: str, old: bytes, new: bytes) -> bool:
        # First the number, then the content: a change in between is noticed.
        with contextlib.suppress(FileNotFoundError), _named(self._address, FileNotFoundError):
            generation = self._files.info(self._path(name))["generation"]
            if self.read(name) == old and self._write_over(generation, name, new):
                return True
        # The client tries again after a lost reply, and may then meet what it wrote itself.
        return self.read(name) == new

    def _write_over(self, generation: int | str, name: str, content: bytes) -> bool:
        """Writes an object if the present one has this generation (0: there is none), which gcsfs offers for 0 alone."""
        about = json.dumps({"name": self._path(name).partition("/")[2]}).encode()
        parts = ((b"application/json", about), (b"application/octet-stream", content))
        body = b"".join(b"--%s\r\nContent-Type: %s\r\n\r\n%s\r\n" % (_BOUNDARY, *part) for part in parts)
        with contextlib.suppress(FileExistsError), _named(self._address, FileExistsError):
            self._files.call(
                "POST",
                f"{self._files._location}/upload/storage/v1/b/{self._bucket}/o",
                uploadType="multipart",
                ifGenerationMatch=str(generation),
                headers={"Content-Type": f"multipart/related; boundary={_BOUNDARY.decode()}"},
                data=body + b"--%s--" % _BOUNDARY,
            )
            return True
        return False

    def upload(self, path: Path, name: str) -> None:
        with _named(self._address):
            self._files.put_file(str(path), self._path(name))

    def download(self, name: str, path: Path) -> None:
        with _named(self._address):
            self._files.get_file(self._path(name), str(path))

    def delete(self, name: str) -> None:
        try:
            with _named(self._address, FileNotFoundError):
                self._files.rm_file(self._path(name))
        except FileNotFoundError:
            return

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root


@contextlib.contextmanager
def _named(address: str, *kept: type[Exception]) -> Iterator[None]:
    """Turns errors into a `StorageError` that names the address; errors of the kinds `kept` stay as they are."""
    try:
        yield
    except (StorageError, *kept):
        raise
    except Exception as error:
        raise _failed(address, error) from error


@functools.cache
def _google_files() -> Any:
    import gcsfs

    # They report the search for credentials line by line; `StorageError` says how it ended.
    for name in ("gcsfs", "google.auth"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    # No listings are cached: other processes write there, too.
    return gcsfs.GCSFileSystem(use_listings_cache=False)


def _failed(address: str, error: Exception) -> StorageError:
    first = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
    return StorageError(
        f"{address} cannot be used ({type(error).__name__}: {first}): are its name, its region and the credentials right? "
        "(docs/launch.md, Buckets)"
    )
