"""PAMR as a sparse product against its published convolution form."""

import pytest
import torch
from torch.nn.functional import conv2d, interpolate, pad

from itaclip_hf.modeling.query_maps import compute_refinement_matrix, resize_guide


def _neighbours_by_convolution(maps, dilations, centre):
    """(channels, height, width) -> (channels, samples, height, width): one 3x3 kernel for each neighbour, dilated."""
    kernels = torch.eye(9).view(9, 1, 3, 3)
    kernels = kernels if centre else kernels[[0, 1, 2, 3, 5, 6, 7, 8]]
    return torch.cat(
        [conv2d(pad(maps[None], (d,) * 4, mode="replicate").transpose(0, 1), kernels, dilation=d) for d in dilations],
        dim=1,
    )


def _refine_by_convolution(image, maps, steps, dilations):
    std = _neighbours_by_convolution(image, dilations, centre=True).std(1, keepdim=True)
    difference = (_neighbours_by_convolution(image, dilations, centre=False) - image[:, None]).abs()
    weights = (-difference / (1e-8 + 0.1 * std)).mean(0).softmax(0)
    for _ in range(steps):
        maps = (_neighbours_by_convolution(maps, dilations, centre=False) * weights).sum(1)
    return maps


@pytest.mark.parametrize(("dilations", "steps"), [((8, 16), 10), ((1, 2, 4), 3), ((1,), 1), ((30,), 2)])
def test_refinement_equals_the_convolution_form(dilations, steps):
    image, maps = torch.randn(3, 24, 35), torch.randn(4, 24, 35)
    expected = _refine_by_convolution(image, maps, steps, dilations)
    found = compute_refinement_matrix(image, dilations).refine(maps.permute(1, 2, 0), steps)
    torch.testing.assert_close(found.permute(2, 0, 1), expected, atol=3e-6, rtol=1e-5)


@pytest.mark.parametrize("size", [(24, 35), (50, 20), (13, 90), (1, 1)])
def test_guide_is_resized_bilinearly(size):
    image = torch.randn(3, 24, 35)
    expected = interpolate(image[None], size, mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(resize_guide(image, size), expected, atol=2e-5, rtol=1e-5)


def test_flat_parts_of_the_guide_stay_flat_to_the_last_bit():
    image = torch.rand(3, 1, 1).expand(3, 90, 300).clone()
    assert torch.equal(resize_guide(image, (151, 499)), image[:, :1, :1].expand(3, 151, 499))


def test_weights_are_a_distribution_even_where_the_image_is_flat():
    matrix = compute_refinement_matrix(torch.zeros(3, 6, 7), (1, 2))
    torch.testing.assert_close(matrix.weights, torch.full((42, 16), 1 / 16))


def test_refinement_lets_no_map_cross_a_sharp_edge():
    image = torch.zeros(3, 20, 20)
    image[:, :, 10:] = 1
    image += 0.001 * torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    maps = (image[:1] > 0.5).float().permute(1, 2, 0)
    refined = compute_refinement_matrix(image, (1,)).refine(maps, 10)
    assert ((refined > 0.5) == (maps > 0.5)).all()
