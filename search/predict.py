"""python -m search.predict: predict any images with a trained model."""

import sys

from search.command_line import Parser, make_parser, run_command
from search.option_values import make_options
from search.reporter import Reporter
from search.result_options import PredictOptions
from search.text import one_line


def parser() -> Parser:
    return make_parser(
        "python -m search.predict",
        "Predict images of any size: a table of probabilities and labels, masks, or attacked images.",
        "  python -m search.predict runs/classify-… photos/\n"
        "  python -m search.predict runs/segment-… a.jpg b.png --out masks --flip",
        PredictOptions,
    )


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status: 0 done, 1 a failure or a bad image, 2 a mistake, 128 + its number after a signal."""
    options = make_options(PredictOptions, vars(parser().parse_args(argv)))
    from search.prediction.prediction import PredictionFailed, predict
    from search.run_folder.files import StorageError

    reporter = Reporter()
    try:
        done = predict(options, reporter)
    except (PredictionFailed, StorageError) as error:
        reporter.error(str(error))
        return 1
    except (ValueError, OSError) as error:
        reporter.error(one_line(error))
        return 2
    reporter.result(str(done))
    if done.signal is not None:
        reporter.result(f"stopped after {done.images} of {done.total} images; what is written is complete")
        return 128 + done.signal
    if done.unreadable:
        reporter.error(f"{len(done.unreadable)} of {done.total} images could not be read")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
