import pytest
import torch
import torchvision.transforms.v2.functional as TF
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from voctrain.augment.transforms import COLORS, _grid, _homography, _warp, augment
from voctrain.config import ClassifyConfig

OFF = {"hflip": 0.0}
STRONG = {
    "hflip": 1.0,
    "vflip": 1.0,
    "rotation": 90.0,
    "translate": 0.5,
    "zoom": 0.5,
    "shear": 30.0,
    "perspective": 0.5,
    "crop_scale": 0.3,
    "brightness": 0.5,
    "contrast": 0.5,
    "saturation": 0.5,
    "hue": 0.4,
    "grayscale": 1.0,
}


def batch(size=16, images=8, channels_last=True) -> Tensor:
    torch.manual_seed(0)
    fine = torch.rand(images, 3, size, size)
    return fine.to(memory_format=torch.channels_last) if channels_last else fine


def config(**options) -> ClassifyConfig:
    return ClassifyConfig(**(OFF | options))


def warp(images: Tensor, **amounts) -> Tensor:
    """A warp by the given amounts, the same for all images."""
    size = len(images)
    geometry = {name: torch.tensor(a).float().view(-1, 1).expand(-1, size) for name, a in amounts.items()}
    return _warp(images, None, _homography(geometry, size), images.shape[-1])[0]


def test_augment_without_transforms_returns_the_inputs():
    images, masks = batch(), torch.zeros(8, 16, 16, dtype=torch.uint8)
    assert augment(images, config()) is images
    assert augment(images, config(num_ops=2)) is images
    same_images, same_masks = augment(images, config(), masks)
    assert same_images is images
    assert same_masks is masks


@pytest.mark.parametrize("name", STRONG)
@pytest.mark.parametrize("channels_last", [True, False])
def test_every_field_changes_every_image_and_keeps_range_and_layout(name, channels_last):
    images = batch(channels_last=channels_last)
    before = images.clone()
    out = augment(images, config(**{name: STRONG[name]}))
    assert torch.equal(images, before)  # the input is not modified
    assert (out != images).flatten(1).any(1).all()
    assert out.stride() == images.stride()
    assert out.min() >= 0
    assert out.max() <= 1


def test_flips_are_exact():
    images = batch()
    masks = torch.randint(0, 21, (8, 16, 16), dtype=torch.uint8)
    for options, dims in (({"hflip": 1.0}, [-1]), ({"vflip": 1.0}, [-2]), ({"hflip": 1.0, "vflip": 1.0}, [-1, -2])):
        flipped, flipped_masks = augment(images, config(**options), masks)
        assert torch.equal(flipped, images.flip(dims))
        assert torch.equal(flipped_masks, masks.flip(dims))
        torch.testing.assert_close(warp(images, **dict.fromkeys(options, 1.0)), images.flip(dims))


def test_flip_probability_is_a_fraction_of_the_images():
    images = batch(size=4, images=2000)
    out = augment(images, config(hflip=0.25))
    assert (out != images).flatten(1).any(1).float().mean().item() == pytest.approx(0.25, abs=0.04)


@pytest.mark.parametrize(("degrees", "turns"), [(90.0, 1), (-90.0, -1), (180.0, 2)])
def test_rotation_is_counterclockwise(degrees, turns):
    images = batch()
    torch.testing.assert_close(warp(images, rotation=degrees), images.rot90(turns, (2, 3)), atol=1e-4, rtol=0)


def test_translation_is_relative_to_the_side():
    images = batch()
    out = warp(images, translate=(0.25, -0.125))  # 4 pixels to the right, 2 up
    torch.testing.assert_close(out[:, :, :14, 4:], images[:, :, 2:, :12], atol=1e-4, rtol=0)
    torch.testing.assert_close(out[:, :, :14, :4], images[:, :, 2:, :4].flip(-1), atol=1e-4, rtol=0)  # reflected


