"""search.audit: a table and a page of the labels that out-of-fold models contradict, for a person to decide."""

import csv
import dataclasses
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from search.pictures.blocks import Block, Code, Figure, Section, Table, Text, pictured
from search.report.page import command
from search.report.source import Source, read_source
from search.report.template import write_page
from search.reporter import Reporter
from search.result_options import AuditOptions
from search.run_folder.files import read_arrays, replace
from search.run_folder.location import is_stored, local_copy, locate
from search.text import shell_path
from voctrain.contact_sheet import Tile, sheet
from voctrain.data import Data
from voctrain.data.corrections import FLIP, IGNORE, Corrections
from voctrain.data.palette import voc_palette
from voctrain.label_audit import Doubts

COLUMNS = ("rank", "image", "class", "label", "doubt", "agreement")  # of audit.csv, before the action
Row = tuple[int, str, str, int, float, float]
KINDS = {"Labeled, but not seen": True, "Seen, but not labeled": False}  # the former would crowd out the latter
SHOWN, ACROSS = 30, 5  # pictures of each kind on the page


@dataclass(frozen=True)
class Audit:
    """What was written."""

    table: Path
    page: Path
    pairs: int  # of an image and a class, in the table

    def __str__(self) -> str:
        return (
            f"{shell_path(self.table)}: {self.pairs} labels in doubt; pictures of the first in {shell_path(self.page)}"
        )


def audit(options: AuditOptions, reporter: Reporter) -> Audit:
    """Write audit.csv and audit.html into a run's folder.

    Raises `ValueError` for a run without out-of-fold predictions or whose data have changed, and if its audit.csv has
    actions, which would be lost; and `StorageError`.
    """
    source = read_source(local_copy(options.run))
    paths, data = source.paths, source.data
    if source.task.doubt is None:
        raise ValueError(f"{options.run} is a run of {source.task.name}, which learns from no labels: give another run")
    arrays = read_arrays(paths.out_of_fold)
    if arrays is None:
        raise ValueError(
            f"an audit needs out-of-fold predictions, but there is no {paths.out_of_fold}, or it is damaged: run"
            f" python -m search.final {paths.place} --folds 5"
        )
    if data is None:
        raise ValueError(f"an audit shows the images of the run, but {source.missing_data}: put them back")
    if paths.audit.exists() and _decided(Corrections.read(paths.audit)) != _decided(_before(data)):
        raise ValueError(f"{paths.audit} has actions that would be lost: use it with --corrections, or rename it")
    doubts, ids = source.task.doubts(arrays), arrays["ids"].tolist()
    kinds = {
        kind: list(_rows(Doubts(*(values[doubts.given == given][: options.top] for values in doubts)), ids, data))
        for kind, given in KINDS.items()
    }
    rows = [row for kind in kinds.values() for row in kind]
    reporter.status(f"drawing the labels in doubt of {paths.place}")
    replace(paths.audit, lambda file: file.write_text(_table(rows, data), encoding="utf-8", newline=""))
    sections = [
        Section("Labels in doubt", list(_explanation(source, len(arrays["names"])))),
        *(
            Section(kind, [_picture(kind, own, data, not source.task.flips), Table(COLUMNS, own)])
            for kind, own in kinds.items()
            if own
        ),
    ]
    write_page(paths.audit_page, f"Labels in doubt: {paths.folder.name}", sections)
    if is_stored(options.run):
        for file in (paths.audit, paths.audit_page):
            locate(options.run).share(file)
    return Audit(paths.audit, paths.audit_page, len(rows))


def _before(data: Data) -> Corrections | None:
    return None if data.source is None else data.source.corrections


def _decided(corrections: Corrections | None) -> tuple[frozenset[str], frozenset[tuple[str, str]]]:
    empty = Corrections("", frozenset(), frozenset())
    return (corrections or empty).ignored, (corrections or empty).flipped


def _rows(doubts: Doubts, ids: list[str], data: Data) -> Iterator[Row]:
    for rank, (image, label, given, doubt, agreement) in enumerate(zip(*doubts, strict=True), 1):
        yield rank, ids[image], data.classes[label], int(given), round(float(doubt), 4), round(float(agreement), 4)


def _table(rows: Sequence[Row], data: Data) -> str:
    """audit.csv, with the corrections that the run was made with at its end, so that they stay."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow((*COLUMNS, "action"))
    table.writerows((*row, "") for row in rows)
    ignored, flipped = _decided(_before(data))
    table.writerows(("", name, "", "", "", "", IGNORE) for name in sorted(ignored))
    table.writerows(("", name, label, "", "", "", FLIP) for name, label in sorted(flipped))
    return text.getvalue()


def _explanation(source: Source, models: int) -> Iterator[Block]:
    again = dataclasses.replace(source.record.options, corrections=str(source.paths.audit))
    actions = "ignore, which leaves the image out" + (", or flip, which changes the label" if source.task.flips else "")
    yield Text(
        f"{source.task.doubt} The agreement is the part of the {models} configurations that contradict the label. Each"
        " prediction comes from models that have not seen the image."
    )
    yield Text(f"Look at the pictures, write into the column action of audit.csv {actions}, and search again with:")
    yield Code(command(source.paths, dataclasses.replace(source.record, options=again)))


def _picture(kind: str, rows: Sequence[Row], data: Data, masks: bool) -> Figure:
    index, palette = {name: i for i, name in enumerate(data.ids)}, voc_palette()
    tiles = []
    for rank, name, label, _, doubt, agreement in rows[:SHOWN]:
        pictures = [data.images[index[name]]]
        if masks and data.masks is not None:
            pictures.append(palette[data.masks[index[name]]])
        tiles.append(Tile(pictures, (f"{rank}. {name}", label, f"doubt {doubt:.2f}, agreement {agreement:.0%}")))
    alt = ", ".join(" ".join(tile.texts[:2]) for tile in tiles)
    return pictured(sheet(tiles, ACROSS // len(tiles[0].pictures)), f"{kind}: the first {len(tiles)}", alt, wide=True)
