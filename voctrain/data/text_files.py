"""Text files as people's tools write them: any of the usual encodings, and tables with any of the usual delimiters."""

import codecs
import contextlib
import csv
import io
from collections.abc import Iterator
from pathlib import Path


def read_text(path: Path) -> str:
    """The text of a file in UTF-8 or UTF-16, with or without a byte order mark, or else in Latin-1.

    Raises `ValueError` if the file cannot be read.
    """
    with naming_file(path):
        raw = path.read_bytes()
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return raw.decode("utf-16", errors="replace")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def read_lines(path: Path) -> list[str]:
    """The lines of a text file that are not blank, without surrounding blanks."""
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]


def read_table(path: Path) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a CSV file, delimited by comma, semicolon or tab; cells without surrounding blanks.

    Raises `ValueError` for an empty file, and for a row with more or fewer cells than the header.
    """
    text = read_text(path)
    head = text.lstrip().partition("\n")[0]
    delimiter = max(",;\t", key=head.count)
    with naming_file(path):
        rows = [[cell.strip() for cell in row] for row in csv.reader(io.StringIO(text), delimiter=delimiter)]
    rows = [row for row in rows if any(row)]
    if not rows:
        raise ValueError(f"a table must have a header, but {path} is empty: restore it")
    header, *rows = rows
    for number, row in enumerate(rows, 2):
        if len(row) != len(header):
            raise ValueError(
                f"the rows of a table must be as long as its header ({len(header)}), but row {number} of {path} has"
                f" {len(row)} cells: correct it"
            )
    return header, rows


@contextlib.contextmanager
def naming_file(path: Path) -> Iterator[None]:
    """Turn whatever a decoder raises for damaged bytes (a dozen types) into one line with the file's path."""
    try:
        yield
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(
            f"every file must be readable, but {path} is not ({reason}): replace it with an intact copy"
        ) from error
