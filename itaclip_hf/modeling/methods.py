"""Training-free methods as declared data: what each one sets on the same CLIP weights, and where that is from.

A method is an entry of this table: fields of the configuration (the last block, windows, refinement, scale), fields of
the processor (image size, views, texts, thresholds), and what it changes of both on a benchmark. Nothing is computed
here; `register_method` adds an entry.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .attention_maps import get_attention_map

__all__ = [
    "ITACLIP_CONFIG",
    "ITACLIP_PROCESSOR",
    "LAST_BLOCK_FIELDS",
    "Method",
    "get_method",
    "identify_method",
    "method_names",
    "register_method",
]

Settings = Mapping[str, Any]

LAST_BLOCK_FIELDS = (
    "attention_maps",
    "attention_prior_std",
    "intermediate_layers",
    "intermediate_weight",
    "last_residual",
    "last_feed_forward",
)

ITACLIP_CONFIG: dict[str, Any] = {
    "attention_maps": ("qq", "kk"),
    "attention_prior_std": 0.0,
    "intermediate_layers": (7, 8, 10),
    "intermediate_weight": 0.5,
    "last_residual": True,
    "last_feed_forward": False,
    "window_size": 224,
    "window_stride": 28,
    "pamr_steps": 10,
    "pamr_dilations": (8, 16),
    "similarity_scale": 40.0,
}
"""Fields of the configuration that make a method, with the values that hold where a method says nothing."""

ITACLIP_PROCESSOR: dict[str, Any] = {
    "shortest_edge": 336,
    "image_engineering": True,
    "photometric_weight": 0.75,
    "auxiliary_weight": 0.2,
    "score_threshold": 0.0,
    "area_threshold": None,
    "closing": True,
}
"""Fields of the processor that make a method, with the values that hold where a method says nothing."""


@dataclass(frozen=True)
class Method:
    """One method: settings on top of CLIP's weights.

    Fields that are left out are ITACLIP's (`ITACLIP_CONFIG`, `ITACLIP_PROCESSOR`); to start from another method, use
    [`~Method.derive`].

    Args:
        name: What commands and `from_method` call it.
        title: What tables call it.
        source: The publication.
        config: Fields of [`ITACLIPConfig`].
        processor: Fields of the processor: `shortest_edge` in pixels, `image_engineering`, `photometric_weight`,
            `auxiliary_weight`, `score_threshold`, `area_threshold`, `closing`.
        benchmarks: By benchmark, the fields of either kind that differ there.
        published_miou: By benchmark, the published mIoU in percent (CLIP ViT-B/16).
        is_published_with_pamr: Whether those figures are with pixel refinement, whatever the method itself says.

    Raises:
        ValueError: If a field is none that a method can set, or an attention map is not registered.
    """

    name: str
    title: str
    source: str
    config: Settings = field(default_factory=dict)
    processor: Settings = field(default_factory=dict)
    benchmarks: Mapping[str, Settings] = field(default_factory=dict)
    published_miou: Mapping[str, float] = field(default_factory=dict)
    is_published_with_pamr: bool = False

    def __post_init__(self) -> None:
        self._expect_fields("config", self.config, ITACLIP_CONFIG)
        self._expect_fields("processor", self.processor, ITACLIP_PROCESSOR)
        for benchmark, changes in self.benchmarks.items():
            self._expect_fields(f"benchmarks[{benchmark!r}]", changes, {**ITACLIP_CONFIG, **ITACLIP_PROCESSOR})
        object.__setattr__(self, "config", {**ITACLIP_CONFIG, **self.config})
        object.__setattr__(self, "processor", {**ITACLIP_PROCESSOR, **self.processor})
        for name in self.config["attention_maps"]:
            get_attention_map(name)

    def config_fields(self, benchmark: str | None = None) -> dict[str, Any]:
        """Fields of the configuration, for `ITACLIPConfig(…)` or `from_pretrained(folder, …)`.

        Args:
            benchmark: Name of a benchmark; the method's general settings if left out.

        Raises:
            ValueError: If no method knows a benchmark of that name.
        """
        return _select(self.config, self._changes(benchmark))

    def processor_fields(self, benchmark: str | None = None) -> dict[str, Any]:
        """Fields of the processor, the image size as `shortest_edge`; see `config_fields`."""
        return _select(self.processor, self._changes(benchmark))

    def derive(
        self,
        name: str,
        title: str,
        source: str,
        config: Settings | None = None,
        processor: Settings | None = None,
        benchmarks: Mapping[str, Settings] | None = None,
    ) -> "Method":
        """A new method: this one with some fields changed.

        What this one changes on a benchmark holds there for the new one, too. Published figures are not taken along.
        """
        names = dict.fromkeys([*self.benchmarks, *(benchmarks or {})])
        return Method(
            name,
            title,
            source,
            {**self.config, **(config or {})},
            {**self.processor, **(processor or {})},
            {key: {**self.benchmarks.get(key, {}), **(benchmarks or {}).get(key, {})} for key in names},
        )

    def _changes(self, benchmark: str | None) -> Settings:
        known = dict.fromkeys(key for method in (*_METHODS.values(), self) for key in method.benchmarks)
        if benchmark is not None and benchmark not in known:
            raise ValueError(f"Expected a benchmark out of {', '.join(known)}, but got {benchmark!r}.")
        return self.benchmarks.get(benchmark or "", {})

    def _expect_fields(self, place: str, found: Settings, known: Settings) -> None:
        unknown = sorted(found.keys() - known.keys())
        if unknown:
            raise ValueError(
                f"Expected `{place}` of the method {self.name!r} to set fields out of {', '.join(known)}, but got "
                f"{', '.join(unknown)}."
            )


def register_method(method: Method, exist_ok: bool = False) -> None:
    """Make a method known by its name, everywhere a method is named.

    Args:
        method: The entry.
        exist_ok: Whether to replace a method that was registered before, as when the cell of a notebook runs again.

    Raises:
        ValueError: If the name is one of this package's methods, or is taken and `exist_ok` is off.
    """
    if method.name in _BUILT_IN or (method.name in _METHODS and not exist_ok):
        advice = "Choose another name." if method.name in _BUILT_IN else "Choose another, or pass `exist_ok=True`."
        raise ValueError(f"Expected a new name for the method, but {method.name!r} is taken. {advice}")
    _METHODS[method.name] = method


def get_method(name: str) -> Method:
    """A method by name.

    Raises:
        ValueError: If there is none of that name; the message lists those that there are.
    """
    if name not in _METHODS:
        raise ValueError(
            f"Expected a method out of {', '.join(_METHODS)}, but got {name!r}. Make a new one known by "
            "`register_method`."
        )
    return _METHODS[name]


def method_names() -> tuple[str, ...]:
    """Names of all methods, this package's first."""
    return tuple(_METHODS)


