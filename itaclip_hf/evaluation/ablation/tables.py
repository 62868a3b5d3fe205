"""Ablation tables as declared data: rows of the paper's tables as changes of settings, with the published figures.

A row starts from the full method with a benchmark's settings, applies what its table changes in all rows (`base`),
then its own changes. Setting names are those of methods: fields of the configuration and of the processor, and besides
`method` (start from that method instead), `model` (another checkpoint) and `background` (other background words).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...methods import check_setting, get_method, method_names
from ...methods.settings import SETTING_NAMES

__all__ = [
    "AblationRow",
    "AblationTable",
    "check_settings",
    "get_table",
    "make_backbone_table",
    "table_names",
]

OWN_KEYS = ("method", "model", "background")
"""What a row may change beside settings."""


@dataclass(frozen=True)
class AblationRow:
    """One row.

    Args:
        name: What the table calls it.
        settings: What it changes.
        published: By benchmark, the published mIoU in percent.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    published: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class AblationTable:
    """One table.

    Args:
        name: What the command line and files call it.
        title: Its heading.
        rows: Its rows.
        reference: Name of the row that all others are compared with; the first one if left out.
        base: Settings that all rows share, where they are not the full method's.
        number: Its number in the paper.
        note: What a reader must know.

    Raises:
        ValueError: If there are fewer than two rows, names are not unique, or a setting or the reference is unknown.
    """

    name: str
    title: str
    rows: tuple[AblationRow, ...]
    reference: str = ""
    base: Mapping[str, Any] = field(default_factory=dict)
    number: int | None = None
    note: str = ""

    def __post_init__(self) -> None:
        names = [row.name for row in self.rows]
        if len(names) < 2:
            raise ValueError(f"Expected at least two rows in the table {self.name!r}, but got {len(names)}.")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"Expected row names once in the table {self.name!r}, but got {', '.join(twice)} twice.")
        if not self.reference:
            object.__setattr__(self, "reference", names[0])
        if self.reference not in names:
            raise ValueError(
                f"Expected the reference of the table {self.name!r} to be one of its rows ({', '.join(names)}), but "
                f"got {self.reference!r}."
            )
        for place, settings in (("base", self.base), *((f"row {row.name!r}", row.settings) for row in self.rows)):
            try:
                check_settings(settings)
            except (TypeError, ValueError) as error:
                raise type(error)(f"In {place} of the table {self.name!r}: {error}") from None


def check_settings(settings: Mapping[str, Any]) -> None:
    """Make sure that settings are known, and of the right type and range.

    Raises:
        TypeError: If a value is of another type than its setting's.
        ValueError: If there is no setting of a name, or a value is out of its range.
    """
    for name, value in settings.items():
        if name in OWN_KEYS:
            expected = list | tuple if name == "background" else str
            if not isinstance(value, expected):
                kind = "a list of words" if name == "background" else "a name"
                raise TypeError(f"Expected `{name}` to be {kind}, but got {value!r}.")
        elif name not in SETTING_NAMES:
            known = ", ".join((*SETTING_NAMES, *OWN_KEYS))
            raise ValueError(f"Expected settings out of {known}, but got {name}.")
        else:
            check_setting(name, value)


def table_names() -> tuple[str, ...]:
    """Names of the paper's tables."""
    return (*_TABLES, "methods", "backbones")


def get_table(name: str) -> AblationTable:
    """A table of the paper by its name or its number there.

    Raises:
        ValueError: If there is none; the message lists those that there are.
    """
    tables = {**_TABLES, "methods": _make_method_table(), "backbones": make_backbone_table(tuple(_BACKBONES))}
    numbers = {str(table.number): table for table in tables.values()}
    table = tables.get(name) or numbers.get(name)
    if table is None:
        known = ", ".join(f"{table.name} ({table.number})" for table in tables.values())
        raise ValueError(f"Expected a table out of {known}, 'all', or a YAML file, but got {name!r}.")
    return table


def make_backbone_table(models: Sequence[str]) -> AblationTable:
    """The table of backbones for these checkpoints; the paper's figures stand beside those that it has."""
    rows = tuple(AblationRow(model, {"model": model}, _BACKBONES.get(model, {})) for model in models)
    return AblationTable("backbones", "Backbones", rows, number=10)


_BENCHMARKS = ("coco_stuff", "coco_object", "voc21", "context60")  # the order of the paper's columns


def _on_all(*figures: float) -> dict[str, float]:
    return dict(zip(_BENCHMARKS, figures, strict=True))


def _on_voc(figure: float) -> dict[str, float]:
    return {"voc21": figure}


def _weights(photometric_weight: float, auxiliary_weight: float, context: float) -> AblationRow:
    settings = {"photometric_weight": photometric_weight, "auxiliary_weight": auxiliary_weight}
    return AblationRow(f"λ {photometric_weight:g}, α {auxiliary_weight:g}", settings, {"context60": context})


def _make_method_table() -> AblationTable:
    """All methods that there are, each as its figures were published: with pixel refinement or without."""
    rows = []
    for name in method_names():
        method = get_method(name)
        title = f"{method.title} + PAMR" if method.published_with else method.title
        rows.append(AblationRow(title, {"method": name, **method.published_with}, method.published))
    return AblationTable(
        "methods",
        "Training-free methods that need only CLIP",
        tuple(rows),
        reference=get_method("itaclip").title,
        number=1,
        note="Each method has its own published settings of windows, image size, scale and thresholds.",
    )


