"""ITACLIP vision tower: CLIP's, with the attention of the last block rebuilt and any patch grid accepted.

Pixels come in, one feature vector per token goes out. Module names are those of CLIP, so stock weights load as they
are.
"""

from collections.abc import Collection
from functools import partial
from typing import NamedTuple, cast

import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.clip.configuration_clip import CLIPVisionConfig
from transformers.models.clip.modeling_clip import (
    CLIPMLP,
    CLIPAttention,
    CLIPEncoderLayer,
    CLIPVisionEmbeddings,
    CLIPVisionModel,
    eager_attention_forward,
)
from transformers.utils.generic import can_return_tuple

from .attention_maps import HeadProjections, attend_by_maps, compute_neighbourhood_prior, weigh_blocks
from .configuration_itaclip import ITACLIPConfig

__all__ = ["EncodedBlocks", "ITACLIPVisionModel"]


class ITACLIPVisionEmbeddings(CLIPVisionEmbeddings):
    """CLIP's patch, class and position embeddings for any image size; patch remainders are cut off."""

    image_size: int
    patch_size: int

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """(batch, 3, height, width) -> (batch, 1 + grid_h * grid_w, dim)."""
        weight = self.patch_embedding.weight
        patches = self.patch_embedding(pixel_values.to(weight.dtype))
        positions = self.interpolate_positions(patches.shape[-2:])
        patches = patches.flatten(2).transpose(1, 2)  # (batch, dim, grid_h, grid_w) -> (batch, patches, dim)
        class_token = self.class_embedding.expand(patches.shape[0], 1, -1)  # `len` would fix the batch in exports
        return torch.cat([class_token, patches], dim=1) + positions

    def interpolate_positions(self, grid: tuple[int, int]) -> torch.Tensor:
        """Position embeddings of a patch grid, (1 + grid_h * grid_w, dim).

        Sampled bicubically by the *scale factor* (n + 0.1) / √N per axis, as the published method does. Transformers'
        own interpolation to a *size* samples slightly other places.
        """
        positions = self.position_embedding(self.position_ids)[0]  # called, so that offloaded weights are fetched
        side = self.image_size // self.patch_size
        if tuple(grid) == (side, side):
            return positions
        table = positions[1:].T.reshape(1, -1, side, side)
        scale = tuple((length + 0.1) / side for length in grid)
        resized = nn.functional.interpolate(table.float(), scale_factor=scale, mode="bicubic", align_corners=False)
        return torch.cat([positions[:1], resized.flatten(2)[0].T.to(positions.dtype)])


