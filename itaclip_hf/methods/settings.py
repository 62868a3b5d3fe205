"""The one home of every setting: name, type, range, default, meaning, and which part of a checkpoint holds it.

Methods, benchmarks and ablation rows are changes of these settings; command line options, tuning grids, reports and
checks are derived from them. A new setting is a line here, its default where it is held, and a line where it is used.
Defaults are those of the paper (ITACLIP, CVPR Workshops 2025). Nothing here needs torch or Transformers.
"""

import math
import numbers
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any, Literal, NamedTuple, TypeVar

__all__ = [
    "PRESETS",
    "SETTING_NAMES",
    "SIZE_NAMES",
    "VOTE_NAME",
    "Holder",
    "Settings",
    "TuningGrid",
    "ValueRange",
    "check_setting",
    "describe_setting",
    "get_preset",
    "setting_fields",
    "stage_setting_names",
]

AnySettings = TypeVar("AnySettings", bound="Settings")
Holder = Literal["config", "image_processor", "processor"]
Stage = Literal["image", "views", "windows", "last_block", "texts", "maps", "labels"]


LONGEST_LIST = 64  # far beyond any use, like the bounds of numbers


@dataclass(frozen=True)
class ValueRange:
    """The values that a setting takes.

    Args:
        type: `bool`, `int`, `float` or `str`; of each entry, for a list.
        low: Lowest number.
        high: Highest number. A bound far beyond any use keeps a slip of the keyboard from running for days.
        is_list: Whether the value is a list of these.
        is_optional: Whether `None` is a value, too.
        choices: The names that there are; any, if left out.
    """

    type: type
    low: float = -math.inf
    high: float = math.inf
    is_list: bool = False
    is_optional: bool = False
    choices: tuple[str, ...] = ()

    def describe(self) -> str:
        """The range in words, as in "a whole number from 1 to 65536, or none"."""
        if self.choices:
            return " or ".join(self.choices)
        kind = {bool: "true or false", int: "a whole number", float: "a number", str: "a name"}[self.type]
        if math.isfinite(self.low):
            kind = f"{kind} from {self.low:.9g} to {self.high:.9g}"
        kind = f"a list of up to {LONGEST_LIST}, each of it {kind}" if self.is_list else kind
        return f"{kind}, or none" if self.is_optional else kind

    def read(self, value: Any) -> Any:
        """The value as plain Python: a list as a tuple, NumPy's numbers as Python's.

        Raises:
            TypeError: If the value is of another type.
            ValueError: If it is out of range.
        """
        if value is None and self.is_optional:
            return None
        if self.is_list:
            if not isinstance(value, list | tuple):
                raise TypeError(value)
            if len(value) > LONGEST_LIST:
                raise ValueError(value)
            return tuple(self._read_entry(entry) for entry in value)
        return self._read_entry(value)

    def check(self, name: str, value: Any, advice: str) -> Any:
        """The value as `read` gives it, or an error that names what was expected, what came and what to do.

        Args:
            name: What the value is called.
            value: What it shall be.
            advice: What to do, in a sentence.

        Raises:
            TypeError: If the value is of another type.
            ValueError: If it is out of range.
        """
        try:
            return self.read(value)
        except (TypeError, ValueError, OverflowError) as error:  # float(10**400) overflows
            raise (TypeError if isinstance(error, TypeError) else ValueError)(
                f"Expected `{name}` to be {self.describe()}, but got {value!r:.200}. {advice}"
            ) from None

    def _read_entry(self, value: Any) -> Any:
        expected = {bool: bool, int: numbers.Integral, float: numbers.Real, str: str}[self.type]
        # True and False are whole numbers to Python, and nowhere else.
        if not isinstance(value, expected) or (isinstance(value, bool) and self.type is not bool):
            raise TypeError(value)
        value = self.type(value)
        if self.type in (int, float) and not self.low <= value <= self.high:  # written so that NaN is refused
            raise ValueError(value)
        if self.choices and value not in self.choices:
            raise ValueError(value)
        return value


class TuningGrid(NamedTuple):
    """How a setting is tuned.

    Attributes:
        values: What is tried, the default beside it.
        needs: What must be there for it to change anything: "views", "texts" or a "background".
        partner: The setting that is moved along with it, as one means nothing without the other.
    """

    values: tuple[float, ...]
    needs: Literal["views", "texts", "background"]
    partner: str = ""