def test_zoom_enlarges_the_center():
    images = batch().mean((2, 3), keepdim=True).expand(-1, -1, 16, 16).clone()
    images[:, :, 6:10, 6:10] = 1
    out = warp(images, zoom=1.0)  # twice as large
    torch.testing.assert_close(out[:, :, 5:11, 5:11], torch.ones(8, 3, 6, 6))
    torch.testing.assert_close(out[:, :, :3, :3], images[:, :, :3, :3])


def test_crop_has_the_given_area_and_stays_inside():
    torch.manual_seed(1)
    lost = torch.rand(1, 500) * 0.7
    matrix = _homography({"crop_scale": torch.cat([lost, torch.rand(3, 500) * 2 - 1])}, 500)
    torch.testing.assert_close(matrix[:, 0, 0] * matrix[:, 1, 1], 1 - lost[0])
    aspect = matrix[:, 0, 0] / matrix[:, 1, 1]
    assert aspect.max() <= 4 / 3 + 1e-5
    assert aspect.min() >= 3 / 4 - 1e-5
    assert (matrix[:, :2, 2].abs() + matrix[:, :2, :2].sum(2)).max() <= 1 + 1e-5
    corner = _homography({"crop_scale": torch.tensor([[0.75], [0.0], [-1.0], [1.0]])}, 1)  # a quarter, at bottom left
    torch.testing.assert_close(corner, torch.tensor([[[0.5, 0, -0.5], [0, 0.5, 0.5], [0, 0, 1]]]))


def test_crop_scale_is_the_minimum_area_of_a_crop():
    ramp = torch.linspace(0, 1, 32)
    images = torch.stack([ramp.expand(32, 32), ramp[:, None].expand(32, 32), torch.zeros(32, 32)]).expand(
        400, 3, 32, 32
    )
    out = augment(images, config(crop_scale=0.8))
    area = (out[:, 0, 16, 24] - out[:, 0, 16, 8]) * (out[:, 1, 24, 16] - out[:, 1, 8, 16]) * 31**2 / 16**2
    assert area.min().item() == pytest.approx(0.8, abs=0.01)
    assert area.max().item() == pytest.approx(1.0, abs=0.01)


def test_perspective_maps_moved_corners_to_corners():
    torch.manual_seed(2)
    moves = torch.rand(8, 50) * 0.6
    corners = torch.tensor([[-1.0, -1], [-1, 1], [1, -1], [1, 1]])
    moved = corners * (1 - moves.T.view(50, 4, 2))
    points = torch.cat([moved, torch.ones(50, 4, 1)], 2) @ _homography({"perspective": moves}, 50).mT
    torch.testing.assert_close(points[..., :2] / points[..., 2:], corners.expand(50, 4, 2), atol=1e-4, rtol=0)


def test_perspective_equals_torchvision():
    images = torch.nn.functional.interpolate(batch(4), (32, 32), mode="bilinear")
    moves = torch.tensor(
        [0.1, 0.3, 0.2, 0.0, 0.4, 0.25, 0.1, 0.2]
    )  # x and y of top left, bottom left, top right, bottom right
    corners = torch.tensor([[-1.0, -1], [-1, 1], [1, -1], [1, 1]])
    start, end = (
        [((x + 1) * 16, (y + 1) * 16) for x, y in c.tolist()] for c in (corners, corners * (1 - moves.view(4, 2)))
    )
    inside = TF.perspective(torch.ones(1, 1, 32, 32), start, end)[0, 0] == 1
    expected = TF.perspective(images, start, end, interpolation=TF.InterpolationMode.BILINEAR)
    actual = warp(images, perspective=moves.tolist())
    assert inside.float().mean() > 0.5
    # torchvision aligns corner pixels, not the corners of the image: half a pixel
    assert (actual - expected)[..., inside].abs().mean() < 0.01
    assert (images - expected)[..., inside].abs().mean() > 0.03


