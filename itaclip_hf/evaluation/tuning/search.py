"""Chooses the method's free numbers and background words on a user's own few labelled images, and reports honestly.

The images are split at random. On one part, encoded once (`samples.py`), a search looks for the settings with the
highest mIoU over the classes labelled there; the other part is not read until the search has ended. There the default
and the chosen settings are scored by the whole pipeline, and their difference is reported with a paired confidence
interval.

The search climbs on grids: of all moves it makes the one that gains most, again and again. A move sets one setting to
its best value (scale and score threshold together, because one means nothing without the other), or leaves out or adds
one background word. It must gain at least `min_gain`, and gain in most resamplings of the images, or a few images
would be fitted to their noise; the search ends when none does. Moves are looked at lazily: first the kind that gained
most when it was looked at last.
"""

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from ...methods.settings import Settings, setting_fields
from ...modeling import ITACLIPForSemanticSegmentation
from ...processing import ITACLIPProcessor, Vocabulary
from ..data.segmentation_datasets import SegmentationDataset
from ..metrics.confusion_matrix import IGNORED, divide_counts
from .samples import PixelSample, QueryBasis, TunableSettings, collect_samples, count_confusion

__all__ = [
    "TUNABLE_NAMES",
    "TUNED",
    "SearchStep",
    "TuningOptions",
    "TuningResult",
    "apply_settings",
    "describe_settings",
    "read_settings",
    "search_settings",
    "tune_settings",
]

TUNED = {name: each.metadata for name, each in setting_fields().items() if each.metadata["grid"]}
"""Settings that are tuned, with what is known of them."""

TUNABLE_NAMES = (*TUNED, "background")

LARGEST_MOVES = 50
RESAMPLINGS = 1000

ScoreAll = Callable[[Sequence[TunableSettings]], list[float]]
"""mIoU of each of some settings."""

IsSure = Callable[[TunableSettings, TunableSettings], bool]
"""Whether the second settings are better than the first in most resamplings of the images."""


@dataclass(frozen=True)
class TuningOptions:
    """How to search.

    Args:
        keep: Settings out of `TUNABLE_NAMES` that stay as they are.
        background_candidates: Words that may join the background.
        pixels: Pixels of each image that the search looks at.
        min_gain: mIoU, as a fraction, that a move must gain.
        sureness: Share of the resamplings of the images in which it must gain; 0 asks for none.
        seed: Seed of the pixels' drawing.
        show_progress: Whether to show bars on the terminal.

    Raises:
        ValueError: If a value is out of its range, or words may join a background that stays as it is.
    """

    keep: frozenset[str] = frozenset()
    background_candidates: tuple[str, ...] = ()
    pixels: int = 20_000
    min_gain: float = 0.001
    sureness: float = 0.9
    seed: int = 0
    show_progress: bool = False

    def __post_init__(self) -> None:
        unknown = sorted(self.keep - set(TUNABLE_NAMES))
        if unknown:
            raise ValueError(f"Expected settings out of {', '.join(TUNABLE_NAMES)}, but got {', '.join(unknown)}.")
        if self.background_candidates and "background" in self.keep:
            raise ValueError(
                "Expected candidates for a background that may change, but it is among the settings to keep. Leave "
                "one of them out."
            )
        if self.pixels < 1:
            raise ValueError(f"Expected `pixels` >= 1, but got {self.pixels}. Use 20000, for example.")
        if not 0 <= self.min_gain <= 1:  # written so that NaN is refused
            raise ValueError(f"Expected `min_gain` between 0 and 1, but got {self.min_gain}. Use 0.001, for example.")
        if not 0 <= self.sureness <= 1:
            raise ValueError(f"Expected `sureness` between 0 and 1, but got {self.sureness}. Use 0.9, for example.")


class SearchStep(NamedTuple):
    """A move of the search.

    Attributes:
        changed: Names of what was moved, between commas; "start" at first.
        settings: Where it led.
        mean_iou: mIoU there, on the sampled pixels, over the classes labelled among them.
    """

    changed: str
    settings: TunableSettings
    mean_iou: float


