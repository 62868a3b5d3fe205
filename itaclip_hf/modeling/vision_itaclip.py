"""ITACLIP vision tower: CLIP's, with the attention of the last block rebuilt and any patch grid accepted.

Pixels come in, one feature vector per token goes out. Module names are those of CLIP, so stock weights load as they
are.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
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

from .attention_maps import BlockContext, HeadProjections, MapTerm, attend_by_maps, compute_neighbourhood_prior
from .configuration_itaclip import ITACLIPConfig
from .patch_similarity import (
    clean_patches,
    compute_cosines,
    find_outliers,
    gate_similarity,
    join_regions,
    limit_to_regions,
    resize_patches,
    sample_regions,
    smooth_patches,
)

__all__ = ["EncodedBlocks", "ITACLIPVisionModel", "LastStates", "ProxyFeatures"]


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


ProxyFeatures = dict[str, tuple[torch.Tensor, tuple[int, int]]]
"""Features of a proxy's patches and their grid, by kind; see `encode_proxy`."""


class EncodedBlocks(NamedTuple):
    """Images after all blocks but the last: what the last block starts from, however it is configured.

    Attributes:
        hidden_states: (batch, 1 + grid_h * grid_w, dim), class token first.
        projections: Queries, keys and values of the blocks that were asked for, by number from 1.
        grid: Patch grid (height, width).
        states: The states that were asked for, before the first block and after each one; `None` for the others.
        proxied: What a proxy makes of the images, of the kinds that were asked for.
        regions: (batch, height, width) region of each pixel, 0 for none, where there are any.
    """

    hidden_states: torch.Tensor
    projections: dict[int, HeadProjections]
    grid: tuple[int, int]
    states: list[torch.Tensor | None]
    proxied: ProxyFeatures
    regions: torch.Tensor | None = None

    def patches_after(self, block: int, is_outlier: torch.Tensor | None = None) -> torch.Tensor:
        """(batch, grid_h * grid_w, dim) after a block whose states were asked for, cleaned of outliers if given."""
        patches = cast(torch.Tensor, self.states[block])[:, 1:]
        return patches if is_outlier is None else clean_patches(patches, is_outlier, self.grid)


class PatchRelations(NamedTuple):
    """What the last block knows of the patches of a window beside their features; see `patch_similarity.py`.

    Attributes:
        grid: Patch grid that the last block answers on; the proxy's where it is the proxy that relates patches.
        is_outlier: (batch, patches) bool, patches to be cleaned.
        attention: (batch, N, N) the attention map of how much patches are alike.
        regions: (batch, grid_h * grid_w) joined region of each of CLIP's patches, 0 for none.
        smoothing: (batch, patches, patches) cosines by which patches are smoothed after the block, in every pass.
    """

    grid: tuple[int, int]
    is_outlier: torch.Tensor | None = None
    attention: torch.Tensor | None = None
    regions: torch.Tensor | None = None
    smoothing: torch.Tensor | None = None


