"""Networks with auxiliary outputs, which only training uses (Szegedy et al., 2015)."""

from torch import Tensor


def outputs_of(output: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """What a model returned as a tuple: its logits, then those of its auxiliary outputs, if any."""
    return tuple(output) if isinstance(output, tuple) else (output,)