@dataclass(frozen=True)
class TuningResult:
    """What the search found, on the part to tune on alone.

    Args:
        steps: The start and every move; the last one's settings are the chosen ones.
        evaluations: Number of settings that were scored.
        pixels: Sampled pixels of all images.
        seconds_encoding: For encoding every image once.
        seconds_searching: For scoring all the settings.
        notes: What the reader must know about the data.
    """

    steps: tuple[SearchStep, ...]
    evaluations: int
    pixels: int
    seconds_encoding: float
    seconds_searching: float
    notes: tuple[str, ...]

    @property
    def default(self) -> TunableSettings:
        """The settings that the search began with."""
        return self.steps[0].settings

    @property
    def chosen(self) -> TunableSettings:
        """The settings that it ended with."""
        return self.steps[-1].settings


def tune_settings(
    model: ITACLIPForSemanticSegmentation,
    processor: ITACLIPProcessor,
    vocabulary: Vocabulary,
    dataset: SegmentationDataset,
    options: TuningOptions | None = None,
) -> TuningResult:
    """Search for the best settings on labelled images; hold other images out to know what they are worth.

    Args:
        model: The model; not changed.
        processor: The processor; not changed. The search begins with the settings of both.
        vocabulary: The classes, with the background words to begin with.
        dataset: The images to tune on.
        options: How to search.

    Raises:
        ValueError: If there is nothing to tune, or the labels do not fit the vocabulary or show fewer than two
            classes.
        SampleError: If an image or a label map cannot be used.
    """
    options = options or TuningOptions()
    start = read_settings(model, processor, vocabulary)
    blocks = _choose_blocks(vocabulary, processor, options)
    dataset.mapping.check_classes(vocabulary.labels)
    added = (word for word in options.background_candidates if word not in vocabulary.background)
    widest = replace(vocabulary, background=(*vocabulary.background, *added))
    began = time.perf_counter()
    basis = QueryBasis.encode(model, processor, widest)
    collected = collect_samples(model, processor, basis, dataset, options.pixels, options.seed)
    samples = list(track(collected, "encode", len(dataset), disable=not options.show_progress))
    encoded = time.perf_counter()
    notes = _note_classes(vocabulary, samples)
    memory = _Memory(lambda settings: _score(samples, basis, settings))
    is_sure = _Resampling(samples, basis, options)
    steps = search_settings(memory, start, blocks, widest.background, options.min_gain, is_sure)
    return TuningResult(
        steps=tuple(steps),
        evaluations=len(memory.scores),
        pixels=sum(len(sample.labels) for sample in samples),
        seconds_encoding=encoded - began,
        seconds_searching=time.perf_counter() - encoded,
        notes=notes,
    )


def search_settings(
    score_all: ScoreAll,
    start: TunableSettings,
    blocks: Sequence[Sequence[str]],
    background_candidates: Sequence[str],
    min_gain: float,
    is_sure: IsSure = lambda before, after: True,
) -> list[SearchStep]:
    """The search itself; see the head of this file.

    Args:
        score_all: mIoU of settings.
        start: Where to begin.
        blocks: Names of settings that are moved together, or "background" alone.
        background_candidates: All words that may form the background.
        min_gain: mIoU that a move must gain.
        is_sure: Whether a gain is more than the images' noise.

    Returns:
        The start and every move.
    """
    current = SearchStep("start", start, score_all([start])[0])
    # What each block gained when it was looked at last: 0 if too little, infinity before.
    steps, gains, moves = [current], dict.fromkeys(map(tuple, blocks), float("inf")), {}
    stale = list(gains)  # in order: of a set, another block might come first in another process
    while len(steps) <= LARGEST_MOVES:
        block = max(gains, key=gains.__getitem__)
        # Where nothing is known to gain, something may have changed.
        if stale and gains[block] <= 0:
            block = stale[0]
        if block in stale:
            if "background" in block:
                candidates = _toggle_words(current.settings, background_candidates)
            else:
                candidates = _vary(current.settings, start, block)
            moves[block] = _find_best(score_all, candidates, ", ".join(block))
            gain = moves[block].mean_iou - current.mean_iou
            is_kept = gain >= min_gain and is_sure(current.settings, moves[block].settings)
            gains[block] = gain if is_kept else 0.0
            stale.remove(block)
        elif gains[block] > 0:
            current = moves[block]
            steps.append(current)
            stale = list(gains)
        else:
            break
    return steps


