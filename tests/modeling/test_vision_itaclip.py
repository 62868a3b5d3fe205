"""Position embeddings of other grids, and hidden states of the tower."""

import pytest
import torch
from torch.nn.functional import interpolate
from transformers import CLIPModel


def test_position_embeddings_at_the_native_grid_are_untouched(tiny_model):
    embeddings = tiny_model().vision_model.embeddings
    assert torch.equal(embeddings.interpolate_positions((4, 4)), embeddings.position_embedding.weight)


@pytest.mark.parametrize("grid", [(3, 5), (8, 2), (4, 7)])
def test_position_embeddings_are_sampled_by_scale_factor(tiny_model, grid):
    embeddings = tiny_model().vision_model.embeddings
    weight = embeddings.position_embedding.weight.data
    # Bicubic resampling is separable: sample each axis alone, at source position (i + 0.5) * 4 / (n + 0.1) - 0.5.
    expected = weight[1:].view(4, 4, 32)
    for axis, length in enumerate(grid):
        moved = expected.movedim(axis, -1)
        expected = _cubic_samples(moved, length, 4 / (length + 0.1)).movedim(-1, axis)
    found = embeddings.interpolate_positions(grid)
    torch.testing.assert_close(found[0], weight[0])
    torch.testing.assert_close(found[1:], expected.reshape(-1, 32), atol=1e-6, rtol=1e-5)
    by_size = interpolate(weight[1:].T.view(1, 32, 4, 4), size=grid, mode="bicubic")[0].flatten(1).T
    assert (found[1:] - by_size).abs().max() > 1e-4


def _cubic_samples(signal, length, step, a=-0.75):
    """Cubic convolution (Keys 1981, a = -0.75) of the last axis at (i + 0.5) * step - 0.5, edges repeated."""

    def kernel(x):
        x = abs(x)
        if x <= 1:
            return (a + 2) * x**3 - (a + 3) * x**2 + 1
        return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0

    columns = []
    for index in range(length):
        place = (index + 0.5) * step - 0.5
        first = int(place // 1) - 1
        taps = [(min(max(tap, 0), signal.shape[-1] - 1), kernel(place - tap)) for tap in range(first, first + 4)]
        columns.append(sum(weight * signal[..., tap] for tap, weight in taps))
    return torch.stack(columns, -1)


def test_patch_remainders_are_cut_off(tiny_model):
    model = tiny_model()
    pixels = torch.randn(1, 3, 18, 23)
    with torch.inference_mode():
        found = model.encode_patches(pixels)
        cut = model.encode_patches(pixels[..., :16, :20])
    assert found.shape == (1, 4, 5, 24)
    assert torch.equal(found, cut)


def test_hidden_states_before_the_last_block_are_those_of_clip(tiny_model):
    model = tiny_model()
    clip = CLIPModel(model.config).eval()
    clip.load_state_dict(model.state_dict())
    pixels = torch.randn(2, 3, 16, 16)
    with torch.inference_mode():
        found = model.vision_model(pixels, output_hidden_states=True).hidden_states
        expected = clip.vision_model(pixels, output_hidden_states=True).hidden_states
    assert len(found) == 4
    for ours, theirs in zip(found[:-1], expected, strict=False):
        assert torch.equal(ours, theirs)