class ITACLIPLastEncoderLayer(ITACLIPEncoderLayer):
    """The last block, rebuilt for dense features: other attention maps; residual and feed-forward by configuration."""

    def forward(
        self, tokens: torch.Tensor, encoded: EncodedBlocks, relations: PatchRelations, config: ITACLIPConfig
    ) -> torch.Tensor:
        """Run the block on tokens, which are those of `encoded` or something made of them.

        Args:
            tokens: (batch, 1 + grid_h * grid_w, dim), class token first.
            encoded: All blocks before.
            relations: How the patches are related.
            config: Says which maps, and what stays.

        Returns:
            (batch, tokens, dim), on the grid of `relations`; without class token where the block does without.
        """
        class_token = tokens[:, :1]
        tokens = tokens if config.last_class_token else tokens[:, 1:]
        projections = self._project(tokens, encoded, relations)
        terms = self._choose_terms(projections, encoded, relations, config)
        attended = self.self_attn.merge_heads(attend_by_maps(terms, projections.value))
        hidden_states = tokens + attended if config.last_residual else attended
        if config.last_feed_forward:
            hidden_states = hidden_states + self.mlp(self.layer_norm2(hidden_states))
        if config.class_token_share:
            hidden_states = hidden_states + config.class_token_share * class_token
        return hidden_states

    def compute_map(
        self, tokens: torch.Tensor, encoded: EncodedBlocks, relations: PatchRelations, config: ITACLIPConfig
    ) -> torch.Tensor:
        """The attention map by itself, for explanations: as for `forward` -> (batch, tokens, heads, tokens)."""
        last = self._project(tokens if config.last_class_token else tokens[:, 1:], encoded, relations)
        # What weighs the identity matrix in the place of values is the map, of whatever kind.
        identity = torch.eye(last.value.shape[-2]).to(last.value).expand(*last.value.shape[:-1], -1)
        return attend_by_maps(self._choose_terms(last, encoded, relations, config), identity)

    def _project(self, tokens: torch.Tensor, encoded: EncodedBlocks, relations: PatchRelations) -> HeadProjections:
        projections = self.self_attn.project(self.layer_norm1(tokens))
        if relations.grid == encoded.grid:
            return projections
        # The proxy's, on which nothing but its map lives, so that queries and keys are not asked.
        return projections._replace(value=_resize_heads(projections.value, encoded.grid, relations.grid))

    def _choose_terms(
        self, last: HeadProjections, encoded: EncodedBlocks, relations: PatchRelations, config: ITACLIPConfig
    ) -> list[MapTerm]:
        """The maps of the last block, and those of intermediate blocks, which share a part of the weight."""
        prior = None
        if config.attention_prior_std:
            prior = compute_neighbourhood_prior(encoded.grid, config.attention_prior_std, like=last.value)
            prior = prior if config.last_class_token else prior[..., 1:, 1:]
        similarity = relations.attention
        if similarity is not None and config.last_class_token:  # it sees itself alone, and no patch sees it
            similarity = nn.functional.pad(similarity, (1, 0, 1, 0))
            similarity[:, 0, 0] = 1.0
        context = BlockContext(self.self_attn.attend, config, config.last_class_token)
        weights = config.attention_map_weights or (1.0,) * len(config.attention_maps)
        layers, share = config.intermediate_layers, config.intermediate_weight
        # Prior and similarity are the last block's alone; intermediate blocks lend what they attend to, as it is.
        own = context._replace(prior=prior, similarity=similarity)
        terms = [
            MapTerm((1.0 - share if layers else 1.0) * weight, name, last, own)
            for weight, name in zip(weights, config.attention_maps, strict=True)
        ]
        for layer in layers:
            of_layer = encoded.projections[layer]
            if not config.last_class_token:
                of_layer = HeadProjections(*(part[:, :, 1:] for part in of_layer))
            terms += [  # of which there may be fewer than weights
                MapTerm(share / len(layers) * weight, name, of_layer, context)
                for weight, name in zip(weights, config.intermediate_maps or config.attention_maps, strict=False)
            ]
        return terms


class LastStates(NamedTuple):
    """What the last block gives: one summand of the features or several.

    Attributes:
        branches: Weight and hidden states of each, (batch, tokens, dim); they are summed after the post-layernorm.
        grid: Patch grid; in front of its patches stands a class token or none.
    """

    branches: list[tuple[float, torch.Tensor]]
    grid: tuple[int, int]

    @property
    def num_patches(self) -> int:
        """Number of patches."""
        return self.grid[0] * self.grid[1]