def read_settings(
    model: ITACLIPForSemanticSegmentation, processor: ITACLIPProcessor, vocabulary: Vocabulary
) -> TunableSettings:
    """The settings that a model, its processor and a vocabulary have."""
    point = TunableSettings.of(model, processor)
    numbers: dict[str, Any] = {name: getattr(point, name) or 0.0 for name in TUNED}  # none and 0 are one threshold
    return replace(point, background=vocabulary.background, **numbers)


def apply_settings(
    model: ITACLIPForSemanticSegmentation,
    processor: ITACLIPProcessor,
    vocabulary: Vocabulary,
    settings: TunableSettings,
) -> Vocabulary:
    """Give a model and its processor the tuned settings, in place.

    Returns:
        The vocabulary with the background of the settings.
    """
    tuned = {name: getattr(settings, name) for name in TUNED}
    # Where none is a value, 0 is written as none.
    tuned = {name: value or (None if TUNED[name]["values"].is_optional else value) for name, value in tuned.items()}
    Settings.of(model, processor).replace(**tuned).apply(model, processor)
    return replace(vocabulary, background=settings.background)


class _Memory:
    """Scores settings once: the current ones are candidates of every block."""

    def __init__(self, score_all: ScoreAll) -> None:
        self.scores: dict[TunableSettings, float] = {}
        self._score_all = score_all

    def __call__(self, settings: Sequence[TunableSettings]) -> list[float]:
        new = [point for point in dict.fromkeys(settings) if point not in self.scores]
        if new:
            self.scores.update(zip(new, self._score_all(new), strict=True))
        return [self.scores[point] for point in settings]


class _Resampling:
    """Draws the images anew, with replacement, and looks how often settings gain."""

    def __init__(self, samples: Sequence[PixelSample], basis: QueryBasis, options: TuningOptions) -> None:
        self._samples, self._basis, self._sureness = samples, basis, options.sureness
        uniform = np.full(len(samples), 1 / len(samples))
        rng = np.random.default_rng(options.seed)
        self._weights = rng.multinomial(len(samples), uniform, size=RESAMPLINGS).astype(np.float64)

    def __call__(self, before: TunableSettings, after: TunableSettings) -> bool:
        pair = [before, after]
        confusions = np.stack([count_confusion([sample], self._basis, pair) for sample in self._samples])
        intersection, labelled = np.diagonal(confusions, axis1=-2, axis2=-1), confusions.sum(-1)
        union = labelled + confusions.sum(-2) - intersection
        # (images, 2, classes) -> (resamplings, 2, classes)
        intersection, labelled, union = (
            np.tensordot(self._weights, areas, 1) for areas in (intersection, labelled, union)
        )
        means = np.nanmean(divide_counts(intersection, np.where(labelled > 0, union, 0)), axis=-1)
        return bool((means[:, 1] > means[:, 0]).mean() >= self._sureness)


def _score(samples: Sequence[PixelSample], basis: QueryBasis, settings: Sequence[TunableSettings]) -> list[float]:
    return [_mean_iou(confusion) for confusion in count_confusion(samples, basis, settings)]


def _mean_iou(confusion: NDArray[np.float64]) -> float:
    """Mean IoU over the labelled classes.

    The benchmark's mean also counts classes that are predicted and never labelled, with 0. Over few images these are
    many, and settings that drop small classes, right or wrong, would seem to gain.
    """
    intersection, labelled = np.diagonal(confusion), confusion.sum(1)
    union = confusion.sum(0) + labelled - intersection
    return float((intersection[labelled > 0] / union[labelled > 0]).mean())


