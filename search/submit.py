"""python -m search.submit: the submission for the test images of a set."""

import sys

from search.options import Parser, without_traceback


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status: 0 written, 2 a mistake of the user."""
    parser = Parser(prog="python -m search.submit", description="Write the submission for the test images of a set.")
    add = parser.add_argument
    add("--data", required=True, metavar="DIR", help="a VOC folder, voc2009 or sample")
    add("--classify", metavar="RUN", help="a run, or a checkpoint file; without it classes are those of the masks")
    add("--segment", metavar="RUN", help="a run, or a checkpoint file; without it segmentation rows are empty")
    add("--gate", action="store_true", help="suppress classes that the classifier does not see; needs two runs")
    add("--out", default="submission.csv", metavar="FILE", help="(submission.csv)")
    add("--flip", action="store_true", help="average with the predictions of the mirrored images")
    add("--scales", nargs="+", type=float, default=[1.0], metavar="F", help="average masks over these sizes (1)")
    arguments = parser.parse_args(argv)
    if arguments.classify is None and arguments.segment is None:
        parser.error("give --classify RUN, --segment RUN or both")
    if arguments.gate and (arguments.classify is None or arguments.segment is None):
        parser.error("--gate needs --classify RUN and --segment RUN")
    if any(not 0.1 <= scale <= 4 for scale in arguments.scales):
        parser.error("--scales must lie in 0.1 to 4")
    from search.submission.submission import submit

    try:
        print(submit(arguments))
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(without_traceback(main))
