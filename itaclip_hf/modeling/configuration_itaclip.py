"""ITACLIP configuration: CLIP's own configuration plus the numbers of the segmentation method.

Defaults are those of the paper (ITACLIP, CVPR-W 2025). A stock CLIP `config.json` loads as it is and gets them.
"""

from dataclasses import fields
from typing import TYPE_CHECKING, Any, cast

from transformers import CLIPConfig, CLIPTextConfig, CLIPVisionConfig

from .attention_maps import attention_map_names
from .methods import LAST_BLOCK_FIELDS, Method, get_method, identify_method

__all__ = ["ITACLIPConfig"]


class ITACLIPConfig(CLIPConfig):
    r"""Configuration of [`ITACLIPForSemanticSegmentation`]: a [`~transformers.CLIPConfig`] and the method's fields.

    Args:
        attention_maps (`tuple[str, ...]`, *optional*, defaults to `("qq", "kk")`):
            Attention maps of a block, summed: `softmax(x yᵀ / √d)` for any two letters out of q, k, v such as `"qk"`,
            `"qq"`, `"kk"`; the identity matrix for `"identity"` (each patch keeps its own value); and what
            `register_attention_map` made known. Rows add up to the number of maps.
        attention_prior_std (`float`, *optional*, defaults to 0.0):
            Standard deviation, in patches, of a Gaussian of the distance between two patches, peak 1, that is added
            to the scaled products before each softmax of the last block; 0 for none.
        intermediate_layers (`tuple[int, ...]`, *optional*, defaults to `(7, 8, 10)`):
            Vision blocks, counted from 1 and before the last one, whose mean attention map is blended into that of the
            last block; `()` for none.
        intermediate_weight (`float`, *optional*, defaults to 0.5):
            Share of that mean map, 0 to 1; the last block's own map gets the rest.
        last_residual (`bool`, *optional*, defaults to `True`):
            Whether the last block keeps the residual around its attention.
        last_feed_forward (`bool`, *optional*, defaults to `False`):
            Whether the last block keeps its feed-forward half, with the residual around that.
        window_size (`int`, *optional*, defaults to 224):
            Side of the square sliding window in pixels; 0 encodes the whole image in one piece.
        window_stride (`int`, *optional*, defaults to 28):
            Step between windows in pixels, at most `window_size`.
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

    attention_maps: tuple[str, ...] = ("qq", "kk")
    attention_prior_std: float = 0.0
    intermediate_layers: tuple[int, ...] = (7, 8, 10)
    intermediate_weight: float = 0.5
    last_residual: bool = True
    last_feed_forward: bool = False
    window_size: int = 224
    window_stride: int = 28
    window_batch_size: int | None = None
    pamr_steps: int = 10
    pamr_dilations: tuple[int, ...] = (8, 16)
    similarity_scale: float = 40.0
    query_classes: tuple[int, ...] = ()

    def __post_init__(self, **kwargs: Any) -> None:
        for name in ("attention_maps", "intermediate_layers", "pamr_dilations", "query_classes"):
            value = getattr(self, name)
            if not isinstance(value, (list, tuple)):
                raise TypeError(f"Expected `{name}` to be a tuple, but got {value!r}. Put it into one, or use `()`.")
            setattr(self, name, tuple(value))  # JSON knows lists only
        super().__post_init__(**kwargs)
        self.validate_method()

    def validate_method(self) -> None:
        """Check the method's fields; called when the configuration is made and again by the model that runs it.

        Raises:
            ValueError: Naming the field, what was expected, what came, and what to do.
        """
        _expect(
            len(self.attention_maps) > 0 and set(self.attention_maps) <= set(attention_map_names()),
            f"`attention_maps` to name one or more of {attention_map_names()}",
            self.attention_maps,
            "Make a map of your own known by `register_attention_map` first.",
        )
        last = self.vision_config.num_hidden_layers
        _expect(
            all(1 <= layer < last for layer in self.intermediate_layers),
            f"`intermediate_layers` to count blocks from 1 to {last - 1} (the last of {last} comes anyway)",
            self.intermediate_layers,
            "Name other layers, or `()` for none.",
        )
        _expect(0 <= self.intermediate_weight <= 1, "`intermediate_weight` from 0 to 1", self.intermediate_weight)
        _expect(self.attention_prior_std >= 0, "`attention_prior_std` >= 0", self.attention_prior_std)
        _expect(self.window_size >= 0, "`window_size` >= 0", self.window_size, "Use 0 for the whole image.")
        patch_size = cast(int, self.vision_config.patch_size)
        _expect(
            self.window_size == 0 or self.window_size >= patch_size,
            f"`window_size` of at least one patch ({patch_size}), or 0",
            self.window_size,
        )
        _expect(self.window_stride > 0, "`window_stride` > 0", self.window_stride)
        _expect(
            self.window_size == 0 or self.window_stride <= self.window_size,
            "`window_stride` <= `window_size`",
            f"{self.window_stride} > {self.window_size}",
            f"Use a stride of at most {self.window_size}, or pixels between windows get no label.",
        )
        _expect(
            self.window_batch_size is None or self.window_batch_size > 0,
            "`window_batch_size` > 0",
            self.window_batch_size,
            "Leave it out to have it chosen.",
        )
        _expect(self.pamr_steps >= 0, "`pamr_steps` >= 0", self.pamr_steps, "Use 0 for no refinement.")
        _expect(
            self.pamr_steps == 0 or (len(self.pamr_dilations) > 0 and min(self.pamr_dilations) > 0),
            "`pamr_dilations` to hold positive pixel distances",
            self.pamr_dilations,
            "Set `pamr_steps=0` for no refinement.",
        )
        _expect(self.similarity_scale > 0, "`similarity_scale` > 0", self.similarity_scale)
        unknown = sorted(set(self.query_classes) - {int(class_id) for class_id in self.id2label})
        _expect(
            not unknown,
            f"`query_classes` to hold ids of `id2label` (0 to {len(self.id2label) - 1})",
            unknown,
            "Bake vocabularies with `model.set_vocabulary(processor, vocabulary)`.",
        )

    def method_fields(self) -> dict[str, Any]:
        """The fields that this class adds to CLIP's, as JSON values: what one must know to repeat a result."""
        values = {name: getattr(self, name) for name in METHOD_FIELDS}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    def last_block(self) -> tuple[Any, ...]:
        """What the last block reads: configurations with equal ones encode alike after the same blocks before."""
        return tuple(getattr(self, name) for name in LAST_BLOCK_FIELDS)

    @classmethod
    def from_method(cls, name: str, benchmark: str | None = None, **overrides: Any) -> "ITACLIPConfig":
        """Make the configuration of a training-free method.

        For a checkpoint's weights, use [`load_method`], or pass `get_method(name).config_fields()` to
        `from_pretrained`.

        Args:
            name: "clip", "maskclip", "sclip", "clearclip", "naclip", "itaclip", or what `register_method` made known.
            benchmark: A benchmark whose settings to take, such as "voc21"; the method's general ones if left out.
            **overrides: Fields that win over the method's, and those of CLIP, such as `vision_config`.

        Raises:
            ValueError: If there is no such method or benchmark; the message lists those that there are.

        Example:
        ```python
        >>> from itaclip_hf import ITACLIPConfig

        >>> config = ITACLIPConfig.from_method("naclip", window_stride=56)
        >>> config.attention_maps, config.attention_prior_std, config.last_residual, config.window_stride
        (('kk',), 5.0, False, 56)

        ```
        """
        return cls(**{**get_method(name).config_fields(benchmark), **overrides})

    def identify_method(self) -> Method | None:
        """The method whose last block this is, or `None` if it is of no registered one.

        Windows, refinement and scale may differ: they are settings, and make no other method.
        """
        return identify_method(self)

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Make a configuration from a dictionary; the method's fields among `kwargs` go in before the check."""
        overrides = {name: kwargs.pop(name) for name in METHOD_FIELDS if name in kwargs}
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
        return {**config_dict, "model_type": cls.model_type}, kwargs


METHOD_FIELDS = tuple(
    field.name
    for field in fields(ITACLIPConfig)
    if field.name not in {inherited.name for inherited in fields(CLIPConfig)}
)


def _expect(condition: bool, expected: str, found: Any, advice: str = "") -> None:
    if not condition:
        raise ValueError(f"Expected {expected}, but got {found}. {advice}".rstrip())
