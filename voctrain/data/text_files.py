"""Text files as people's tools write them: any of the usual encodings, and tables with any of the usual delimiters."""

import codecs
import contextlib
import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path

# What no text contains; a file with one of these is an image, an archive or damaged.
BINARY = re.compile(r"[\x00-\x08\x0e-\x1f]")


def read_text(path: Path) -> str:
    """The text of a file in UTF-8 or UTF-16, with or without a byte order mark, or else in Windows' Latin encoding.

    Lines end with a line feed, whatever ends them in the file. Raises `ValueError` if the file cannot be read.
    """
    with naming_file(path):
        text = _decoded(path.read_bytes())
    if (found := BINARY.search(text)) is not None:
        raise ValueError(f"lists and tables must be text, but {path} contains the byte {found[0]!r}: save it as UTF-8")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _decoded(raw: bytes) -> str:
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return raw.decode("utf-16")
    if b"\0" in raw[:2]:  # the first character of UTF-16 without a mark, as long as it is ASCII
        return raw.decode("utf-16-be" if raw[0] == 0 else "utf-16-le")
    for encoding in ("utf-8-sig", "cp1252"):
        with contextlib.suppress(UnicodeDecodeError):
            return raw.decode(encoding)
    return raw.decode("latin-1")


def read_lines(path: Path) -> list[str]:
    """The lines of a text file that are not blank, without surrounding blanks."""
    return [line.strip() for line in read_text(path).split("\n") if line.strip()]


def read_table(path: Path) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a CSV file, delimited by comma, semicolon or tab; cells without surrounding blanks.

    Blank rows, and empty cells beyond the header, are left out. Raises `ValueError` for an empty file, and for a row
    with more or fewer cells than the header.
    """
    text = read_text(path)
    with naming_file(path):
        rows = [list(map(_cell, row)) for row in csv.reader(io.StringIO(text), delimiter=_delimiter(text))]
    rows = [row for row in rows if any(row)]
    if not rows:
        raise ValueError(f"a table must have a header, but {path} is empty: restore it")
    header, *rows = rows
    for number, row in enumerate(rows, 2):
        while len(row) > len(header) and not row[-1]:
            row.pop()
        if len(row) != len(header):
            raise ValueError(
                f"the rows of a table must be as long as its header ({len(header)}), but row {number} of {path} has"
                f" {len(row)} cells: correct it"
            )
    return header, rows


def read_header(path: Path) -> list[str]:
    """The first row of a CSV file, without surrounding blanks. Raises `ValueError` if the file cannot be read."""
    text = read_text(path).lstrip("\n ")
    with naming_file(path):
        return [_cell(cell) for cell in next(csv.reader(io.StringIO(text), delimiter=_delimiter(text)), [])]


def _cell(text: str) -> str:
    return text.replace("\n", " ").strip()


def _delimiter(text: str) -> str:
    head = text.lstrip("\n ").partition("\n")[0]
    return max(",;\t", key=re.sub(r'"[^"]*"', "", head).count)


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
