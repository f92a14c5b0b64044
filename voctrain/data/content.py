"""What only the bytes of a set's files tell: its classes, its fingerprint, and which files are bad.

Reading all bytes takes minutes for a large set, so the answer is kept in the cache folder under the sizes and times of
the files: it is asked for again as soon as one of them changes.
"""

import ast
import dataclasses
import functools
import hashlib
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from voctrain.data.cache import cache_dir
from voctrain.data.class_names import ClassList
from voctrain.data.discovery import with_classes
from voctrain.data.image_files import read_image
from voctrain.data.layouts.listing import Listing

SETTLED = 2.0  # seconds; a later change could leave the same time, which some file systems round


@dataclass(frozen=True)
class Content:
    """What the files of a listing contain."""

    classes: ClassList
    fingerprint: str  # 32 hex digits of the ids, labels and classes, and of the path and bytes of each file
    bad: tuple[int, ...] = ()  # the labeled images that cannot be read, by index
    bad_tests: tuple[int, ...] = ()

    def of(self, listing: Listing) -> Listing:
        """The listing with its classes, without bad files."""
        return _without(listing.with_classes(self.classes), self.bad, self.bad_tests)

    def skipped(self, listing: Listing) -> tuple[str, ...]:
        """The ids of the bad files."""
        return (*(listing.ids[i] for i in self.bad), *(listing.test_ids[i] for i in self.bad_tests))


def read_content(listing: Listing, *, skip_bad: bool = False) -> Content:
    """What the files contain, which is read again only after a change. skip_bad: leave out files that are bad.

    Raises `ValueError` if the classes cannot be told.
    """
    stamp, changed = _stamp(listing, skip_bad)
    file = cache_dir() / "contents" / f"{stamp}.txt"
    with suppress(Exception):  # a damaged file raises many types
        known = ast.literal_eval(file.read_text(encoding="utf-8"))
        return Content(**known | {"classes": ClassList(**known["classes"])})
    classes = with_classes(listing).classes
    listing = listing.with_classes(classes)
    bad, bad_tests = _bad_files(listing) if skip_bad else ((), ())
    good = _without(listing, bad, bad_tests)
    content = Content(classes, fingerprint(good), bad, bad_tests)
    if time.time() - changed > SETTLED:
        with suppress(OSError):
            _write(file, repr(dataclasses.asdict(content)))
    return content


def fingerprint(listing: Listing) -> str:
    """32 hex digits that depend on the ids, labels and classes, and the relative path and the bytes of each file."""

    def digest(path: Path) -> bytes:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "blake2b").digest()

    classes = dataclasses.asdict(replace(listing.classes, source=""))
    said = repr((listing.ids, listing.test_ids, _names(listing), classes))
    total = hashlib.blake2b(said.encode(), digest_size=16)
    with ThreadPoolExecutor() as pool:
        for path, content in zip(listing.files, pool.map(digest, listing.files), strict=True):
            total.update(path.relative_to(listing.root).as_posix().encode() + b"\0" + content)
    return total.hexdigest()


def _names(listing: Listing) -> list[list[str] | None]:
    return [None if example.names is None else sorted(example.names) for example in listing.examples]


def _stamp(listing: Listing, skip_bad: bool) -> tuple[str, float]:
    """A digest of all that is known of the files without opening them, and when one of them last changed."""
    root = f"{listing.root}{os.sep}"
    paths = [str(path) for path in listing.files]
    status = [os.stat(path) for path in paths]
    times = [(s.st_size, s.st_mtime_ns, s.st_ctime_ns) for s in status]
    seen = list(zip((path.removeprefix(root) for path in paths), times, strict=True))
    said = (_code(), skip_bad, listing.ids, listing.test_ids, _names(listing), listing.class_list, seen)
    digest = hashlib.blake2b(repr(said).encode(), digest_size=16).hexdigest()
    return digest, max((s.st_ctime for s in status), default=0.0)


@functools.cache
def _code() -> str:
    """A digest of the code that answers: other code may answer otherwise."""
    files = sorted(Path(__file__).parent.rglob("*.py"))
    return hashlib.blake2b(b"".join(file.read_bytes() for file in files), digest_size=16).hexdigest()


def _bad_files(listing: Listing) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The labeled and the test images that cannot be read, by index."""

    def is_bad(read: Callable[[], object]) -> bool:
        try:
            read()
        except ValueError:
            return True
        return False

    with ThreadPoolExecutor() as pool:
        bad = pool.map(lambda i: is_bad(lambda: listing.read(i)), range(len(listing.examples)))
        bad_tests = pool.map(lambda test: is_bad(lambda: read_image(test.image)), listing.tests)
        return tuple(i for i, is_ in enumerate(bad) if is_), tuple(i for i, is_ in enumerate(bad_tests) if is_)


def _without(listing: Listing, bad: tuple[int, ...], bad_tests: tuple[int, ...]) -> Listing:
    if not bad and not bad_tests:
        return listing
    kept, kept_tests = set(range(len(listing.examples))) - {*bad}, set(range(len(listing.tests))) - {*bad_tests}
    return listing.only(
        [i in kept for i in range(len(listing.examples))], [i in kept_tests for i in range(len(listing.tests))]
    )


def _write(file: Path, text: str) -> None:
    """Replace a file atomically."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=file.parent, prefix=f".{file.stem}-") as temporary:
        unfinished = Path(temporary) / file.name
        unfinished.write_text(text, encoding="utf-8")
        os.replace(unfinished, file)
