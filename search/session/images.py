"""The images of a run, as its options describe them."""

from collections.abc import Callable

from search.options import SearchOptions
from voctrain.data import Data, load


def load_images(
    options: SearchOptions, place: str | None = None, progress: Callable[[int, int], None] = lambda done, total: None
) -> Data:
    """The data of a run with these options, which are complete; `place` is where its images are now.

    progress: see `voctrain.data.load`. Raises `ValueError` for data that cannot be read.
    """
    assert options.image_size is not None
    return load(
        place or options.data,
        image_size=options.image_size,
        use_val=options.use_val,
        classes=options.classes,
        mask_values=options.mask_value,
        skip_bad=options.skip_bad,
        resize=options.resize or "squash",  # runs of earlier versions have none
        progress=progress,
    )
