import torch

from voctrain.seeding import seed_epoch


def test_random_numbers_depend_on_seed_and_epoch_alone():
    def drawn(seed, number, before=0):
        torch.manual_seed(before)
        torch.rand(before)
        seed_epoch(seed, number)
        return tuple(torch.rand(4).tolist())

    assert drawn(3, 5) == drawn(3, 5, before=7)
    assert len({drawn(seed, number) for seed in range(5) for number in range(5)}) == 25
    assert drawn(2**70, 1) != drawn(2**70 + 1, 1)
