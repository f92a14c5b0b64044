"""Random seeds: every epoch has its own, so that a resumed training draws what an uninterrupted one would."""

import numpy as np
import torch


def seed_epoch(seed: int, number: int) -> None:
    """Seed all of torch's generators from (seed, epoch), so that an epoch does not depend on what ran before it."""
    torch.manual_seed(int(np.random.SeedSequence([seed, number]).generate_state(1, np.uint64)[0]))
