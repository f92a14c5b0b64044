"""python -m voctrain.data: generate the sample set, convert a set to the other layout, describe a set."""

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np


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
    data = "a folder in the Kaggle or devkit layout, or one of the built-in sets sample and voc2009"
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
    convert.set_defaults(command=_convert)

    describe = commands.add_parser("describe", help="count the images, classes, sizes and pixels of a set")
    describe.add_argument("folder", help=data)
    describe.add_argument("--use-val", action="store_true", help=use_val)
    describe.set_defaults(command=_describe)
    return parser


def _sample(folder: str, labeled: int, unlabeled: int, max_size: int, seed: int) -> None:
    from voctrain.data.sample import make_sample

    make_sample(folder, num_labeled=labeled, num_unlabeled=unlabeled, max_size=max_size, seed=seed)
    print(f"{folder}: {labeled} labeled and {unlabeled} test images in the Kaggle layout")


def _convert(source: str, target: str, to: str | None, void: str, use_val: bool) -> None:
    from voctrain.data import convert, discovery, layouts, named_sets

    listing = discovery.with_classes(layouts.read_layout(named_sets.folder_of(source), use_val=use_val))
    notes = convert.convert(listing, target, to=to, void=void)
    counts = f"{len(listing.ids)} labeled and {len(listing.test_ids)} test images"
    print(f"{target}: {counts}, converted from the {listing.layout} layout")
    for note in notes:
        print("note:", note)


def _describe(folder: str, use_val: bool) -> None:
    from voctrain.data import class_names, discovery, layouts, load, mask_files, named_sets

    listing = discovery.with_classes(layouts.read_layout(named_sets.folder_of(folder), use_val=use_val))
    data = load(folder, image_size=64, use_val=use_val)
    print(f"{listing.root}: {listing.layout} layout, fingerprint {data.fingerprint}")
    print(f"images   {len(data.ids)} labeled ({len(data.train)} train, {len(data.val)} validation),", end=" ")
    print(f"{len(data.test_ids)} test, {listing.masked} with masks")
    sizes = np.concatenate([data.sizes, data.test_sizes])
    print(f"sizes    {len(np.unique(sizes, axis=0))} different, height x width:", end=" ")
    summary = [("min", sizes.min(0)), ("median", np.median(sizes, 0).astype(int)), ("max", sizes.max(0))]
    print(", ".join(f"{name} {height} x {width}" for name, (height, width) in summary))
    counts = data.labels.sum(0, dtype=int)
    print("classes  images")
    for name, count in zip(data.classes, counts, strict=True):
        print(f"  {name:<12} {count:>5}  {'#' * round(50 * count / max(counts.max(), 1))}".rstrip())
    if masks := [e.mask for e in listing.examples if isinstance(e.mask, Path)]:
        with ThreadPoolExecutor() as pool:
            histograms = pool.map(
                lambda path: np.bincount(mask_files.read_mask(path, listing.classes).ravel(), minlength=256), masks
            )
            pixels = np.sum(list(histograms), axis=0)
        print(f"pixels   {pixels[0] / pixels.sum():.1%} background, {pixels[class_names.VOID] / pixels.sum():.1%} void")
    for warning in data.warnings:
        print("warning:", warning)


if __name__ == "__main__":
    sys.exit(main())
