"""What Tune must not pickle."""


class NotPickled:
    """Tune pickles its parts in order to restore them. A search is resumed from its study instead."""

    def __reduce__(self) -> tuple:
        return object, ()