def _setting(
    default: Any,
    values: ValueRange,
    help: str,
    holder: Holder,
    stage: Stage,
    symbol: str = "",
    grid: TuningGrid | None = None,
    is_result: bool = True,
    idle_without: str = "",
) -> Any:
    metadata = {
        "holder": holder,
        "stage": stage,
        "values": values,
        "help": help,
        "symbol": symbol,
        "grid": grid,
        "is_result": is_result,
        "idle_without": idle_without,
    }
    return field(default=default, metadata=metadata)


_last_block_setting = partial(_setting, holder="config", stage="last_block")

_SWITCH = ValueRange(bool)
_SHARE = ValueRange(float, 0, 1)
_PIXELS = ValueRange(int, 1, 2**16)


@dataclass(frozen=True)
class Settings:
    """A value for every setting; made with none, the paper's.

    The metadata of each field say its `holder` ("config", "image_processor" or "processor"), the `stage` that reads it
    (from "image" to "labels"; that of "maps" finds classes, that of "labels" finishes label maps), its `values`, its
    `help`, its `symbol` in formulae, the `grid` on which it is tuned, whether results depend on it (`is_result`), and
    without which other one it changes nothing (`idle_without`).

    Raises:
        TypeError: If a value is of another type than its setting's.
        ValueError: If a value is out of its range.

    Example:
        >>> from itaclip_hf.methods import Settings
        >>> Settings().replace(pamr_steps=0).pamr_steps
        0
    """

    attention_maps: tuple[str, ...] = _last_block_setting(
        ("qq", "kk"),
        ValueRange(str, is_list=True),
        "Attention maps of the last block that are summed: pairs of the letters q, k, v, 'identity', 'similarity' or "
        "'procrustes'.",
    )
    attention_map_weights: tuple[float, ...] = _last_block_setting(
        (), ValueRange(float, -1000, 1000, is_list=True), "Weight of each of these maps; none given: 1 each."
    )
    attention_prior_std: float = _last_block_setting(
        0.0,
        ValueRange(float, 0, 1000),
        "Width, in patches, of a Gaussian of the patches' distance that is added before the softmaxes; 0: none.",
    )
    intermediate_layers: tuple[int, ...] = _last_block_setting(
        (7, 8, 10),
        ValueRange(int, 1, 1000, is_list=True),
        "Blocks, counted from 1, whose mean attention map is blended into that of the last one.",
    )
    intermediate_weight: float = _last_block_setting(
        0.5, _SHARE, "Share of that mean map; the last block's own gets the rest.", idle_without="intermediate_layers"
    )
    intermediate_maps: tuple[str, ...] = _last_block_setting(
        (),
        ValueRange(str, is_list=True),
        "Attention maps of those blocks; none given: the same as of the last one.",
        idle_without="intermediate_layers",
    )
    last_class_token: bool = _last_block_setting(
        True, _SWITCH, "Whether the last block sees the class token beside the patches."
    )
    class_token_share: float = _last_block_setting(
        0.0, ValueRange(float, -100, 100), "Share of the class token added to every patch."
    )
    similarity_block: int | None = _last_block_setting(
        None,
        ValueRange(int, 1, 1000, is_optional=True),
        "Block whose patches the map 'similarity' compares, counted from 1; none: the proxy's are compared.",
    )
    similarity_sharpness: float = _last_block_setting(
        3.0, ValueRange(float, 0, 1000), "Factor on similarities before their softmax."
    )
    similarity_threshold: float | None = _last_block_setting(
        1.0,
        ValueRange(float, -1000, 1000, is_optional=True),
        "Similarities below so many times their mean get no weight; none: all count.",
    )
    proxy_features: str = _last_block_setting(
        "hidden",
        ValueRange(str, choices=("hidden", "query_key")),
        "What of the proxy is compared: its last hidden states, or queries plus keys of its last block.",
    )
    region_scope: bool = _last_block_setting(
        False, _SWITCH, "Whether patches see only those of their region in 'similarity'."
    )
    region_merge_distance: float = _last_block_setting(
        0.2,
        ValueRange(float, 0, 2),
        "Regions whose mean features are at most so much less alike than the most alike are one region.",
        idle_without="region_scope",
    )
    region_token_weight: float = _last_block_setting(
        0.0,
        ValueRange(float, 0, 100),
        "Weight of a class token of its own for each region, in the features of its patches.",
        idle_without="region_scope",
    )
    token_cleaning: str = _last_block_setting(
        "none",
        ValueRange(str, choices=("none", "lof", "class_row")),
        "How outlying patches are found, which their neighbours then replace.",
    )
    smoothing_before: int = _last_block_setting(
        0, ValueRange(int, 0, 1000), "Block by whose similarity patches are smoothed before the last block; 0: not."
    )
    smoothing_after: int = _last_block_setting(
        0, ValueRange(int, 0, 1000), "Block by whose similarity patches are smoothed after the last block; 0: not."
    )
    smoothing_threshold: float = _last_block_setting(
        0.4, ValueRange(float, -1, 1), "Lowest similarity that counts in smoothing."
    )
    fused_layers: tuple[int, ...] = _last_block_setting(
        (),
        ValueRange(int, 1, 1000, is_list=True),
        "Blocks, counted from 1, that go through the last block together, beside the ordinary pass.",
    )
    fused_as: str = _last_block_setting(
        "pass",
        ValueRange(str, choices=("pass", "branch")),
        "How: their sum, added to the ordinary pass; or their mean, added after the final norm.",
        idle_without="fused_layers",
    )
    fused_weight: float = _last_block_setting(
        1.0, ValueRange(float, -100, 100), "Weight of their branch.", idle_without="fused_layers"
    )
    procrustes_steps: int = _last_block_setting(
        5, ValueRange(int, 1, 1000), "Steps towards the rotation of the map 'procrustes'."
    )
    procrustes_key_share: float = _last_block_setting(
        0.08, ValueRange(float, -1000, 1000), "Share of the keys' own products in the map 'procrustes'."
    )
    last_residual: bool = _last_block_setting(
        True, _SWITCH, "Whether the last block keeps the residual around its attention."
    )
    last_feed_forward: bool = _last_block_setting(
        False, _SWITCH, "Whether the last block keeps its feed-forward half."
    )
    window_size: int = _setting(
        224,
        ValueRange(int, 0, 2**16),
        "Side of the sliding window in pixels; 0: the image at once.",
        "config",
        "windows",
    )
    window_stride: int = _setting(
        28, _PIXELS, "Step between windows in pixels.", "config", "windows", idle_without="window_size"
    )
    window_multiple: int = _setting(
        1,
        ValueRange(int, 1, 4096),
        "Windows are padded to multiples of so many pixels, equally on both sides, and cut back; 1: not.",
        "config",
        "windows",
        idle_without="window_size",
    )
    window_batch_size: int | None = _setting(
        None,
        ValueRange(int, 1, 2**20, is_optional=True),
        "Windows that are encoded at once, with all their views; none: chosen by device and memory.",
        "config",
        "windows",
        is_result=False,
    )
    pamr_steps: int = _setting(10, ValueRange(int, 0, 1000), "Steps of pixel refinement; 0: none.", "config", "maps")
    pamr_dilations: tuple[int, ...] = _setting(
        (8, 16),
        ValueRange(int, 1, 4096, is_list=True),
        "Distances, in pixels, of the neighbours it looks at.",
        "config",
        "maps",
        idle_without="pamr_steps",
    )
    similarity_scale: float = _setting(
        40.0,
        ValueRange(float, 1e-3, 1e6),
        "Factor on the cosines before the softmax over all queries.",
        "config",
        "maps",
        grid=TuningGrid((10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 80.0, 100.0), "background", partner="score_threshold"),
    )
    shortest_edge: int | None = _setting(
        336,
        ValueRange(int, 1, 2**16, is_optional=True),
        "Length in pixels that the shorter side of an image is resized to.",
        "image_processor",
        "image",
    )
    longest_edge: int | None = _setting(
        2048,
        ValueRange(int, 1, 2**16, is_optional=True),
        "Length in pixels that the longer side must not exceed.",
        "image_processor",
        "image",
    )
    image_engineering: bool = _setting(
        True,
        _SWITCH,
        "Whether grey, blurred and flipped views of windows are encoded, too.",
        "image_processor",
        "image",
    )
    photometric_weight: float = _setting(
        0.75,
        _SHARE,
        "Share of the unflipped views; the flipped ones get the rest.",
        "image_processor",
        "views",
        symbol="λ",
        grid=TuningGrid((0.5, 0.6, 0.7, 0.75, 0.8, 0.9, 1.0), "views"),
        idle_without="image_engineering",
    )
    auxiliary_weight: float = _setting(
        0.2,
        _SHARE,
        "Share of the texts about a class in its queries; its names get the rest.",
        "processor",
        "texts",
        symbol="α",
        grid=TuningGrid((0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5), "texts"),
    )
    score_threshold: float = _setting(
        0.0,
        _SHARE,
        "Pixels whose best score is lower become class 0.",
        "image_processor",
        "labels",
        grid=TuningGrid((0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6), "background"),
    )
    area_threshold: float | None = _setting(
        None,
        ValueRange(float, 0, 1, is_optional=True),
        "Classes that cover at most this share of the foreground are dropped; none: all stay.",
        "image_processor",
        "maps",
        grid=TuningGrid((0.0, 0.005, 0.01, 0.02, 0.05, 0.1), "background"),
    )
    region_vote: bool = _setting(
        False,
        _SWITCH,
        "Whether all pixels of a region get the label that most of them have, where region maps are given.",
        "image_processor",
        "labels",
    )
    closing: bool = _setting(
        True, _SWITCH, "Whether label maps are closed with a 3 x 3 neighbourhood.", "image_processor", "labels"
    )

    def __post_init__(self) -> None:
        for name in SETTING_NAMES:  # past the frozen dataclass: lists become tuples, NumPy's numbers Python's
            object.__setattr__(self, name, check_setting(name, getattr(self, name)))

    @classmethod
    def of(cls: type[AnySettings], model: Any, processor: Any) -> AnySettings:
        """The settings that a model and its processor have.

        Args:
            model: The model, or its configuration alone.
            processor: The [`ITACLIPProcessor`]. An image size that is no shortest or longest edge reads as none.
        """
        parts = {
            "config": getattr(model, "config", model),
            "image_processor": processor.image_processor,
            "processor": processor,
        }
        size = dict(processor.image_processor.size)
        values: dict[str, Any] = {
            name: size.get(name) if name in SIZE_NAMES else getattr(parts[held.metadata["holder"]], name)
            for name, held in _FIELDS.items()
        }
        return cls(**values)

    def apply(self, model: Any, processor: Any) -> None:
        """Give a model and its processor these settings, in place.

        Args:
            model: The model, or its configuration alone.
            processor: The processor. Its image processor is replaced by a changed copy, as others may hold it.

        Raises:
            ValueError: If settings do not go together, such as a stride wider than the window.
        """
        config = getattr(model, "config", model)
        for name, value in self.held_by("config").items():
            setattr(config, name, value)
        config.validate_settings()
        for name, value in self.held_by("processor").items():
            setattr(processor, name, value)
        values = self.held_by("image_processor")
        edges = {name: values.pop(name) for name in SIZE_NAMES}
        image_processor = processor.image_processor
        if any(edges.values()):  # none of both says nothing about a fixed height and width
            values["size"] = {name: edge for name, edge in edges.items() if edge is not None}
        processor.image_processor = type(image_processor).from_dict({**image_processor.to_dict(), **values})

    def replace(self: AnySettings, **changes: Any) -> AnySettings:
        """These settings with some changed.

        Raises:
            TypeError: If a value is of another type than its setting's.
            ValueError: If there is no setting of a name, or a value is out of its range.
        """
        _expect_names(changes)
        return replace(self, **changes)

    def find_idle(self, names: Iterable[str]) -> dict[str, str]:
        """Those of some settings that change nothing beside the others, each with the setting that it needs."""
        needed = {name: _FIELDS[name].metadata["idle_without"] for name in names}
        return {name: other for name, other in needed.items() if other and not getattr(self, other)}

    @property
    def uses_proxy(self) -> bool:
        """Whether the last block compares the patches of another backbone."""
        return "similarity" in self.attention_maps and self.similarity_block is None

    @property
    def takes_regions(self) -> bool:
        """Whether regions that come with an image change its result."""
        return self.region_scope or self.region_vote

    @property
    def uses_texts(self) -> bool:
        """Whether texts about the classes have any weight."""
        return self.auxiliary_weight > 0

    @property
    def has_thresholds(self) -> bool:
        """Whether pixels may lose the class with the best score."""
        return bool(self.score_threshold or self.area_threshold)

    def describe_windows(self) -> str:
        """How an image is cut into windows, in words."""
        return f"windows every {self.window_stride} pixels" if self.window_size else "the whole image at once"

    def held_by(self, holder: Holder) -> dict[str, Any]:
        """The settings of one holder, by name."""
        return {name: getattr(self, name) for name, held in _FIELDS.items() if held.metadata["holder"] == holder}

    def read_by(self, *stages: Stage) -> tuple[Any, ...]:
        """What some stages read, as far as results depend on it: settings with equal ones can share their work."""
        return tuple(getattr(self, name) for name in stage_setting_names(*stages))

    def last_block(self) -> tuple[Any, ...]:
        """How the last block works, whatever the order of what is summed: methods with equal ones are one method."""
        weights = self.attention_map_weights or (1.0,) * len(self.attention_maps)
        # Not strict: whether there is a weight for each map is for the configuration to say, in words.
        maps = tuple(sorted(zip(self.attention_maps, weights, strict=False)))
        # What changes nothing makes no other method.
        changes: dict[str, Any] = {"attention_maps": (), "attention_map_weights": ()}
        changes |= {name: _FIELDS[name].default for name in self.find_idle(stage_setting_names("last_block"))}
        values = replace(self, **changes).read_by("last_block")
        return maps, *(tuple(sorted(value)) if isinstance(value, tuple) else value for value in values)

    def differences(self, other: "Settings") -> dict[str, tuple[Any, Any]]:
        """The settings that both have otherwise, as far as results depend on them: (own value, other's value)."""
        own, others = self._results(), other._results()
        return {name: (own[name], others[name]) for name in own if own[name] != others[name]}

    def to_json(self, holder: Holder | None = None) -> dict[str, Any]:
        """The settings that results depend on, all or those of one holder, as JSON values."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in self._results().items()
            if holder in (None, _FIELDS[name].metadata["holder"])
        }

    def _results(self) -> dict[str, Any]:
        """The settings that results depend on, by name."""
        return {name: getattr(self, name) for name, each in _FIELDS.items() if each.metadata["is_result"]}


VOTE_NAME = "region_vote"  # which is on by itself where commands are given regions
SIZE_NAMES = ("shortest_edge", "longest_edge")  # which an image processor holds in its `size`


def setting_fields() -> dict[str, Any]:
    """The fields of [`Settings`] by name, with their metadata."""
    return _FIELDS


def stage_setting_names(*stages: Stage) -> tuple[str, ...]:
    """The settings that some stages read, as far as results depend on them."""
    return tuple(
        name for name, each in _FIELDS.items() if each.metadata["stage"] in stages and each.metadata["is_result"]
    )


_FIELDS = {each.name: each for each in fields(Settings)}
SETTING_NAMES = tuple(_FIELDS)


PRESETS: dict[str, dict[str, Any]] = {
    "paper": {"window_stride": 28},
    "balanced": {"window_stride": 56},
    "fast": {"window_stride": 112},
    "live": {"window_size": 0, "image_engineering": False, "pamr_steps": 10},  # one encoder pass
    "demo": {"window_stride": 56, "area_threshold": 0.01},  # the smallest thing in the drawn scenes covers 1 %
}
"""What each preset changes of the settings: the most thorough first, at last that of the embedded checkpoint."""


def get_preset(name: str) -> dict[str, Any]:
    """What a preset changes of the settings.

    Raises:
        ValueError: If there is none of that name; the message lists those that there are.
    """
    if not isinstance(name, str) or name not in PRESETS:
        raise ValueError(f"Expected a preset out of {', '.join(PRESETS)}, but got {name!r}.")
    return dict(PRESETS[name])


def describe_setting(name: str) -> str:
    """What a setting does and which values it takes, in a line."""
    metadata = _FIELDS[name].metadata
    return f"{metadata['help']} ({metadata['values'].describe()})"


def check_setting(name: str, value: Any) -> Any:
    """The value of a setting as plain Python, if it is one.

    Args:
        name: Name of a setting.
        value: What it shall be.

    Raises:
        TypeError: If the value is of another type.
        ValueError: If there is no such setting, or the value is out of its range.

    Example:
        >>> from itaclip_hf.methods.settings import check_setting
        >>> check_setting("pamr_dilations", [8, 16])
        (8, 16)
    """
    _expect_names([name])
    values: ValueRange = _FIELDS[name].metadata["values"]
    return values.check(name, value, f"The paper's value is {_FIELDS[name].default!r}.")


def _expect_names(names: Mapping[str, Any] | list[str]) -> None:
    unknown = [name for name in names if name not in _FIELDS]
    if unknown:
        raise ValueError(
            f"Expected settings out of {', '.join(SETTING_NAMES)}, but got {', '.join(map(str, unknown))}."
        )
