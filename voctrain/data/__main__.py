"""python -m voctrain.data: generate the sample set, convert a set to the other layout, describe a set."""

import argparse
import sys
from pathlib import Path


def main(argv: list[str] | None = None) -> int:
    """Run one command. Returns 0, or 2 after printing the user's mistake as one line on stderr."""
    arguments = vars(_parser().parse_args(argv))
    command = arguments.pop("command")
    try:
        command(**arguments)
    except (ValueError, OSError) as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m voctrain.data", description="Generate, convert and describe image sets."
    )
    commands = parser.add_subparsers(required=True, metavar="{sample,convert,describe}")
    data = "a folder of images with labels or masks, or one of the built-in sets sample and voc2009"
    use_val = "also use the devkit's val.txt as labeled images"

    sample = commands.add_parser("sample", help="generate the synthetic sample set in the Kaggle layout")
    sample.add_argument("folder", help="a new or empty folder")
    for option, default, metavar, text in (
        ("--labeled", 240, "N", "number of labeled images"),
        ("--unlabeled", 60, "M", "number of test images"),
        ("--max-size", 160, "PX", "longest side of an image in pixels"),
        ("--seed", 0, "N", "random seed"),
    ):
        sample.add_argument(option, type=int, default=default, metavar=metavar, help=f"{text} (default: {default})")
    sample.set_defaults(command=_sample)

    convert = commands.add_parser("convert", help="write a set in the other layout")
    convert.add_argument("source", help=data)
    convert.add_argument("target", help="a new or empty folder; in the devkit layout, the folder of the year (VOC2009)")
    convert.add_argument("--to", choices=("kaggle", "devkit"), help="target layout (default: the other one)")
    convert.add_argument(
        "--void",
        choices=("keep", "0"),
        default="keep",
        help="keep void pixels at 255, or set them to 0 (default: keep)",
    )
    convert.add_argument("--use-val", action="store_true", help=use_val)
    _add_classes(convert)
    convert.set_defaults(command=_convert)

    describe = commands.add_parser("describe", help="count what is in a set, name all bad files, and draw a sheet")
    describe.add_argument("folder", help=data)
    describe.add_argument("--use-val", action="store_true", help=use_val)
    describe.add_argument("--sheet", metavar="FILE", help="the contact sheet (default: SET-sheet.png)")
    _add_classes(describe)
    describe.set_defaults(command=_describe)
    return parser


def _add_classes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--classes", metavar="FILE", help="class names, one per line, or a labelmap.txt")
    parser.add_argument(
        "--mask-value",
        metavar="VALUE=CLASS",
        nargs="+",
        default=[],
        help="what mask values mean, such as 255=1 or 7=cell (0: background, 255: void)",
    )


def _sample(folder: str, labeled: int, unlabeled: int, max_size: int, seed: int) -> None:
    from voctrain.data.sample import make_sample

    make_sample(folder, num_labeled=labeled, num_unlabeled=unlabeled, max_size=max_size, seed=seed)
    print(f"{folder}: {labeled} labeled and {unlabeled} test images in the Kaggle layout")


def _convert(
    source: str, target: str, to: str | None, void: str, use_val: bool, classes: str | None, mask_value: list[str]
) -> None:
    from voctrain.data import convert, discovery, layouts, named_sets

    listing = layouts.read_layout(
        named_sets.folder_of(source), use_val=use_val, classes=classes, mask_values=mask_value
    )
    listing = discovery.with_classes(listing)
    notes = convert.convert(listing, target, to=to, void=void)
    counts = f"{len(listing.ids)} labeled and {len(listing.test_ids)} test images"
    print(f"{target}: {counts}, converted from the {listing.layout} layout")
    for note in notes:
        print("note:", note)


def _describe(folder: str, use_val: bool, classes: str | None, mask_value: list[str], sheet: str | None) -> None:
    from voctrain.data import description, discovery, layouts, named_sets

    listing = layouts.read_layout(
        named_sets.folder_of(folder), use_val=use_val, classes=classes, mask_values=mask_value
    )
    found = description.describe(discovery.with_classes(listing))
    for line in found.lines():
        print(line)
    if found.facts:
        path = Path(sheet or f"{Path(folder).resolve().name}-sheet.png")
        found.contact_sheet().save(path)
        print(f"sheet    {path}")
    for message in found.bad:
        print("bad:", " ".join(message.split()), file=sys.stderr)
    if found.bad:
        total = len(found.bad) + len(found.facts) + len(found.test_facts)
        raise ValueError(
            f"every file must be readable, but {len(found.bad)} of {total} images are bad: repair them, or search with"
            " --skip-bad"
        )
    found.check()


if __name__ == "__main__":
    sys.exit(main())
