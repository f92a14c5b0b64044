"""python -m search.export: a trained model as a file that runs elsewhere."""

import sys

from search.command_line import Parser, make_parser, run_command
from search.option_values import make_options
from search.reporter import Reporter
from search.result_options import ExportOptions
from search.text import one_line


def parser() -> Parser:
    return make_parser(
        "python -m search.export",
        "Write a trained model, with its resizing and normalization inside, as one file for use elsewhere.",
        "  python -m search.export runs/classify-…\n"
        "  python -m search.export runs/segment-… --to torchscript --out segmenter.pt",
        ExportOptions,
    )


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status: 0 written, 1 the model cannot be written in this format, 2 a mistake of the user."""
    options = make_options(ExportOptions, vars(parser().parse_args(argv)))
    from search.packaging.packaging import ExportFailed, export
    from search.run_folder.files import StorageError

    reporter = Reporter()
    try:
        reporter.result(str(export(options, reporter)))
    except (ExportFailed, StorageError) as error:
        reporter.error(str(error))
        return 1
    except (ValueError, OSError) as error:
        reporter.error(one_line(error))
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