def test_warped_white_stays_white():
    white = torch.ones(8, 3, 64, 64)
    out = augment(white, config(rotation=180.0, shear=20.0, perspective=0.5))
    assert out.max() <= 1  # the weights of four pixels may sum to slightly more
    torch.testing.assert_close(out, white)


def test_geometric_transforms_are_applied_in_order():
    images = batch()
    both = warp(images, vflip=1.0, rotation=90.0)
    torch.testing.assert_close(both, images.flip(-2).rot90(1, (2, 3)), atol=1e-4, rtol=0)


GEOMETRIC = st.fixed_dictionaries(
    {
        "hflip": st.floats(0, 1),
        "vflip": st.floats(0, 1),
        "rotation": st.floats(0, 180),
        "translate": st.floats(0, 1),
        "zoom": st.floats(0, 0.9),
        "shear": st.floats(0, 80),
        "perspective": st.floats(0, 1),
        "crop_scale": st.floats(0.01, 1),
    }
)


@settings(deadline=None, max_examples=50)
@given(GEOMETRIC, st.integers(0, 1000), st.sampled_from([torch.uint8, torch.int64]))
def test_warped_masks_have_no_new_classes_and_images_stay_in_range(options, seed, dtype):
    images, masks = batch(), torch.tensor([0, 7, 20, 255], dtype=dtype)[torch.randint(0, 4, (8, 16, 16))]
    torch.manual_seed(seed)
    out, warped = augment(images, config(**options), masks)
    assert set(warped.unique().tolist()) <= {0, 7, 20, 255}
    assert warped.dtype == dtype
    assert warped.shape == masks.shape
    assert 0 <= out.min() <= out.max() <= 1  # NaN would fail


def test_masks_follow_images_and_are_void_beyond_the_border():
    masks = torch.zeros(8, 32, 32, dtype=torch.uint8)
    masks[:, 8:20, 4:24] = 1
    images = masks[:, None].expand(-1, 3, -1, -1).float()
    out, warped = augment(images, config(rotation=40.0, translate=0.2, zoom=0.3, perspective=0.3), masks)
    known = warped != 255
    assert 0.3 < known.float().mean() < 0.98
    assert ((out[:, 0] > 0.5) == (warped == 1))[known].float().mean() > 0.99
    shifted, _ = augment(images, config(translate=1e-9), masks)
    torch.testing.assert_close(shifted, images)


@pytest.mark.parametrize("amount", [-0.4, -0.1, 0.0, 0.25, 0.5])
@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "hue"])
def test_colors_equal_torchvision(name, amount):
    images = batch()
    images[0, :, :4], images[0, :, 4:8], images[0, :, 8:12] = 0.0, 0.5, 1.0  # without hue
    images[1, 0] = images[1, 1]  # two largest channels
    expected = getattr(TF, f"adjust_{name}")(images, amount if name == "hue" else 1 + amount)
    actual = COLORS[name](images, torch.full((1, 8), amount))
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=0)


def test_grayscale_equals_torchvision():
    images = batch()
    torch.testing.assert_close(augment(images, config(grayscale=1.0)), TF.rgb_to_grayscale(images, 3))


def test_amounts_differ_between_images():
    images = torch.full((8, 3, 4, 4), 0.5)
    means = augment(images, config(brightness=0.4)).mean((1, 2, 3))
    assert len(means.unique()) == 8
    assert 0.3 <= means.min() <= means.max() <= 0.7


def test_one_color_never_applies_both():
    images = torch.tensor([0.2, 0.4, 0.6]).view(1, 3, 1, 1).expand(500, 3, 2, 2)
    out = augment(images, config(brightness=0.2, grayscale=0.5, one_color=True))
    gray = out.std(1).amax((1, 2)) < 1e-6
    lit = (out - images).abs().amax((1, 2, 3)) > 1e-6
    assert gray.float().mean().item() == pytest.approx(0.25, abs=0.07)  # a coin toss halves it
    torch.testing.assert_close(out[gray], TF.rgb_to_grayscale(images[gray], 3))  # brightness unchanged
    assert (lit & ~gray).float().mean().item() == pytest.approx(0.5, abs=0.08)