@dataclass
class ITACLIPVisionOutput(BaseModelOutputWithPooling):
    """Output of [`ITACLIPVisionModel`]; see there."""

    last: LastStates | None = None


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
        regions: torch.Tensor | None = None,
        proxied: ProxyFeatures | None = None,
    ) -> ITACLIPVisionOutput:
        """Encode images of one size, with the signature and outputs of [`~transformers.CLIPVisionModel`] and more.

        Args:
            pixel_values: (batch, 3, height, width), CLIP-normalised.
            interpolate_pos_encoding: There for compatibility: any size is always accepted.
            output_hidden_states: Whether to return the states before the first block and after each one; an index or
                several for these alone (the others are `None`).
            output_attentions: There for compatibility: attention maps are never stored, so none is returned.
            regions: (batch, height, width) region of each pixel, 0 for none.
            proxied: What a proxy makes of the images, where a configuration asks for it.

        Returns:
            `last_hidden_state` (batch, 1 + grid_h * grid_w, dim), class token first, before the post-layernorm;
            `pooler_output` (batch, dim), the class token after it, where there is one; `hidden_states`; and `last`,
            all that the last block gave.
        """
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        selected = _select_states(output_hidden_states, 1 + len(self.encoder.layers))
        encoded = self.encode_blocks(pixel_values, [self.itaclip_config], selected, regions, proxied)
        last = self.run_last_block(encoded, self.itaclip_config)
        tokens = last.branches[0][1]  # further branches only meet it after the post-layernorm
        kept = [state if index in selected else None for index, state in enumerate([*encoded.states, tokens])]
        return ITACLIPVisionOutput(
            last_hidden_state=tokens,
            pooler_output=self.post_layernorm(tokens[:, 0]) if tokens.shape[1] > last.num_patches else None,
            hidden_states=cast(tuple[torch.Tensor, ...], tuple(kept)) if selected else None,
            last=last,
        )

    def encode_blocks(
        self,
        pixel_values: torch.Tensor,
        configs: Sequence[ITACLIPConfig],
        selected_states: Collection[int] = (),
        regions: torch.Tensor | None = None,
        proxied: ProxyFeatures | None = None,
    ) -> EncodedBlocks:
        """Run all blocks but the last, what the last block starts from, however it is configured.

        Args:
            pixel_values: (batch, 3, height, width), CLIP-normalised.
            configs: Say what a last block needs that may follow.
            selected_states: Indices of further states to keep: 0 before the first block, n after block n.
            regions: (batch, height, width) region of each pixel, 0 for none.
            proxied: What a proxy makes of the images, where a last block asks for it.
        """
        layers = {layer for config in configs for layer in config.layers_read}
        wanted = {*selected_states, *(index for config in configs for index in config.states_read)}
        hidden_states = self.pre_layrnorm(self.embeddings(pixel_values))
        states = [hidden_states if 0 in wanted else None]
        projections = {}
        for number, block in enumerate(self.encoder.layers[:-1], start=1):
            hidden_states, block_projections = block(hidden_states)
            if number in layers:
                projections[number] = block_projections
            states.append(hidden_states if number in wanted else None)
        grid = self.compute_grid(*pixel_values.shape[-2:])
        return EncodedBlocks(hidden_states, projections, grid, states, proxied or {}, regions)

    def run_last_block(self, encoded: EncodedBlocks, config: ITACLIPConfig) -> LastStates:
        """Run the last block as `config` says, once, or twice where earlier blocks are fused into another pass."""
        tokens, relations = self._prepare_last(encoded, config)
        last = self._end(tokens, encoded, relations, config)
        branches = [(1.0, last)]
        if config.fused_layers:
            fused = torch.stack([cast(torch.Tensor, encoded.states[layer]) for layer in config.fused_layers])
            # A pass adds up before the post-layernorm (SC-CLIP), a branch after it (CorrCLIP); a norm is not linear.
            if config.fused_as == "pass":
                branches = [(1.0, last + self._end(fused.sum(0), encoded, relations, config))]
            else:
                branches += [(config.fused_weight, self._end(fused.mean(0), encoded, relations, config))]
        if config.uses_region_tokens and relations.regions is not None:
            branches += [(config.region_token_weight, self._spread_region_tokens(encoded, relations))]
        return LastStates(branches, relations.grid)

    def compute_last_map(self, encoded: EncodedBlocks, config: ITACLIPConfig) -> tuple[torch.Tensor, tuple[int, int]]:
        """The attention map of the last block's first pass, (batch, tokens, heads, tokens), and its patch grid."""
        tokens, relations = self._prepare_last(encoded, config)
        block = cast(ITACLIPLastEncoderLayer, self.encoder.layers[-1])
        return block.compute_map(tokens, encoded, relations, config), relations.grid

    def _prepare_last(self, encoded: EncodedBlocks, config: ITACLIPConfig) -> tuple[torch.Tensor, PatchRelations]:
        """Tokens that go into the last block, cleaned and smoothed, and how its patches are related."""
        relations, tokens = self._relate_patches(encoded, config), encoded.hidden_states
        if relations.is_outlier is not None:
            tokens = _replace_patches(tokens, clean_patches(tokens[:, 1:], relations.is_outlier, encoded.grid))
        if config.smoothing_before:
            similarity = compute_cosines(encoded.patches_after(config.smoothing_before, relations.is_outlier))
            tokens = _replace_patches(tokens, smooth_patches(tokens[:, 1:], similarity, config.smoothing_threshold))
        return tokens, relations

    def _end(
        self, tokens: torch.Tensor, encoded: EncodedBlocks, relations: PatchRelations, config: ITACLIPConfig
    ) -> torch.Tensor:
        """The last block, and the smoothing after it."""
        tokens = self.encoder.layers[-1](tokens, encoded, relations, config)
        if relations.smoothing is not None:
            patches = tokens[:, -relations.smoothing.shape[-1] :]
            tokens = _replace_patches(tokens, smooth_patches(patches, relations.smoothing, config.smoothing_threshold))
        return tokens

    def _relate_patches(self, encoded: EncodedBlocks, config: ITACLIPConfig) -> PatchRelations:
        is_outlier = smoothing = None
        if config.smoothing_after:  # by patches as they are: SC-CLIP does not clean these
            smoothing = compute_cosines(encoded.patches_after(config.smoothing_after))
        if config.token_cleaning != "none":
            projections = encoded.projections.get(len(self.encoder.layers) - 1)
            is_outlier = find_outliers(config.token_cleaning, encoded.hidden_states[:, 1:], projections)
        if "similarity" not in config.attention_maps:
            return PatchRelations(encoded.grid, is_outlier, smoothing=smoothing)
        features, grid = _choose_compared(encoded, is_outlier, config)
        cosines = compute_cosines(features)
        allowed = regions = None
        if config.region_scope:
            maps = encoded.regions
            if maps is None:  # every patch is in none
                maps = torch.zeros(len(features), *encoded.grid, dtype=torch.int64, device=features.device)
            sampled = sample_regions(maps, grid)
            joined = join_regions(features, sampled, config.region_merge_distance)
            allowed = limit_to_regions(cosines, joined)
            # The class tokens of regions go through CLIP's blocks, on CLIP's grid, whatever grid the answer is on.
            regions = sample_regions(joined.unflatten(1, grid), encoded.grid)
        attention = gate_similarity(cosines, config.similarity_sharpness, config.similarity_threshold, allowed)
        return PatchRelations(grid, is_outlier, attention, regions, smoothing)

    def _spread_region_tokens(self, encoded: EncodedBlocks, relations: PatchRelations) -> torch.Tensor:
        """A class token for each joined region, and one for what is in none, given to its patches, (batch, N, dim).

        Each is a copy of the class token that goes through all blocks beside the image. It sees the image's class
        token and its region's patches; the image does not see it.
        """
        regions = cast(torch.Tensor, relations.regions)  # on CLIP's grid, as the tokens
        numbers = torch.arange(int(regions.max()) + 1, device=regions.device)
        # The class token is padded in front, seen by all, so that no row is empty, not even that of a number that
        # only another image of the batch has.
        is_seen = nn.functional.pad(regions[:, None] == numbers[:, None], (1, 0), value=True)[:, None]
        tokens = cast(torch.Tensor, encoded.states[0])[:, :1].repeat(1, len(numbers), 1)
        mask = torch.zeros(is_seen.shape, dtype=tokens.dtype, device=tokens.device)
        mask = mask.masked_fill(~is_seen, torch.finfo(tokens.dtype).min)
        for number, block in enumerate(cast(Sequence[ITACLIPEncoderLayer], self.encoder.layers), start=1):
            attention = block.self_attn
            # The last block's are not among those kept: what goes into it is.
            image = encoded.projections.get(number) or attention.project(block.layer_norm1(encoded.hidden_states))
            query = attention.project(block.layer_norm1(tokens)).query
            tokens = tokens + attention.merge_heads(attention.attend(query, image.key, image.value, mask))
            tokens = tokens + block.mlp(block.layer_norm2(tokens))
        of_patch = sample_regions(regions.unflatten(1, encoded.grid), relations.grid)
        return tokens.gather(1, of_patch[..., None].expand(-1, -1, tokens.shape[-1]))


