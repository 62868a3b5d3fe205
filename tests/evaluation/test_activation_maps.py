"""Position tables of published systems against plain steps."""

import types

import pytest
import torch
import torch.nn.functional as F

from itaclip_hf.evaluation.running.baselines.activation_maps import embed_patches


def make_tower() -> torch.nn.Module:
    """A grid of 4x4 patches of 4x4 pixels, and positions that half precision rounds."""
    torch.manual_seed(0)
    tower = torch.nn.Module()
    tower.embeddings = types.SimpleNamespace(
        patch_embedding=torch.nn.Conv2d(3, 8, 4, 4, bias=False),
        position_embedding=torch.nn.Embedding(17, 8),
        class_embedding=torch.randn(8),
    )
    tower.pre_layrnorm = torch.nn.Identity()
    return tower


@pytest.mark.parametrize("always_rounds", [False, True])
@pytest.mark.parametrize("size", [(16, 16), (16, 24), (8, 8)])
@torch.no_grad()
def test_tables_are_rounded_as_a_whole_where_the_published_programs_do_it(size, always_rounds) -> None:
    tower, pixels = make_tower(), torch.randn(1, 3, *size)
    table, grid = tower.embeddings.position_embedding.weight, (size[0] // 4, size[1] // 4)
    if grid != (4, 4):
        square = table[1:].T.reshape(1, 8, 4, 4)
        stretched = F.interpolate(square, size=grid, mode="bilinear", align_corners=False)
        table = torch.cat([table[:1], stretched.reshape(8, -1).T])
    if grid != (4, 4) or always_rounds:
        assert not torch.equal(table[:1], table[:1].half().float())  # the class token's row, too
        table = table.half().float()
    patches = tower.embeddings.patch_embedding(pixels)[0].flatten(1).T
    expected = torch.cat([tower.embeddings.class_embedding[None], patches]) + table
    torch.testing.assert_close(embed_patches(tower, pixels, always_rounds)[0], expected, atol=0, rtol=0)