def identify_method(config: Any) -> Method | None:
    """The method whose last block a configuration has, or `None` if there is no such.

    Of several, the one that has most of the other fields in common. Windows, refinement and scale are settings that
    users change; they do not make another method.

    Args:
        config: An [`ITACLIPConfig`], or anything with its fields.
    """
    candidates = [method for method in _METHODS.values() if _last_block(method.config) == _last_block(vars(config))]
    return max(candidates, key=lambda method: _count_common(method.config, vars(config)), default=None)


def _last_block(fields: Settings) -> tuple[Any, ...]:
    values = {name: fields[name] for name in LAST_BLOCK_FIELDS}
    values["attention_maps"] = sorted(values["attention_maps"])  # a sum has no order
    values["intermediate_layers"] = sorted(values["intermediate_layers"])
    if not values["intermediate_layers"]:
        values["intermediate_weight"] = 0.0  # of nothing
    return tuple(values.values())


def _count_common(fields: Settings, others: Settings) -> int:
    return sum(value == others[name] for name, value in fields.items())


def _select(fields: Settings, changes: Settings) -> dict[str, Any]:
    return {name: changes.get(name, value) for name, value in fields.items()}


_ITACLIP_STUFF = {"auxiliary_weight": 0.2, "shortest_edge": 448}
_ITACLIP_VOC = {"auxiliary_weight": 0.05, "photometric_weight": 0.7, "similarity_scale": 60.0}
_ITACLIP_CONTEXT = {"auxiliary_weight": 0.15, "similarity_scale": 55.0}

ITACLIP = Method(
    "itaclip",
    "ITACLIP",
    'Aydın et al., "ITACLIP: Boosting Training-Free Semantic Segmentation with Image, Text, and Architectural '
    'Enhancements" (CVPR Workshops 2025)',
    benchmarks={
        "voc21": {**_ITACLIP_VOC, "score_threshold": 0.1, "area_threshold": 0.1},
        "voc20": _ITACLIP_VOC,
        "context60": {**_ITACLIP_CONTEXT, "score_threshold": 0.1},
        "context59": _ITACLIP_CONTEXT,
        "coco_stuff": _ITACLIP_STUFF,
        "coco_object": {"auxiliary_weight": 0.1, "similarity_scale": 50.0, "score_threshold": 0.1},
        "cityscapes": {"auxiliary_weight": 0.05, "photometric_weight": 0.7, "shortest_edge": 560},
        "ade20k": _ITACLIP_STUFF,
    },
    published_miou={"voc21": 67.9, "context60": 37.5, "coco_object": 37.7, "coco_stuff": 27.0, "cityscapes": 40.2},
    is_published_with_pamr=True,
)

