"""The benchmarks' formulas of the vision tower's work, against torch's own count of what runs."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.arithmetic import count_encoder_work, split_view_flops
from benchmarks.encoder_products import ProductShare, make_products, measure_product_share

METHODS = pytest.mark.parametrize(
    "method",
    [
        {},
        {"attention_maps": ("qk",), "intermediate_layers": (), "last_feed_forward": True},
        {"attention_maps": ("identity",), "intermediate_layers": ()},
    ],
    ids=["paper", "clip", "identity"],
)


@METHODS
def test_formula_counts_what_torch_counts(tiny_model, method):
    model = tiny_model(**method)
    model.set_attn_implementation("eager")  # torch does not count every fused kernel
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model.encode_patches(torch.randn(1, 3, 16, 16))
    expected = sum(split_view_flops(model.config, (16, 16)).values())
    # The tower projects the class token for CLIP's pooled output nowhere, but queries and keys always.
    assert counter.get_total_flops() == expected


@METHODS
def test_products_alone_are_those_of_the_tower(tiny_model, method):
    model = tiny_model(window_size=16, **method)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        make_products(model, views=3)()
    assert counter.get_total_flops() == 3 * sum(split_view_flops(model.config, (16, 16)).values())


def test_tower_and_its_products_take_turns_on_equal_work(tiny_model):
    share = measure_product_share(tiny_model(window_size=16), turns=2, views=3)
    assert share.flops == 3 * sum(split_view_flops(tiny_model().config, (16, 16)).values())
    assert len(share.encoder_seconds) == len(share.product_seconds) == 2
    assert ProductShare(3, 1, [2.0, 4.0, 8.0], [1.0, 3.0, 5.0]).median == 5 / 8


def test_image_of_the_paper_makes_175_window_views(tiny_model):
    config = tiny_model(window_size=224, window_stride=28).config
    assert count_encoder_work(config, (336, 367), views=5)[:2] == (35, 5)


def test_small_image_is_one_window_of_its_size(tiny_model):
    config = tiny_model(window_size=16).config
    work = count_encoder_work(config, (12, 8), views=3)
    assert work == (1, 3, sum(split_view_flops(config, (12, 8)).values()))
    assert work.flops == 3 * work.view_flops