class ITACLIPAttention(CLIPAttention):
    """CLIP's attention in two halves, so that other blocks' queries and keys can weigh this block's values."""

    def project(self, hidden_states: torch.Tensor) -> HeadProjections:
        """(batch, tokens, dim) -> queries, keys, values, each (batch, heads, tokens, head_dim)."""
        shape = (*hidden_states.shape[:-1], -1, self.head_dim)
        projections = (self.q_proj(hidden_states), self.k_proj(hidden_states), self.v_proj(hidden_states))
        return HeadProjections(*(projected.view(shape).transpose(1, 2) for projected in projections))

    def attend(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, prior: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Ordinary attention by the configured kernel, (batch, tokens, heads, head_dim)."""
        interface = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)
        dropout = self.dropout if self.training else 0.0
        return interface(self, query, key, value, prior, scaling=self.scale, dropout=dropout)[0]

    def merge_heads(self, attended: torch.Tensor) -> torch.Tensor:
        """(batch, tokens, heads, head_dim) -> (batch, tokens, dim), through the output projection."""
        return self.out_proj(attended.flatten(2))


class ITACLIPEncoderLayer(CLIPEncoderLayer):
    """A CLIP block that also hands out its queries, keys and values."""

    self_attn: ITACLIPAttention
    layer_norm1: nn.LayerNorm
    layer_norm2: nn.LayerNorm
    mlp: CLIPMLP

    def __init__(self, config: CLIPVisionConfig) -> None:
        super().__init__(config)
        self.self_attn = ITACLIPAttention(config)

    def forward(self, hidden_states: torch.Tensor) -> tuple[torch.Tensor, HeadProjections]:
        """(batch, tokens, dim) -> the same, and the block's projections."""
        projections = self.self_attn.project(self.layer_norm1(hidden_states))
        hidden_states = hidden_states + self.self_attn.merge_heads(self.self_attn.attend(*projections))
        return hidden_states + self.mlp(self.layer_norm2(hidden_states)), projections


class ITACLIPLastEncoderLayer(ITACLIPEncoderLayer):
    """The last block, rebuilt for dense features: other attention maps; residual and feed-forward by configuration."""

    def forward(
        self,
        hidden_states: torch.Tensor,
        intermediate: list[HeadProjections],
        grid: tuple[int, int],
        config: ITACLIPConfig,
    ) -> torch.Tensor:
        """(batch, 1 + grid_h * grid_w, dim) and the projections of the intermediate blocks -> the same shape."""
        attention = self.self_attn
        last = attention.project(self.layer_norm1(hidden_states))
        std = config.attention_prior_std
        prior = compute_neighbourhood_prior(grid, std, like=hidden_states) if std else None
        blocks = weigh_blocks(last, intermediate, config.intermediate_weight)
        attended = attend_by_maps(partial(attention.attend, prior=prior), blocks, config.attention_maps, last.value)
        attended = attention.merge_heads(attended)
        hidden_states = hidden_states + attended if config.last_residual else attended
        if config.last_feed_forward:
            hidden_states = hidden_states + self.mlp(self.layer_norm2(hidden_states))
        return hidden_states


class EncodedBlocks(NamedTuple):
    """Images after all blocks but the last: what the last block starts from, however it is configured.

    Attributes:
        hidden_states: (batch, 1 + grid_h * grid_w, dim), class token first.
        projections: Queries, keys and values of the intermediate blocks that were asked for, by number from 1.
        grid: Patch grid (height, width).
        states: The states that were asked for, before the first block and after each one; `None` for the others.
    """

    hidden_states: torch.Tensor
    projections: dict[int, HeadProjections]
    grid: tuple[int, int]
    states: list[torch.Tensor | None]


class ITACLIPVisionModel(CLIPVisionModel):
    """CLIP's vision tower with ITACLIP's last block.

    Part of [`ITACLIPForSemanticSegmentation`]; not meant to be loaded by itself.

    Args:
        config: Dimensions of the tower.
        itaclip_config: Says what the last block does; read anew in every forward pass.
    """

    _no_split_modules = ["ITACLIPEncoderLayer", "ITACLIPLastEncoderLayer", "ITACLIPVisionEmbeddings"]

    def __init__(self, config: CLIPVisionConfig, itaclip_config: ITACLIPConfig) -> None:
        super().__init__(config)
        self.itaclip_config = itaclip_config
        self.embeddings = ITACLIPVisionEmbeddings(config)
        self.encoder.layers = nn.ModuleList(ITACLIPEncoderLayer(config) for _ in range(config.num_hidden_layers - 1))
        self.encoder.layers.append(ITACLIPLastEncoderLayer(config))
        self.post_init()

    def compute_grid(self, height: int, width: int) -> tuple[int, int]:
        """Patch grid (height, width) of an image of that size."""
        patch_size = cast(int, self.embeddings.patch_size)
        return height // patch_size, width // patch_size

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor,
        interpolate_pos_encoding: bool = True,
        output_hidden_states: bool | int | list[int] | None = None,
        output_attentions: bool | None = None,
    ) -> BaseModelOutputWithPooling:
        """Encode images of one size, with the signature and outputs of [`~transformers.CLIPVisionModel`].

        Args:
            pixel_values: (batch, 3, height, width), CLIP-normalised.
            interpolate_pos_encoding: There for compatibility: any size is always accepted.
            output_hidden_states: Whether to return the states before the first block and after each one; an index or
                several for these alone (the others are `None`).
            output_attentions: There for compatibility: attention maps are never stored, so none is returned.

        Returns:
            `last_hidden_state` (batch, 1 + grid_h * grid_w, dim), class token first, before the post-layernorm;
            `pooler_output` (batch, dim), the class token after it; `hidden_states`.
        """
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        selected = _select_states(output_hidden_states, 1 + len(self.encoder.layers))
        encoded = self.encode_blocks(pixel_values, self.itaclip_config.intermediate_layers, selected)
        hidden_states = self.run_last_block(encoded, self.itaclip_config)
        states = [*encoded.states, hidden_states if len(encoded.states) in selected else None]
        return BaseModelOutputWithPooling(
            last_hidden_state=hidden_states,
            pooler_output=self.post_layernorm(hidden_states[:, 0]),
            hidden_states=cast(tuple[torch.Tensor, ...], tuple(states)) if selected else None,
        )

    def encode_blocks(
        self, pixel_values: torch.Tensor, layers: Collection[int], selected_states: Collection[int] = ()
    ) -> EncodedBlocks:
        """Run all blocks but the last, what the last block starts from, however it is configured.

        Args:
            pixel_values: (batch, 3, height, width), CLIP-normalised.
            layers: Intermediate blocks, counted from 1, whose projections are kept.
            selected_states: Indices of the states to keep: 0 before the first block, n after block n.
        """
        hidden_states = self.pre_layrnorm(self.embeddings(pixel_values))
        states = [hidden_states if 0 in selected_states else None]
        projections = {}
        for number, block in enumerate(self.encoder.layers[:-1], start=1):
            hidden_states, block_projections = block(hidden_states)
            if number in layers:
                projections[number] = block_projections
            states.append(hidden_states if number in selected_states else None)
        return EncodedBlocks(hidden_states, projections, self.compute_grid(*pixel_values.shape[-2:]), states)

    def run_last_block(self, encoded: EncodedBlocks, config: ITACLIPConfig) -> torch.Tensor:
        """Run the last block as `config` says: (batch, 1 + grid_h * grid_w, dim), class token first."""
        intermediate = [encoded.projections[layer] for layer in config.intermediate_layers]
        return self.encoder.layers[-1](encoded.hidden_states, intermediate, encoded.grid, config)


def _select_states(output_hidden_states: bool | int | list[int] | None, count: int) -> set[int]:
    if output_hidden_states is None or isinstance(output_hidden_states, bool):
        return set(range(count)) if output_hidden_states else set()
    indices = [output_hidden_states] if isinstance(output_hidden_states, int) else output_hidden_states
    return {index % count for index in indices if -count <= index < count}