def _choose_compared(
    encoded: EncodedBlocks, is_outlier: torch.Tensor | None, config: ITACLIPConfig
) -> tuple[torch.Tensor, tuple[int, int]]:
    """Features by which "similarity" compares patches, (batch, patches, dim), and the grid to answer on."""
    if config.similarity_block is not None:
        return encoded.patches_after(config.similarity_block, is_outlier), encoded.grid
    if config.proxy_features not in encoded.proxied:
        raise ValueError(
            "Expected a proxy, whose patches are compared, but there is none. Attach one with "
            '`model.attach_proxy("facebook/dino-vitb8")`, or name a block as `similarity_block`.'
        )
    features, proxy_grid = encoded.proxied[config.proxy_features]
    grid = proxy_grid if config.answers_on_proxy_grid else encoded.grid
    return resize_patches(features, proxy_grid, grid), grid


def _replace_patches(tokens: torch.Tensor, patches: torch.Tensor) -> torch.Tensor:
    """Other patches behind the same class token, where there is one."""
    # A new tensor: the states of blocks, which others read and may return, stay as they are.
    return torch.cat([tokens[:, : tokens.shape[1] - patches.shape[1]], patches], dim=1)


def _resize_heads(part: torch.Tensor, grid: tuple[int, int], target: tuple[int, int]) -> torch.Tensor:
    """(batch, heads, grid_h * grid_w, head_dim) -> (batch, heads, H * W, head_dim), bilinear."""
    return resize_patches(part.flatten(0, 1), grid, target).unflatten(0, part.shape[:2])


def _select_states(output_hidden_states: bool | int | list[int] | None, count: int) -> set[int]:
    if output_hidden_states is None or isinstance(output_hidden_states, bool):  # before `int`, which a bool is, too
        return set(range(count)) if output_hidden_states else set()
    indices = [output_hidden_states] if isinstance(output_hidden_states, int) else output_hidden_states
    return {index % count for index in indices if -count <= index < count}
