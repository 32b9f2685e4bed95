"""Augmentation keeps pictures and depths together."""

import torch

from models.depth.augment import augment, merge, recolour, window
from models.depth.net import normalise

NEAR = torch.linspace(0.1, 1, 16).expand(4, 16, 16).contiguous()  # a slope from left to right
IMAGES = (NEAR * 200)[..., None].expand(4, 16, 16, 3).round().byte()  # as bright as it is near


def random(seed=0):
    return torch.Generator().manual_seed(seed)


def test_windows_take_picture_and_disparity_from_the_same_place():
    grey = normalise(IMAGES).mean(1, keepdim=True).expand(-1, 3, -1, -1)
    pixels, disparity = window(grey, NEAR, random(), zoom=2.0)
    for picture, depth in zip(pixels[:, 0], disparity, strict=True):
        assert torch.corrcoef(torch.stack([picture.flatten(), depth.flatten()]))[0, 1] > 0.99
    assert len({tuple(d[0].tolist()) for d in disparity}) == 4  # four different windows


def test_merging_puts_the_nearer_thing_in_front():
    images = torch.stack([torch.full((2, 2, 3), value, dtype=torch.uint8) for value in (10, 20)])
    disparity = torch.tensor([[[1.0, 0.1], [1.0, 0.1]], [[0.4, 0.4], [0.4, 0.4]]])
    pictures, depths = merge(images, disparity, random(), share=1.0)
    assert pictures[0, :, :, 0].tolist() == [[10, 20], [10, 20]]  # 0.4, moved by up to 30 %, lies between 0.1 and 1
    assert (depths >= disparity).all()
    assert depths[0, 0, 0] == 1.0


def test_nothing_is_merged_where_nothing_is_asked_for():
    pictures, depths = merge(IMAGES, NEAR, random(), share=0.0)
    assert torch.equal(pictures, IMAGES)
    assert torch.equal(depths, NEAR)


def test_pictures_without_colour_have_equal_channels_before_the_tint():
    coloured = torch.randn(4, 3, 8, 8, generator=random(1))
    grey = recolour(coloured, random(), jitter=0.0, grey=1.0)
    assert torch.equal(grey[:, 0], grey[:, 1])
    assert torch.equal(recolour(coloured, random(), jitter=0.0, grey=0.0), coloured)


def test_augmentation_is_a_function_of_its_generator():
    options = {"zoom": 2.0, "jitter": 0.3, "merged": 0.5, "grey": 0.2}
    one, two, three = (augment(IMAGES, NEAR, random(seed), **options)[0] for seed in (3, 3, 4))
    assert torch.equal(one, two)
    assert not torch.equal(one, three)
