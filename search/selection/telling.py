"""What a selection says when it ends."""

import shlex

from search.command_line import flag
from search.run_folder.records import EnsembleRecord, FinalRecord, repeats
from search.selection.selection import Selection
from search.text import duration, shell_path, with_error


def tell_final(selection: Selection, record: FinalRecord, ensemble: EnsembleRecord | None, seconds: float) -> None:
    say, task = selection.reporter.result, selection.task
    say(
        f"{record.metric} {with_error(record.score, record.standard_error)} over {repeats(record.folds, record.seeds)}"
        f" ({record.baseline_name} {record.baseline[record.metric]:.4f}), {record.winner}, {record.epochs} epochs"
    )
    if ensemble is not None:
        say(_mixtures(selection, record, ensemble))
    if (expected := record.expected) is not None:
        say(expected.describe(record.metric))
        if expected.is_overtuned:
            say(f"the best is not clearly better than {selection.default}, the portfolio's first recipe")
    for name, value in record.original_size.items():
        say(f"at the images' original sizes {name} {value:.4f}")
    images, weights = f"all {len(selection.data.ids)} images", shell_path(selection.paths.final_weights)
    unlabeled = next(candidate.unlabeled for candidate in record.candidates if candidate.name == record.winner)
    images += f" and {unlabeled} unlabeled ones" if unlabeled else ""
    say(f"{weights} trained on {images} in {duration(seconds)}; card.md describes it")
    if task.submits is not None:
        run = selection.paths.place
        say(f"next: python -m search.submit --data {shlex.quote(selection.source)} {flag(task.name)} {run}")


def _mixtures(selection: Selection, record: FinalRecord, ensemble: EnsembleRecord) -> str:
    """Every way to use the retrained models, with its score and price; the chosen one first."""
    ordered = sorted(ensemble.mixtures, key=lambda mixture: mixture.name != ensemble.chosen)
    told = []
    for mixture in ordered:
        price = "" if mixture.milliseconds is None else f", {mixture.milliseconds:.3g} ms per image"
        told.append(f"{mixture.name} {mixture.score:.4f} ({mixture.networks} networks{price})")
    return f"{shell_path(selection.paths.ensemble)}: {'; '.join(told)}"
