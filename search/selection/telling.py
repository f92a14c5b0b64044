"""What a selection says when it ends."""

import shlex

from search.command_line import flag
from search.run_folder.records import FinalRecord
from search.selection.selection import Selection
from search.text import duration, shell_path, with_error


def tell_final(selection: Selection, record: FinalRecord, seconds: float) -> None:
    say, task = selection.reporter.result, selection.task
    say(
        f"{record.metric} {with_error(record.score, record.standard_error)} over {record.seeds} seeds"
        f" ({record.baseline_name} {record.baseline[record.metric]:.4f}), {record.winner}, {record.epochs} epochs"
    )
    for name, value in record.original_size.items():
        say(f"at the images' original sizes {name} {value:.4f}")
    images, weights = f"all {len(selection.data.ids)} images", shell_path(selection.paths.final_weights)
    unlabeled = next(candidate.unlabeled for candidate in record.candidates if candidate.name == record.winner)
    images += f" and {unlabeled} unlabeled ones" if unlabeled else ""
    say(f"{weights} trained on {images} in {duration(seconds)}; card.md describes it")
    if task.submits is not None:
        run = selection.paths.place
        say(f"next: python -m search.submit --data {shlex.quote(selection.source)} {flag(task.name)} {run}")
