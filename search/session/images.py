"""The images of a run, as its options describe them."""

from collections.abc import Callable

from search.options import SearchOptions
from voctrain.data import OWN_VAL, Data, load


def default_store_size(image_size: int) -> int:
    """So that a random crop of half the area shows all the detail that a model of this image size can see."""
    return image_size * 3 // 2


def load_images(
    options: SearchOptions, place: str | None = None, progress: Callable[[int, int], None] = lambda done, total: None
) -> Data:
    """The data of a run that has begun with these options, not yet with its split; `place` is where they are now.

    progress: see `voctrain.data.load`. Raises `ValueError` for data that cannot be read.
    """
    val = OWN_VAL if options.val == OWN_VAL else ()  # it decides which images are labeled; a list may be gone
    return _load(options, place or options.data, val, progress)


def split_images(options: SearchOptions, progress: Callable[[int, int], None] = lambda done, total: None) -> Data:
    """The data that options describe, which are complete, with the split that they ask for.

    progress: see `voctrain.data.load`. Raises `ValueError` for data that cannot be read or split.
    """
    return _load(options, options.data, options.val, progress)


def _load(
    options: SearchOptions,
    place: str,
    val: str | tuple[str, ...] | None,
    progress: Callable[[int, int], None],
) -> Data:
    assert options.image_size is not None
    return load(
        place,
        image_size=options.image_size,
        store_size=options.store_size or 0,  # runs of earlier versions have none
        use_val=options.use_val,
        val=val,
        group_by=options.group_by,
        classes=options.classes,
        mask_values=options.mask_value,
        skip_bad=options.skip_bad,
        corrections=options.corrections,
        resize=options.resize or "squash",  # runs of earlier versions have none
        progress=progress,
    )
