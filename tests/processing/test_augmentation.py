import math

import numpy as np
import pytest

from itaclip_hf.processing.augmentation import View, compute_gaussian_kernel, compute_views, stack_views


def test_five_views_with_the_weights_of_the_paper():
    arrays = stack_views(compute_views(0.75), batch_size=2)
    assert arrays["augmentation_weight"].tolist() == [[0.25, 0.25, 0.25, 0.125, 0.125]] * 2
    assert arrays["augmentation_flip"][0].tolist() == [[False, False]] * 3 + [[True, False], [False, True]]
    assert {key: (array.shape, array.dtype.name) for key, array in arrays.items()} == {
        "augmentation_color": ((2, 5, 3, 3), "float32"),
        "augmentation_blur": ((2, 5, 11), "float32"),
        "augmentation_flip": ((2, 5, 2), "bool"),
        "augmentation_weight": ((2, 5), "float32"),
    }


def test_only_the_second_view_is_gray_and_only_the_third_is_blurred():
    arrays = stack_views(compute_views(0.6), batch_size=1)
    color, blur = arrays["augmentation_color"][0], arrays["augmentation_blur"][0]
    impulse = np.eye(11)[5]
    for view in (0, 2, 3, 4):
        np.testing.assert_array_equal(color[view], np.eye(3))
    np.testing.assert_allclose(color[1] @ [1, 10, 100], [0.2989 + 5.87 + 11.4] * 3, rtol=1e-6)
    for view in (0, 1, 3, 4):
        np.testing.assert_array_equal(blur[view], impulse)


def test_gaussian_kernel_follows_the_formula():
    weights = [math.exp(-(offset**2) / (2 * 5.0**2)) for offset in range(-5, 6)]
    expected = [weight / sum(weights) for weight in weights]
    np.testing.assert_allclose(compute_gaussian_kernel(11, 5.0), expected, rtol=1e-12)
    np.testing.assert_allclose(compute_views(0.75)[2].blur, expected, rtol=1e-12)


@pytest.mark.parametrize("weight", [0.0, 0.3, 0.7, 1.0])
def test_weights_sum_to_1(weight):
    assert stack_views(compute_views(weight), 1)["augmentation_weight"].sum() == pytest.approx(1)


@pytest.mark.parametrize(("weight", "count"), [(0.0, 2), (1.0, 3)])
def test_views_without_weight_are_left_out(weight, count):
    assert len(compute_views(weight)) == count


def test_kernels_are_only_as_long_as_needed():
    assert stack_views([View(weight=1.0)], 1)["augmentation_blur"].tolist() == [[[1.0]]]
