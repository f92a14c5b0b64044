import pytest
import torch

from voctrain.augment.copy_paste import copy_paste, draw_objects, draw_points
from voctrain.data.class_names import VOID


def masks_of_two(number=200):
    """A large object of class 1 and a small one of class 2, with void; the last mask has neither."""
    masks = torch.zeros(number, 8, 8, dtype=torch.uint8)
    masks[:, :4] = 1
    masks[:, 6, 6:] = 2
    masks[:, 4] = VOID
    masks[-1] = 0
    masks[-1, 0] = VOID
    return masks


def test_classes_are_drawn_by_weight_not_by_area():
    torch.manual_seed(0)
    masks = masks_of_two()
    objects = draw_objects(masks, torch.tensor([1.0, 3.0, 5.0]))  # no mask has class 3
    drawn = torch.tensor([masks[i][objects[i]].unique().item() for i in range(199)])
    assert (drawn == 2).float().mean().item() == pytest.approx(0.75, abs=0.08)
    assert objects[:199].flatten(1).sum(1).unique().tolist() == [2, 32]  # all pixels of the class
    assert not objects[-1].any()


def test_points_lie_within_objects():
    torch.manual_seed(0)
    masks = masks_of_two()
    x, y = draw_points(masks, torch.tensor([1.0, 1.0]), 1.0)
    assert x[:-1].isfinite().all()
    assert x[-1].isnan()
    columns, rows = ((((v[:-1] + 1) * 8 - 1) / 2).round().long() for v in (x, y))
    assert set(masks[torch.arange(199), rows, columns].tolist()) == {1, 2}
    some = draw_points(masks, torch.tensor([1.0, 1.0]), 0.25)[0].isfinite().float().mean()
    assert some.item() == pytest.approx(0.25, abs=0.1)


def test_objects_are_pasted_with_their_masks():
    torch.manual_seed(0)
    masks = torch.zeros(2, 4, 4, dtype=torch.uint8)
    masks[0, 1, 1:3], masks[1, 3] = 5, 9
    images = torch.stack([torch.full((3, 4, 4), 0.25), torch.full((3, 4, 4), 0.75)])
    before = images.clone(), masks.clone()
    out, pasted = copy_paste(images, masks, torch.ones(20), 1.0)
    assert pasted[0].tolist() == [[0] * 4, [0, 5, 5, 0], [0] * 4, [9] * 4]
    assert pasted[1].tolist() == [[0] * 4, [0, 5, 5, 0], [0] * 4, [9] * 4]
    assert out[0, 0, 3].tolist() == [0.75] * 4
    assert out[1, 2, 1].tolist() == [0.75, 0.25, 0.25, 0.75]
    assert torch.equal(images, before[0])
    assert torch.equal(masks, before[1])
    assert copy_paste(images, masks, torch.ones(20), 0.0)[1].tolist() == masks.tolist()