_BACKBONES = {
    "openai/clip-vit-base-patch16": _on_voc(67.9),
    "openai/clip-vit-base-patch32": _on_voc(56.7),
    "openai/clip-vit-large-patch14": _on_voc(53.3),
}

_TABLES = {
    table.name: table
    for table in (
        AblationTable(
            "attention",
            "Attention maps of the last block",
            (
                AblationRow("q-k", {"attention_maps": ("qk",)}, _on_voc(19.0)),
                AblationRow("q-q", {"attention_maps": ("qq",)}, _on_voc(58.9)),
                AblationRow("k-k", {"attention_maps": ("kk",)}, _on_voc(52.2)),
                AblationRow("v-v", {"attention_maps": ("vv",)}, _on_voc(57.7)),
                AblationRow("q-q + k-k", {"attention_maps": ("qq", "kk")}, _on_voc(67.9)),
                AblationRow("q-q + v-v", {"attention_maps": ("qq", "vv")}, _on_voc(64.9)),
                AblationRow("q-q + k-k + v-v", {"attention_maps": ("qq", "kk", "vv")}, _on_voc(66.4)),
            ),
            reference="q-q + k-k",
            number=2,
        ),
        AblationTable(
            "feed-forward",
            "Feed-forward half of the last block",
            (
                AblationRow("kept", {"last_feed_forward": True}, _on_all(26.3, 36.9, 66.3, 36.3)),
                AblationRow("dropped", {"last_feed_forward": False}, _on_all(27.0, 37.7, 67.9, 37.5)),
            ),
            reference="dropped",
            number=3,
        ),
        AblationTable(
            "intermediate",
            "Intermediate layers",
            (
                AblationRow("none", {"intermediate_layers": ()}, _on_voc(65.0)),
                AblationRow("7", {"intermediate_layers": (7,)}, _on_voc(65.4)),
                AblationRow("8", {"intermediate_layers": (8,)}, _on_voc(65.5)),
                AblationRow("7, 8", {"intermediate_layers": (7, 8)}, _on_voc(65.5)),
                AblationRow("7, 8, 10", {"intermediate_layers": (7, 8, 10)}, _on_voc(65.6)),
                AblationRow("7, 8, 9, 10", {"intermediate_layers": (7, 8, 9, 10)}, _on_voc(65.5)),
            ),
            reference="7, 8, 10",
            base={"pamr_steps": 0},
            number=4,
            note="Without pixel refinement, as in the paper.",
        ),
        AblationTable(
            "pamr",
            "Pixel refinement",
            (
                AblationRow("off", {"pamr_steps": 0}, _on_all(26.3, 36.4, 65.6, 36.0)),
                AblationRow("on", {"pamr_steps": 10}, _on_all(27.0, 37.7, 67.9, 37.5)),
            ),
            reference="on",
            number=5,
        ),
        AblationTable(
            "engineering",
            "Image engineering and auxiliary texts, switched on one after the other",
            (
                AblationRow(
                    "neither",
                    {"image_engineering": False, "auxiliary_weight": 0.0},
                    {"context60": 34.3, "coco_stuff": 24.5},
                ),
                AblationRow("+ image engineering", {"auxiliary_weight": 0.0}, {"context60": 34.6, "coco_stuff": 24.8}),
                AblationRow("+ auxiliary texts", {}, {"context60": 35.4, "coco_stuff": 25.4}),
            ),
            base={"pamr_steps": 0},
            number=6,
            note="Without pixel refinement, which comes nearest to the paper's figures; they are still below its full "
            "result without refinement (Context 36.0, COCO-Stuff 26.3), so some other setting differed there.",
        ),
        AblationTable(
            "stride",
            "Stride of the windows in pixels",
            (
                AblationRow("224", {"window_stride": 224}, _on_all(25.3, 36.7, 66.1, 36.9)),
                AblationRow("112", {"window_stride": 112}, _on_all(26.6, 37.4, 67.1, 37.4)),
                AblationRow("56", {"window_stride": 56}, _on_all(26.9, 37.7, 67.9, 37.5)),
                AblationRow("28", {"window_stride": 28}, _on_all(27.0, 37.7, 67.9, 37.5)),
            ),
            reference="28",
            number=7,
        ),
        AblationTable(
            "weights",
            "Weights of unflipped views (λ) and auxiliary texts (α)",
            (
                _weights(0.75, 0.15, 36.0),
                _weights(0.6, 0.15, 35.9),
                _weights(0.5, 0.15, 35.8),
                _weights(0.75, 0.2, 35.9),
                _weights(0.6, 0.2, 35.9),
                _weights(0.5, 0.2, 35.7),
                _weights(0.6, 0.1, 35.9),
                _weights(0.5, 0.1, 35.8),
            ),
            base={"pamr_steps": 0},
            number=8,
            note="Without pixel refinement, as in the paper.",
        ),
        AblationTable(
            "background",
            "Background words",
            (
                AblationRow("the word “background” alone", {"background": ("background",)}, {"coco_object": 34.5}),
                AblationRow("all words", {}, {"coco_object": 37.7}),
            ),
            reference="all words",
            number=11,
        ),
    )
}