def _vary(current: TunableSettings, start: TunableSettings, block: Sequence[str]) -> list[TunableSettings]:
    """All values of a block's settings; the nearest to the current ones first, so that they win a draw."""
    axes = [sorted({*TUNED[name]["grid"].values, getattr(start, name)}) for name in block]
    places = [axis.index(getattr(current, name)) for name, axis in zip(block, axes, strict=True)]
    indices = sorted(
        itertools.product(*(range(len(axis)) for axis in axes)),
        key=lambda index: sum(abs(place - own) for place, own in zip(index, places, strict=True)),
    )
    return [
        replace(current, **{name: axis[place] for name, axis, place in zip(block, axes, index, strict=True)})
        for index in indices
    ]


def _toggle_words(current: TunableSettings, candidates: Sequence[str]) -> list[TunableSettings]:
    """The current settings, and with one background word less or more; one always stays."""
    chosen = set(current.background)
    toggled = [chosen, *(chosen ^ {word} for word in candidates)]
    return [
        replace(current, background=tuple(word for word in candidates if word in words)) for words in toggled if words
    ]


def _find_best(score_all: ScoreAll, candidates: Sequence[TunableSettings], changed: str) -> SearchStep:
    """The best of some settings, of equals the first."""
    in_order = sorted(candidates, key=lambda point: point.cost_order)
    scores = dict(zip(in_order, score_all(in_order), strict=True))
    best = max(candidates, key=scores.__getitem__)
    return SearchStep(changed, best, scores[best])


def _choose_blocks(
    vocabulary: Vocabulary, processor: ITACLIPProcessor, options: TuningOptions
) -> list[tuple[str, ...]]:
    """What can be tuned here: a setting without effect would only cost time and look like a finding."""
    is_there = {
        "views": processor.image_processor.image_engineering,
        "texts": any(entry.auxiliary_texts for entry in vocabulary.classes),
        # Labels depend on the scores only through thresholds, and these make pixels background.
        "background": bool(vocabulary.background),
    }
    if options.background_candidates and not vocabulary.background:
        raise ValueError(
            "Expected candidates for the background only with a background in the vocabulary, but it has none. Give "
            "it a first background word, or leave the candidates out."
        )
    needs = {**{name: about["grid"].needs for name, about in TUNED.items()}, "background": "background"}
    tuned = [name for name in TUNABLE_NAMES if is_there[needs[name]] and name not in options.keep]
    if not tuned:
        raise ValueError(
            "Expected something to tune, but all is kept or without effect: views need image engineering, texts an "
            "auxiliary text in the vocabulary, and thresholds a background."
        )
    return _join_blocks(tuned)


def _join_blocks(names: Sequence[str]) -> list[tuple[str, ...]]:
    """Settings that are moved together: each with its partner, if that is tuned, too."""
    blocks: list[tuple[str, ...]] = []
    for name in names:
        partner = TUNED[name]["grid"].partner if name in TUNED else ""
        if not any(name in block for block in blocks):
            blocks.append((name, partner) if partner in names else (name,))
    return blocks


def _note_classes(vocabulary: Vocabulary, samples: Sequence[PixelSample]) -> tuple[str, ...]:
    labelled = {class_id for sample in samples for class_id in sample.labels.unique().tolist()} - {IGNORED}
    if len(labelled) < 2:
        raise ValueError(
            f"Expected labels of at least two classes in the images to tune on, but got {len(labelled)}. Label more "
            "images, or try another seed."
        )
    absent = [label for class_id, label in enumerate(vocabulary.labels) if class_id not in labelled]
    if not absent:
        return ()
    named = ", ".join(absent[:10]) + (f" and {len(absent) - 10} more" if len(absent) > 10 else "")
    return (
        f"{len(absent)} of {len(vocabulary.labels)} classes are never labelled in the images to tune on: {named}. "
        "The settings were chosen without them.",
    )


def describe_settings(settings: TunableSettings) -> Mapping[str, Any]:
    """Settings as JSON values."""
    return {**{name: getattr(settings, name) for name in TUNED}, "background": list(settings.background)}
