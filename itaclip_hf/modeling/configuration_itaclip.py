"""ITACLIP configuration: CLIP's own configuration plus the numbers of the segmentation method.

Defaults are those of the paper (ITACLIP, CVPR-W 2025). A stock CLIP `config.json` loads as it is and gets them.
"""

import difflib
import numbers
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast

import torch
from transformers import CONFIG_MAPPING, CLIPConfig, CLIPTextConfig, CLIPVisionConfig, PreTrainedConfig
from transformers.utils import logging

from .attention_maps import attention_map_names

try:  # types and ranges of settings are said there; code that was loaded from the Hub does without the package
    from itaclip_hf.methods.settings import SETTING_NAMES, check_setting
except ImportError:
    SETTING_NAMES = ()

__all__ = ["ITACLIPConfig", "fit_intermediate_layers"]

logger = logging.get_logger(__name__)


class ITACLIPConfig(CLIPConfig):
    r"""Configuration of [`ITACLIPForSemanticSegmentation`]: a [`~transformers.CLIPConfig`] and the method's fields.

    Args:
        attention_maps (`tuple[str, ...]`, *optional*, defaults to `("qq", "kk")`):
            Attention maps of a block, summed: `softmax(x yᵀ / √d)` for any two letters out of q, k, v such as `"qk"`,
            `"qq"`, `"kk"`; the identity matrix for `"identity"` (each patch keeps its own value); `"similarity"`
            (patches see those that are alike, by another block or the proxy) and `"procrustes"` (queries and keys
            rotated onto each other); and what `register_attention_map` made known. Rows of each add up to 1.
        attention_map_weights (`tuple[float, ...]`, *optional*, defaults to `()`):
            Weight of each of these maps; `()` for 1 each.
        attention_prior_std (`float`, *optional*, defaults to 0.0):
            Standard deviation, in patches, of a Gaussian of the distance between two patches, peak 1, that is added
            to the scaled products before each softmax of the last block; 0 for none.
        intermediate_layers (`tuple[int, ...]`, *optional*, defaults to `(7, 8, 10)`):
            Vision blocks, counted from 1 and before the last one, whose mean attention map is blended into that of the
            last block; `()` for none.
        intermediate_weight (`float`, *optional*, defaults to 0.5):
            Share of that mean map, 0 to 1; the last block's own map gets the rest.
        intermediate_maps (`tuple[str, ...]`, *optional*, defaults to `()`):
            Attention maps of those blocks, at most as many as of the last one, whose weights they have; `()` for the
            same.
        last_class_token (`bool`, *optional*, defaults to `True`):
            Whether the last block sees the class token beside the patches.
        class_token_share (`float`, *optional*, defaults to 0.0):
            Share of the class token that is added to every patch after the last block.
        similarity_block (`int`, *optional*):
            Block, counted from 1 and before the last one, whose patches `"similarity"` compares by their cosine;
            those of the proxy if left out.
        similarity_sharpness (`float`, *optional*, defaults to 3.0):
            Factor on the similarities before their softmax.
        similarity_threshold (`float`, *optional*, defaults to 1.0):
            Similarities below so many times the window's mean get no weight; `None`: all count.
        proxy_config (`PreTrainedConfig` or `dict`, *optional*):
            Of the backbone that was attached by [`~ITACLIPForSemanticSegmentation.attach_proxy`].
        proxy_features (`str`, *optional*, defaults to `"hidden"`):
            What of it is compared: `"hidden"`, the last hidden states, or `"query_key"`, queries plus keys of the last
            block. The method answers on the proxy's patch grid if `"similarity"` is the only map and neither class
            token nor residual nor feed-forward stay; otherwise the proxy's features are resized to CLIP's.
        region_scope (`bool`, *optional*, defaults to `False`):
            Whether `"similarity"` lets patches see those of their region alone; where one is in none, those more alike
            than the mean. Regions come as `region_maps` beside the pixels.
        region_merge_distance (`float`, *optional*, defaults to 0.2):
            Regions whose mean features are at most so much less alike than the most alike are one region.
        region_token_weight (`float`, *optional*, defaults to 0.0):
            Weight of a class token of its own for each region, in the features of its patches.
        token_cleaning (`str`, *optional*, defaults to `"none"`):
            How outlying patches are found, which their neighbours then replace: `"lof"`, by their local outlier
            factor, or `"class_row"`, by the class token's attention.
        smoothing_before (`int`, *optional*, defaults to 0):
            Block by whose similarity patches are smoothed before the last block; 0 for none.
        smoothing_after (`int`, *optional*, defaults to 0):
            Block by whose similarity they are smoothed after it; 0 for none.
        smoothing_threshold (`float`, *optional*, defaults to 0.4):
            Lowest similarity that counts in smoothing.
        fused_layers (`tuple[int, ...]`, *optional*, defaults to `()`):
            Blocks that go through the last block together, beside the ordinary pass; `()` for none.
        fused_as (`str`, *optional*, defaults to `"pass"`):
            `"pass"`: their sum, the result added to the ordinary pass; `"branch"`: their mean, the result added after
            the final norm, times `fused_weight`.
        fused_weight (`float`, *optional*, defaults to 1.0):
            Weight of that branch.
        procrustes_steps (`int`, *optional*, defaults to 5):
            Newton-Schulz steps towards the rotation of `"procrustes"`.
        procrustes_key_share (`float`, *optional*, defaults to 0.08):
            Share of the keys' own products in it.
        last_residual (`bool`, *optional*, defaults to `True`):
            Whether the last block keeps the residual around its attention.
        last_feed_forward (`bool`, *optional*, defaults to `False`):
            Whether the last block keeps its feed-forward half, with the residual around that.
        window_size (`int`, *optional*, defaults to 224):
            Side of the square sliding window in pixels; 0 encodes the whole image in one piece.
        window_stride (`int`, *optional*, defaults to 28):
            Step between windows in pixels, at most `window_size`.
        window_multiple (`int`, *optional*, defaults to 1):
            Windows are padded with zeros to multiples of so many pixels, equally on both sides, and what comes out is
            cut back; 1 for no padding. The whole image in one piece is never padded.
        window_batch_size (`int`, *optional*):
            Number of windows that go through the encoder at once, with all their views; bounds memory, changes no
            result. Chosen by device and memory if left out.
        pamr_steps (`int`, *optional*, defaults to 10):
            Iterations of the pixel-adaptive refinement; 0 for none.
        pamr_dilations (`tuple[int, ...]`, *optional*, defaults to `(8, 16)`):
            Distances, in pixels, of the eight neighbours that the refinement looks at.
        similarity_scale (`float`, *optional*, defaults to 40.0):
            Multiplies the cosine similarities before the softmax over all queries. Not CLIP's `logit_scale`.
        query_classes (`tuple[int, ...]`, *optional*, defaults to `()`):
            Class index of each query of the baked vocabulary; `()` if none is baked. Set by
            [`~ITACLIPForSemanticSegmentation.set_vocabulary`].
        semantic_loss_ignore_index (`int`, *optional*, defaults to 255):
            Label of pixels that the loss leaves out.

    Raises:
        ValueError: If a field is outside the range given above.

    Example:
    ```python
    >>> from itaclip_hf import ITACLIPConfig

    >>> ITACLIPConfig(window_stride=56).pamr_dilations
    (8, 16)

    ```
    """

    if TYPE_CHECKING:  # what they are once the configuration is made
        text_config: CLIPTextConfig
        vision_config: CLIPVisionConfig
        id2label: dict[int, str]
        projection_dim: int

    model_type = "itaclip"

    proxy_config: dict | PreTrainedConfig | None = None
    attention_maps: tuple[str, ...] = ("qq", "kk")
    attention_map_weights: tuple[float, ...] = ()
    attention_prior_std: float = 0.0
    intermediate_layers: tuple[int, ...] = (7, 8, 10)
    intermediate_weight: float = 0.5
    intermediate_maps: tuple[str, ...] = ()
    last_class_token: bool = True
    class_token_share: float = 0.0
    similarity_block: int | None = None
    similarity_sharpness: float = 3.0
    similarity_threshold: float | None = 1.0
    proxy_features: str = "hidden"
    region_scope: bool = False
    region_merge_distance: float = 0.2
    region_token_weight: float = 0.0
    token_cleaning: str = "none"
    smoothing_before: int = 0
    smoothing_after: int = 0
    smoothing_threshold: float = 0.4
    fused_layers: tuple[int, ...] = ()
    fused_as: str = "pass"
    fused_weight: float = 1.0
    procrustes_steps: int = 5
    procrustes_key_share: float = 0.08
    last_residual: bool = True
    last_feed_forward: bool = False
    window_size: int = 224
    window_stride: int = 28
    window_multiple: int = 1
    window_batch_size: int | None = None
    pamr_steps: int = 10
    pamr_dilations: tuple[int, ...] = (8, 16)
    similarity_scale: float = 40.0
    query_classes: tuple[int, ...] = ()
    semantic_loss_ignore_index: int = 255

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, list) and name in TUPLE_FIELDS:
            value = tuple(value)  # JSON knows lists only, and not every field is a setting that is checked below
        if name in OTHER_FIELDS and value is not None:
            expected, is_right = OTHER_FIELDS[name]
            if not is_right(value):
                raise TypeError(f"Expected `{name}` to be {expected}, but got {value!r:.200}. Correct it.")
            if name in WHOLE_NUMBERS:  # NumPy's are none to JSON
                value = tuple(map(int, value)) if isinstance(value, tuple) else int(value)
        super().__setattr__(name, check_setting(name, value) if name in SETTING_NAMES else value)

    def __post_init__(self, **kwargs: Any) -> None:
        _refuse_foreign_fields(kwargs)  # the rest become attributes, as with every configuration of Transformers
        super().__post_init__(**kwargs)
        if isinstance(self.proxy_config, dict):
            model_type: Any = self.proxy_config.get("model_type")
            _expect(model_type in CONFIG_MAPPING, "`proxy_config` with a known `model_type`", repr(model_type))
            self.proxy_config = CONFIG_MAPPING[model_type].from_dict(self.proxy_config)
        self.validate_settings()

    @property
    def uses_proxy(self) -> bool:
        """Whether the last block compares the patches of another backbone."""
        # Written out, though `Settings` has it, too: code that was loaded from the Hub does without the package.
        return "similarity" in self.attention_maps and self.similarity_block is None

    @property
    def uses_regions(self) -> bool:
        """Whether the model looks at region maps; their vote is the processor's."""
        return self.region_scope

    @property
    def uses_region_tokens(self) -> bool:
        """Whether each region has a class token of its own, which goes through every block beside the image."""
        return self.region_scope and self.region_token_weight > 0

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, by id."""
        return tuple(str(name) for _, name in sorted((self.id2label or {}).items()))

    @property
    def answers_on_proxy_grid(self) -> bool:
        """Whether features come on the proxy's patch grid: where nothing of the last block lives on CLIP's own."""
        is_alone = set(self.attention_maps) == {"similarity"} and not self.intermediate_layers
        keeps_tokens = self.last_class_token or self.last_residual or self.last_feed_forward
        return self.uses_proxy and is_alone and not (keeps_tokens or self.smoothing_after)

    @property
    def layers_read(self) -> set[int]:
        """Blocks before the last one whose queries, keys and values the last block reads."""
        last = self.vision_config.num_hidden_layers
        if self.uses_region_tokens:
            return {*range(1, last)}
        cleaning = {last - 1} if self.token_cleaning == "class_row" else set()
        return {*self.intermediate_layers} | cleaning

    @property
    def states_read(self) -> set[int]:
        """Blocks before the last one whose states the last block reads; 0 are those before the first one."""
        blocks = {*self.fused_layers, self.smoothing_before, self.smoothing_after}
        if "similarity" in self.attention_maps and self.similarity_block is not None:
            blocks.add(self.similarity_block)
        blocks.discard(0)  # no smoothing there
        return blocks | {0} if self.uses_region_tokens else blocks

    def validate_settings(self) -> None:
        """Check that settings go together, and with the towers; called when made, and by the model before it runs.

        Raises:
            ValueError: Naming the field, what was expected, what came, and what to do.
        """
        _expect(
            len(self.attention_maps) > 0 and set(self.attention_maps) <= set(attention_map_names()),
            f"`attention_maps` to name one or more of {attention_map_names()}",
            self.attention_maps,
            "Make a map of your own known by `register_attention_map` first.",
        )
        _expect(
            len(self.attention_map_weights) in (0, len(self.attention_maps)),
            f"`attention_map_weights` to have an entry for each of `attention_maps` {self.attention_maps}",
            self.attention_map_weights,
            "Leave it out for 1 each.",
        )
        _expect(
            len(self.intermediate_maps) <= len(self.attention_maps),
            f"`intermediate_maps` to have no more entries than `attention_maps` {self.attention_maps}",
            self.intermediate_maps,
            "Name fewer.",
        )
        _expect(
            set(self.intermediate_maps) <= set(attention_map_names()),
            f"`intermediate_maps` to name some of {attention_map_names()}",
            self.intermediate_maps,
        )
        of_intermediate = (self.intermediate_maps or self.attention_maps) if self.intermediate_layers else ()
        _expect(
            "similarity" not in of_intermediate,
            "no map 'similarity' in intermediate blocks",
            of_intermediate,
            "Set `intermediate_layers=()`, or name other `intermediate_maps`.",
        )
        last = self.vision_config.num_hidden_layers
        single = filter(None, (self.similarity_block, self.smoothing_before, self.smoothing_after))
        for name, layers in (
            ("intermediate_layers", self.intermediate_layers),
            ("fused_layers", self.fused_layers),
            ("similarity_block, smoothing_before, smoothing_after", tuple(single)),
        ):
            _expect(
                all(1 <= layer < last for layer in layers),
                f"`{name}` to count blocks from 1 to {last - 1} (the last of {last} comes anyway)",
                layers,
                "Name other layers, or none.",
            )
        _expect(
            self.token_cleaning != "class_row" or last > 1,
            "a block before the last one, whose attention `token_cleaning` 'class_row' reads",
            f"{last} block(s)",
            "Choose 'lof' or 'none'.",
        )
        patch_size = cast(int, self.vision_config.patch_size)
        _expect(
            self.window_size == 0 or self.window_size >= patch_size,
            f"`window_size` of at least one patch ({patch_size}), or 0",
            self.window_size,
            "Use larger windows, or 0 for the whole image at once.",
        )
        _expect(
            self.window_size == 0 or self.window_stride <= self.window_size,
            "`window_stride` <= `window_size`",
            f"{self.window_stride} > {self.window_size}",
            f"Use a stride of at most {self.window_size}, or pixels between windows get no label.",
        )
        _expect(
            self.pamr_steps == 0 or len(self.pamr_dilations) > 0,
            "`pamr_dilations` to hold pixel distances",
            self.pamr_dilations,
            "Set `pamr_steps=0` for no refinement.",
        )
        unknown = sorted(set(self.query_classes) - {int(class_id) for class_id in self.id2label})
        _expect(
            not unknown,
            f"`query_classes` to hold ids of `id2label` (0 to {len(self.id2label) - 1})",
            unknown,
            "Bake vocabularies with `model.set_vocabulary(processor, vocabulary)`.",
        )

    @property
    def refinement_reach(self) -> int:
        """How far refinement sees, in pixels."""
        return self.pamr_steps * max(self.pamr_dilations) if self.pamr_steps else 0

    @property
    def tile_overlap(self) -> int:
        """How far around a part of an image the model must see to label it as in the whole, in pixels.

        That is what windows and refinement see, and where maps are finished. The whole image at once has no such
        distance: half of the size that the tower was trained on then gives a part its context.
        """
        seen = self.window_size or cast(int, self.vision_config.image_size) // 2
        return seen + self.refinement_reach + CLOSING_REACH

    @property
    def tile_step(self) -> int:
        """What the place of a part must be a multiple of, in pixels, to have the windows of the whole."""
        return self.window_stride if self.window_size else 1

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Make a configuration from a dictionary; this class's fields among `kwargs` go in before the check."""
        # Transformers would set them one by one afterwards, when the file's own values may have failed the check.
        overrides = {name: kwargs.pop(name) for name in cls.__annotations__ if name in kwargs}
        _refuse_foreign_fields(kwargs)
        return super().from_dict({**config_dict, **overrides}, **kwargs)

    @classmethod
    def get_config_dict(
        cls, pretrained_model_name_or_path: Any, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Read a configuration of this package or of stock CLIP; any other model type is refused.

        Raises:
            ValueError: If the checkpoint is of another model type than "itaclip" or "clip".
        """
        config_dict, kwargs = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        found = config_dict.get("model_type", cls.model_type)
        _expect(
            found in (cls.model_type, CLIPConfig.model_type),
            'a checkpoint of model type "clip" or "itaclip"',
            f'"{found}" in {str(pretrained_model_name_or_path)!r}',
            'Use a CLIP ViT checkpoint such as "openai/clip-vit-base-patch16".',
        )
        # What the file or the caller names stays, even where it does not fit: then the check speaks.
        if found == CLIPConfig.model_type and "intermediate_layers" not in {**config_dict, **kwargs}:
            blocks = (config_dict.get("vision_config") or {}).get("num_hidden_layers", PAPERS_BLOCKS)
            config_dict = {**config_dict, "intermediate_layers": fit_intermediate_layers(blocks)}
        return {**config_dict, "model_type": cls.model_type}, kwargs


def fit_intermediate_layers(blocks: int) -> tuple[int, ...]:
    """The default layers, or those at the same depth of a tower with too few blocks for them, which the log says."""
    layers = ITACLIPConfig.intermediate_layers
    if blocks > max(layers):
        return layers
    # Without 0 and -1, what rounding and the bound may leave: neither is a block before the last.
    fitted = tuple(sorted({min(round(layer * blocks / PAPERS_BLOCKS), blocks - 1) for layer in layers} - {0, -1}))
    logger.warning_once(
        f"The vision tower has {blocks} blocks, too few for the default `intermediate_layers` {layers}: blocks "
        f"{fitted} take their place, at the same depth. Name others if you like."
    )
    return fitted


PAPERS_BLOCKS = 12  # of the tower that the default layers were chosen on
CLOSING_REACH = 2  # pixels that label maps are closed by, there and back
TUPLE_FIELDS = tuple(name for name, kind in ITACLIPConfig.__annotations__.items() if str(kind).startswith("tuple"))


def _is_whole_number(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


WHOLE_NUMBERS = ("query_classes", "semantic_loss_ignore_index")
# What is no setting and comes from files all the same: what it shall be, and how to tell.
OTHER_FIELDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "query_classes": (
        "a list of class ids",
        lambda value: isinstance(value, tuple) and all(map(_is_whole_number, value)),
    ),
    "semantic_loss_ignore_index": ("a whole number", _is_whole_number),
    "id2label": ("a dictionary of class names by id", lambda value: isinstance(value, Mapping)),
    "label2id": ("a dictionary of ids by class name", lambda value: isinstance(value, Mapping)),
    "proxy_config": (
        "a configuration or its dictionary",
        lambda value: isinstance(value, dict | PreTrainedConfig),
    ),
    "dtype": (
        "a number format such as 'float32'",
        lambda value: (
            value == "auto"
            or isinstance(getattr(torch, value, None) if isinstance(value, str) else value, torch.dtype)
        ),
    ),
}


def _refuse_foreign_fields(names: Iterable[str]) -> None:
    """Refuse the settings of a processor, and what is nearly the name of a field; neither would change anything."""
    for name in names:
        if name in SETTING_NAMES:
            raise ValueError(
                f"Expected fields of the model, but got `{name}`, a setting of its processor. Pass it there, or all "
                f"settings together to `itaclip_hf.load(…, settings={{{name!r}: …}})`."
            )
        similar = difflib.get_close_matches(name, ITACLIPConfig.__annotations__, n=1, cutoff=0.87)
        if similar:
            raise ValueError(f"Expected the field {similar[0]!r}, but got {name!r}. Correct the spelling.")


def _expect(condition: bool, expected: str, found: Any, advice: str = "") -> None:
    if not condition:
        raise ValueError(f"Expected {expected}, but got {found}. {advice}".rstrip())
