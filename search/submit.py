"""python -m search.submit: the submission for the test images of a set."""

import argparse
import sys
from pathlib import Path

from search.arguments import Parser


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status: 0 written, 2 a mistake of the user."""
    parser = Parser(prog="python -m search.submit", description="Write the submission for the test images of a set.")
    parser.add_argument("--data", required=True, metavar="DIR", help="a VOC folder, voc2009 or sample")
    parser.add_argument("--classify", required=True, metavar="RUN", help="a run, or a checkpoint file")
    parser.add_argument("--out", default="submission.csv", metavar="FILE", help="(submission.csv)")
    parser.add_argument("--flip", action="store_true", help="average with the predictions of the mirrored images")
    arguments = parser.parse_args(argv)
    try:
        print(submit(arguments))
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def submit(arguments: argparse.Namespace) -> str:
    """Predict the test images, write the CSV and say what was written."""
    import numpy as np

    from search.files import replace
    from search.training import pick_device
    from voctrain import classify
    from voctrain.data import load
    from voctrain.metrics import decide
    from voctrain.submission import write_submission

    out = Path(arguments.out)
    if not out.parent.is_dir() or out.is_dir():
        raise ValueError(f"--out must be a file in an existing folder, but got {out}")
    file, saved = load_checkpoint(Path(arguments.classify), "classify")
    device = pick_device(1)
    model, config = classify.restore(saved, device=device)
    data = load(arguments.data, image_size=saved["image_size"])
    if not data.test_ids:
        raise ValueError(f"{arguments.data} has no test images to submit: give --data a set with a test part")
    if list(data.classes) != saved["classes"]:
        raise ValueError(f"{file} knows other classes than {arguments.data}: give the set that it was trained for")
    probabilities = classify.predict(model, data.test_images, config, device=device, flip=arguments.flip)
    decided = decide(probabilities, np.array(saved["thresholds"]))
    replace(
        out,
        lambda path: write_submission(path, ((i, row, None) for i, row in zip(data.test_ids, decided, strict=True))),
    )
    return (
        f"{out}: {len(decided)} images, {decided.sum(1).mean():.2f} classes an image, by {file}; no segmentation run:"
        " its rows are empty"
    )


def load_checkpoint(path: Path, task: str) -> tuple[Path, dict]:
    """The checkpoint of a run, final.pt or else best.pt, or of a file; with where it was.

    Raises `ValueError` where there is none, or it is of another task or lacks thresholds.
    """
    from search.files import read_torch

    candidates = [path / "final" / "final.pt", path / "best.pt"] if path.is_dir() else [path]
    file = next((f for f in candidates if f.is_file()), None)
    if file is None:
        raise ValueError(
            f"{path} holds neither final/final.pt nor best.pt: give a run that has scored, or a checkpoint"
        )
    saved = read_torch(file)
    if not isinstance(saved, dict) or "task" not in saved or "thresholds" not in saved:
        raise ValueError(f"{file} is not a checkpoint of ours: give a run, its best.pt or its final.pt")
    if saved["task"] != task:
        raise ValueError(f"{file} is of {saved['task']}, not of {task}: give a run of {task}")
    return file, saved


if __name__ == "__main__":
    sys.exit(main())
