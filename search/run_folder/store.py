"""Folders in object stores: s3://…, gs://…, and any other URI that pyarrow or fsspec can open.

Endpoints and credentials come from the environment, as these libraries define it (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID,
GOOGLE_APPLICATION_CREDENTIALS, …).
"""

import functools
import os
import re
import textwrap
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from search.run_folder.files import StorageError, replacing
from search.text import one_line

ACCESS = ("AWS_", "AZURE_", "FSSPEC_", "GOOGLE_")  # how the variables with endpoints and credentials begin
GOOGLE_SECONDS = 60  # that pyarrow repeats a failed request to Google's store; its default is 15 minutes


class StoreError(StorageError):
    """A store could not be read or written. The message is one line that names it and the cause."""

    repair = "check the network, the store, and its credentials"


class TakenOver(StoreError):
    """Another process goes on with the run."""

    repair = "stop it if this one should"


@dataclass(frozen=True)
class StoredFile:
    """The size in bytes and the time of change, in nanoseconds, of a file in a store."""

    size: int
    changed: int


@dataclass(frozen=True)
class Store:
    """A folder in a store, which other processes open with the environment of this one.

    The environment travels inside, because Ray would write a `runtime_env` with credentials into its logs.
    Its methods raise `StoreError`. Names of files are relative, with slashes.
    """

    uri: str
    environment: Mapping[str, str] = field(repr=False, compare=False)

    def __truediv__(self, name: str) -> "Store":
        return replace(self, uri=join(self.uri, name))

    def beside(self, name: str) -> "Store":
        """Another folder in the same one."""
        parts = urlsplit(self.uri)
        return replace(self, uri=parts._replace(path=parts.path.rpartition("/")[0]).geturl()) / name

    def check(self) -> None:
        """Write, read, and delete a small file."""
        name, content = f".check-{uuid.uuid4().hex}", b"voc-search"
        self.write(name, content)
        if self.read(name) != content:
            raise StoreError(f"{self.uri} does not return what was written there")
        self.delete(name)

    def files(self, folder: str = "") -> dict[str, StoredFile]:
        """All files in a folder and its subfolders, by name."""
        from pyarrow.fs import FileSelector

        with self._using("list", folder) as (system, root):
            found = system.get_file_info(FileSelector(f"{root}/{folder}", recursive=True, allow_not_found=True))
            return {info.path.removeprefix(f"{root}/"): _stored(info) for info in found if info.is_file}

    def find(self, name: str) -> StoredFile | None:
        """A file; None if there is none."""
        with self._using("read", name) as (system, root):
            info = system.get_file_info([f"{root}/{name}"])[0]
            return _stored(info) if info.is_file else None

    def read(self, name: str) -> bytes | None:
        """The content of a file; None if there is none."""
        with self._using("read", name) as (system, root), suppress(FileNotFoundError):
            return system.open_input_file(f"{root}/{name}").readall()
        return None

    def write(self, name: str, content: bytes) -> None:
        with self._using("write", name) as (system, root), system.open_output_stream(f"{root}/{name}") as file:
            file.write(content)

    def upload(self, file: Path, name: str) -> None:
        """Replace a file by a local one."""
        from pyarrow.fs import LocalFileSystem, PyFileSystem, copy_files

        with self._using("write", name) as (system, root):
            path = f"{root}/{name}"
            if isinstance(system, PyFileSystem):  # may be one with folders
                system.create_dir(path.rpartition("/")[0], recursive=True)
            copy_files(str(file), path, LocalFileSystem(), system)

    def download(self, name: str, file: Path) -> None:
        """Replace a local file, atomically. Raises `StorageError`, too."""
        from pyarrow.fs import LocalFileSystem, copy_files

        with replacing(file) as temporary, self._using("read", name) as (system, root):
            copy_files(f"{root}/{name}", str(temporary), system, LocalFileSystem())

    def delete(self, name: str) -> None:
        """Delete a file, if there is one."""
        with self._using("delete", name) as (system, root), suppress(FileNotFoundError):
            system.delete_file(f"{root}/{name}")

    @contextmanager
    def _using(self, verb: str, name: str) -> Iterator[tuple[Any, str]]:
        """The file system and the folder's path in it."""
        try:
            os.environ.update(self.environment)
            yield _open(self.uri)
        except StoreError:
            raise
        except Exception as error:  # each library has its own
            raise StoreError(f"cannot {verb} {self.uri}{name and f'/{name}'} ({_cause(error)})") from None


def join(uri: str, name: str) -> str:
    """The URI of a file or folder in the folder at another."""
    parts = urlsplit(uri)
    return parts._replace(path=f"{parts.path.rstrip('/')}/{quote(name)}").geturl()


def open_store(uri: str) -> Store:
    """The store at a URI. Raises `ValueError` if it cannot be used."""
    if urlsplit(uri).password is not None:
        raise ValueError("a URI must not contain a password: put credentials into the environment")
    try:
        _open(uri)
    except Exception as error:
        raise ValueError(
            f"cannot open {uri} ({_cause(error)}): give a URI that pyarrow knows, such as s3://BUCKET/FOLDER or"
            " gs://BUCKET/FOLDER, or one of an installed fsspec package"
        ) from None
    return Store(uri.rstrip("/"), {name: value for name, value in os.environ.items() if name.startswith(ACCESS)})


@functools.cache
def _open(uri: str) -> tuple[Any, str]:
    """The file system of a URI, and the path in it."""
    from fsspec.core import url_to_fs
    from pyarrow import ArrowInvalid
    from pyarrow.fs import FileSystem, FSSpecHandler, PyFileSystem

    parts = urlsplit(uri)
    if not parts.netloc:
        raise ValueError("it names no bucket")
    if parts.scheme in ("gs", "gcs") and "retry_limit_seconds" not in parts.query:
        query = "&".join(filter(None, (parts.query, f"retry_limit_seconds={GOOGLE_SECONDS}")))
        uri = parts._replace(query=query).geturl()
    try:
        system, path = FileSystem.from_uri(uri)
    except ArrowInvalid as error:
        if "Unrecognized filesystem" not in str(error):
            raise
        found, path = url_to_fs(uri)
        system = PyFileSystem(FSSpecHandler(found))
    return system, path.rstrip("/")


def _stored(info: Any) -> StoredFile:
    return StoredFile(info.size, info.mtime_ns or 0)


def _cause(error: Exception) -> str:
    """What went wrong, without what only the provider of the store understands."""
    text = one_line(error) or type(error).__name__
    known = re.search(r"AWS Error .*?(?=\.? ?\(Request ID|; Details|$)", text)
    return known[0] if known else textwrap.shorten(text, 200)