@pytest.mark.parametrize("num_ops", [1, 2, 3, 5])
def test_num_ops_limits_transforms_per_image(num_ops):
    # three transforms that can be told apart: swapped top and bottom, swapped left and right, no colors
    images = torch.zeros(600, 3, 2, 2)
    images[:, 0] = torch.tensor([[0.1, 0.2], [0.4, 0.8]])
    out = augment(images, config(hflip=1.0, vflip=1.0, grayscale=1.0, num_ops=num_ops))
    light = out.sum(1)  # (N, 2, 2)
    given = torch.stack([light[:, 0, 0] > light[:, 0, 1], light[:, 0, 0] > light[:, 1, 0], out[:, 1, 0, 0] > 0], 1)
    assert (given.sum(1) == min(num_ops, 3)).all()
    assert given.float().mean(0).tolist() == pytest.approx([min(num_ops, 3) / 3] * 3, abs=0.07)


def test_same_seed_same_images():
    images, strong = batch(), config(**(STRONG | {"num_ops": 3}))
    outs = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        outs.append(augment(images, strong))
    assert torch.equal(outs[0], outs[1])
    assert not torch.equal(outs[0], outs[2])


def test_autocast_does_not_affect_coordinates():
    images, options = batch(32), config(rotation=30.0, perspective=0.3, contrast=0.2)
    torch.manual_seed(3)
    exact = augment(images, options)
    torch.manual_seed(3)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(augment(images, options), exact)


def test_grid_of_the_identity_is_the_pixel_centers():
    grid = _grid(torch.eye(3)[None], 2, 4)
    assert grid[0, :, 0, 1].tolist() == [-0.5, 0.5]
    assert grid[0, 0, :, 0].tolist() == [-0.75, -0.25, 0.25, 0.75]


@pytest.mark.parametrize("seed", range(5))
def test_crops_with_focus_contain_its_point(seed):
    torch.manual_seed(seed)
    masks = torch.zeros(64, 32, 32, dtype=torch.uint8)
    rows, columns = torch.randint(32, (2, 64))
    masks[torch.arange(64), rows, columns] = 7
    focus = (torch.stack([columns, rows]) * 2 + 1) / 32 - 1
    images = torch.rand(64, 3, 32, 32)
    _, cropped = augment(images, config(crop_scale=0.2), masks, focus)
    # In crops this small, a pixel is sampled at least once, except at the very border.
    inside = (rows > 0) & (rows < 31) & (columns > 0) & (columns < 31)
    assert (cropped == 7).flatten(1).any(1)[inside].all()
    _, anywhere = augment(images, config(crop_scale=0.2), masks, torch.full((2, 64), torch.nan))
    assert not (anywhere == 7).flatten(1).any(1).all()


def test_a_crop_of_a_larger_image_shows_its_detail():
    """A pattern of single pixels, which a copy of half the size would lose, survives a crop of a quarter."""
    stripes = (torch.arange(64) % 2).float().expand(1, 3, 64, 64).contiguous()
    masks = (torch.arange(64) // 32).expand(1, 64, 64).contiguous().byte()
    config = ClassifyConfig(crop_scale=0.25, hflip=0.0)
    torch.manual_seed(0)
    contrasts = []
    for _ in range(20):
        images, cut = augment(stripes, config, masks, size=32)
        assert images.shape == (1, 3, 32, 32)
        assert cut.shape == (1, 32, 32)
        contrasts.append(images.std().item())
    assert max(contrasts) > 0.25
    whole, _ = augment(stripes, ClassifyConfig(hflip=0.0), masks, size=32)
    assert whole.shape == (1, 3, 32, 32)
    assert whole.std() < 0.05  # bilinear, halfway between black and white