# What all others have in common: one block's map, the plain view, names alone, no refinement, no closing.
_PLAIN_CONFIG = {"intermediate_layers": (), "window_stride": 112, "pamr_steps": 0}
_PLAIN_PROCESSOR = {"image_engineering": False, "auxiliary_weight": 0.0, "closing": False}

CLIP = Method(
    "clip",
    "CLIP",
    'Radford et al., "Learning Transferable Visual Models From Natural Language Supervision" (ICML 2021)',
    config={**_PLAIN_CONFIG, "attention_maps": ("qk",), "last_feed_forward": True},
    processor=_PLAIN_PROCESSOR,
    benchmarks={
        "voc21": {"score_threshold": 0.1},
        "context60": {"score_threshold": 0.05},
        "coco_object": {"score_threshold": 0.1},
    },
    published_miou={"voc21": 20.3, "context60": 9.0, "coco_object": 8.6, "coco_stuff": 7.1},
)

MASKCLIP = Method(
    "maskclip",
    "MaskCLIP",
    'Zhou et al., "Extract Free Dense Labels from CLIP" (ECCV 2022)',
    config={**_PLAIN_CONFIG, "attention_maps": ("identity",), "last_feed_forward": True, "window_size": 0},
    processor={**_PLAIN_PROCESSOR, "shortest_edge": 512},
    published_miou={"voc21": 38.8, "context60": 23.2, "coco_object": 20.6, "coco_stuff": 14.6},
)

SCLIP = Method(
    "sclip",
    "SCLIP",
    'Wang et al., "SCLIP: Rethinking Self-Attention for Dense Vision-Language Inference" (ECCV 2024)',
    config={**_PLAIN_CONFIG, "attention_maps": ("qq", "kk"), "last_feed_forward": True},
    processor=_PLAIN_PROCESSOR,
    benchmarks={
        "voc21": {"similarity_scale": 65.0, "score_threshold": 0.1},
        "context60": {"similarity_scale": 50.0, "score_threshold": 0.1},
        "coco_object": {"similarity_scale": 50.0, "score_threshold": 0.1},
        "coco_stuff": {"shortest_edge": 448},
        "cityscapes": {"shortest_edge": 560},
    },
    published_miou={"voc21": 61.7, "context60": 31.5, "coco_object": 32.1, "coco_stuff": 23.9},
    is_published_with_pamr=True,
)

CLEARCLIP = Method(
    "clearclip",
    "ClearCLIP",
    'Lan et al., "ClearCLIP: Decomposing CLIP Representations for Dense Vision-Language Inference" (ECCV 2024)',
    config={
        **_PLAIN_CONFIG,
        "attention_maps": ("qq",),
        "last_residual": False,
        "window_size": 448,
        "window_stride": 224,
        "similarity_scale": 50.0,
    },
    processor={**_PLAIN_PROCESSOR, "shortest_edge": 448},
    benchmarks={
        "voc21": {"score_threshold": 0.5},
        "context60": {"score_threshold": 0.15},
        "coco_object": {"score_threshold": 0.4},
    },
    published_miou={"voc21": 51.8, "context60": 32.6, "coco_object": 33.0, "coco_stuff": 23.9},
)

NACLIP = Method(
    "naclip",
    "NACLIP",
    'Hajimiri et al., "Pay Attention to Your Neighbours: Training-Free Open-Vocabulary Semantic Segmentation" '
    "(WACV 2025)",
    config={**_PLAIN_CONFIG, "attention_maps": ("kk",), "attention_prior_std": 5.0, "last_residual": False},
    processor=_PLAIN_PROCESSOR,
    benchmarks={
        "voc21": {"score_threshold": 0.1},
        "context60": {"score_threshold": 0.1},
        "coco_object": {"score_threshold": 0.1},
        "cityscapes": {"shortest_edge": 560},
    },
    published_miou={"voc21": 64.1, "context60": 35.0, "coco_object": 36.2, "coco_stuff": 25.7},
    is_published_with_pamr=True,
)

_METHODS: dict[str, Method] = {method.name: method for method in (CLIP, MASKCLIP, SCLIP, CLEARCLIP, NACLIP, ITACLIP)}
_BUILT_IN = method_names()
