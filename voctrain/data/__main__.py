"""python -m voctrain.data: draw the sample set, convert a set to the other layout, describe a set."""

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np


def main(argv: list[str] | None = None) -> int:
    """Run one command; 0, or 2 after one line on stderr for what a user can put right."""
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
        prog="python -m voctrain.data", description="Make, convert and describe image sets."
    )
    commands = parser.add_subparsers(required=True, metavar="{sample,convert,describe}")
    source = "a folder in the Kaggle or devkit layout, voc2009 or sample"

    sample = commands.add_parser("sample", help="draw the sample set into a folder, in the Kaggle layout")
    sample.add_argument("folder", help="a new or empty folder")
    sample.add_argument("--labeled", type=int, default=240, metavar="N", help="labeled images (default 240)")
    sample.add_argument("--unlabeled", type=int, default=60, metavar="M", help="test images (default 60)")
    sample.add_argument("--max-size", type=int, default=160, metavar="S", help="longest side in pixels (default 160)")
    sample.add_argument("--seed", type=int, default=0, help="another seed draws other images (default 0)")
    sample.set_defaults(command=_sample)

    convert = commands.add_parser("convert", help="write a set in the other layout")
    convert.add_argument("source", help=source)
    convert.add_argument("target", help="a new or empty folder; as a devkit it is the folder of the year (VOC2009)")
    convert.add_argument("--to", choices=("kaggle", "devkit"), help="default: the layout that the source has not")
    convert.add_argument("--void", choices=("keep", "0"), default="keep", help="void pixels: 255, or 0 (default keep)")
    convert.add_argument("--use-val", action="store_true", help="the devkit's val.txt is labeled too")
    convert.set_defaults(command=_convert)

    describe = commands.add_parser("describe", help="count images, classes, shapes and pixels of a set")
    describe.add_argument("folder", help=source)
    describe.add_argument("--use-val", action="store_true", help="the devkit's val.txt is labeled too")
    describe.set_defaults(command=_describe)
    return parser


def _sample(folder: str, labeled: int, unlabeled: int, max_size: int, seed: int) -> None:
    from voctrain.data.sample import make_sample

    make_sample(folder, num_labeled=labeled, num_unlabeled=unlabeled, max_size=max_size, seed=seed)
    print(f"{folder}: {labeled} labeled and {unlabeled} test images in the Kaggle layout")


def _convert(source: str, target: str, to: str | None, void: str, use_val: bool) -> None:
    from voctrain.data import convert, layouts, named_sets

    listing = layouts.read_layout(named_sets.folder_of(source), use_val=use_val)
    notes = convert.convert(listing, target, to=to, void=void)
    counts = f"{len(listing.ids)} labeled and {len(listing.test_ids)} test images"
    print(f"{target}: {counts}, from the {listing.layout} layout")
    for note in notes:
        print("note:", note)


def _describe(folder: str, use_val: bool) -> None:
    from voctrain.data import layouts, load, named_sets

    listing = layouts.read_layout(named_sets.folder_of(folder), use_val=use_val)
    data = load(folder, image_size=64, use_val=use_val)
    print(f"{listing.root}: {listing.layout} layout, fingerprint {data.fingerprint}")
    print(f"images   {len(data.ids)} labeled ({len(data.train)} train, {len(data.val)} validation),", end=" ")
    print(f"{len(data.test_ids)} test, masks for {len(listing.ids) - listing.masks.count(None)}")
    sizes = np.concatenate([data.sizes, data.test_sizes])
    print(f"shapes   {len(np.unique(sizes, axis=0))} different, height x width:", end=" ")
    summary = [("min", sizes.min(0)), ("median", np.median(sizes, 0).astype(int)), ("max", sizes.max(0))]
    print(", ".join(f"{name} {height} x {width}" for name, (height, width) in summary))
    counts = data.labels.sum(0, dtype=int)
    print("classes  images")
    for name, count in zip(data.classes, counts, strict=True):
        print(f"  {name:<12} {count:>5}  {'#' * round(50 * count / max(counts.max(), 1))}".rstrip())
    if masks := [path for path in listing.masks if path is not None]:
        with ThreadPoolExecutor() as pool:
            pixels = sum(pool.map(lambda path: np.bincount(layouts.read_mask(path).ravel(), minlength=256), masks))
        print(f"pixels   {pixels[0] / pixels.sum():.1%} background, {pixels[255] / pixels.sum():.1%} void")
    for warning in data.warnings:
        print("warning:", warning)


if __name__ == "__main__":
    sys.exit(main())
