"""Why an image was segmented as it was: which words won where, against whom, and what would be without each of them.

The image is encoded, stitched and refined once; every question after that is a weighted sum of the maps of all texts.
"""

import math
import numbers
import os
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from PIL import Image

from ..markdown import format_table, percent
from ..methods import Settings
from ..modeling import ITACLIPForSemanticSegmentation
from ..modeling.data_contract import pack_inputs
from ..processing import ITACLIPProcessor, Vocabulary, read_rgb_image
from ..text_cache import TextCache
from .evidence import PixelEvidence, find_evidence
from .omissions import Omission, count_changes, list_reductions
from .patch_attention import PatchAttention, attend_from
from .pictures import draw_evidence, draw_patch_attention
from .text_maps import ClassMaps, EncodedTexts, compute_text_maps

__all__ = ["ClassEvidence", "Explanation", "explain"]

MOST_ELEMENTS = 2**26  # of all texts' maps together: 256 MiB, and a few times that while they are compared
MOST_WORDS = 4  # listed in a cell of a table
MOST_LETTERS = 60  # of a text in a cell
LEAST_SHARE = 0.005  # that is listed; everything is in the JSON values


@dataclass(frozen=True)
class ClassEvidence:
    """What stands behind a class in one image.

    Attributes:
        label: The class.
        pixels: Number of its pixels.
        share: Their share of the image.
        score: Their mean score; `None` without any.
        margin: Mean lead over the best other class; `None` without any.
        names: Pixels in which each of its names or words is the best of the class.
        runners_up: Pixels in which each other class comes next, as far as there are any; most pixels first.
        behind: Pixels of other classes in which this one comes next.
    """

    label: str
    pixels: int
    share: float
    score: float | None
    margin: float | None
    names: dict[str, int]
    runners_up: dict[str, int]
    behind: int

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        rounded = {name: None if (value := getattr(self, name)) is None else round(value, 6) for name in _FRACTIONS}
        return {**vars(self), **rounded}


_FRACTIONS = ("share", "score", "margin")


@dataclass(frozen=True)
class Explanation:
    """Why an image was segmented as it was.

    Attributes:
        image: The image, RGB; smaller than what came if the maps of so many texts would not fit into memory.
        vocabulary: The words.
        evidence: What stands behind each pixel.
        omissions: What would change without each synonym, definition and background word, the largest change first.
        attention: What a patch looks at, if one was asked for.
    """

    image: Image.Image
    vocabulary: Vocabulary
    evidence: PixelEvidence
    omissions: tuple[Omission, ...]
    attention: PatchAttention | None = None

    @cached_property
    def classes(self) -> tuple[ClassEvidence, ...]:
        """What stands behind each class, in label order."""
        return tuple(self._describe_class(index, label) for index, label in enumerate(self.vocabulary.labels))

    def _describe_class(self, index: int, label: str) -> ClassEvidence:
        found, labels = self.evidence, self.vocabulary.labels
        is_class = found.labels == index
        pixels = int(is_class.sum())
        won = torch.bincount(found.queries[is_class], minlength=len(self.vocabulary.query_names)).tolist()
        others = torch.bincount(found.runners_up[is_class], minlength=len(labels)).tolist()
        others[index] = 0  # a single class has no other
        is_own = [own == index for own in self.vocabulary.query_classes]
        return ClassEvidence(
            label,
            pixels,
            pixels / found.labels.numel(),
            float(found.scores[is_class].mean()) if pixels else None,
            float(found.margins[is_class].mean()) if pixels else None,
            {name: won[query] for query, name in enumerate(self.vocabulary.query_names) if is_own[query]},
            dict(sorted(((labels[id], count) for id, count in enumerate(others) if count), key=lambda each: -each[1])),
            int(((found.runners_up == index) & ~is_class).sum()),
        )

    def to_json(self) -> dict[str, Any]:
        """Everything but the maps of single pixels, as JSON values."""
        return {
            "width": self.image.width,
            "height": self.image.height,
            "classes": [entry.to_json() for entry in self.classes],
            "without": [omission.to_json() for omission in self.omissions],
            "attention": None if self.attention is None else self.attention.to_json(),
        }

    def to_markdown(self) -> str:
        """Two tables: what stands behind the classes, and what changes without each text."""
        total = self.evidence.labels.numel()
        seen = sorted(
            (entry for entry in self.classes if entry.pixels or entry.behind >= LEAST_SHARE * total),
            key=lambda entry: (-entry.pixels, -entry.behind),
        )
        rows = [
            (
                entry.label,
                percent(entry.share, 1),
                "–" if entry.score is None else f"{entry.score:.2f}",
                "–" if entry.margin is None else f"{entry.margin:.2f}",
                _list_shares(entry.names, entry.pixels),
                _list_shares(entry.runners_up, entry.pixels),
                percent(entry.behind / total, 1),
            )
            for entry in seen
        ]
        header = ("class", "% of pixels", "score", "margin", "won by", "ahead of", "next best in %")
        return f"{format_table(header, rows)}\n{self._format_omissions()}"

    def _format_omissions(self) -> str:
        heard = [omission for omission in self.omissions if omission.pixels]
        rows = [
            (
                f"{omission.kind} of {omission.label}" if omission.kind != "background word" else omission.kind,
                _shorten(omission.text),
                f"{omission.pixels:,}",
                _list_most({f"{old} → {new}": f"{count:,}" for (old, new), count in omission.changes.items()}),
            )
            for omission in heard
        ]
        silent = len(self.omissions) - len(heard)
        table = format_table(("without the", "text", "pixels that change", "namely"), rows) if heard else ""
        return table + (f"\n{silent} of {len(self.omissions)} texts change nothing here.\n" if silent else "")

    def draw(self) -> Image.Image:
        """A page: the classes, the words that won, the leads, and the runners-up."""
        return draw_evidence(self.image, self.vocabulary, self.evidence)

    def draw_attention(self) -> Image.Image:
        """A page: what the patch looks at in every block and in the rebuilt last one.

        Raises:
            ValueError: If no patch was asked for.
        """
        if self.attention is None:
            raise ValueError("Expected an explanation of a patch, but got one without. Pass `at=(x, y)` to `explain`.")
        return draw_patch_attention(self.image, self.attention)


@torch.inference_mode()
def explain(
    image: Image.Image | str | os.PathLike[str],
    model: ITACLIPForSemanticSegmentation,
    processor: ITACLIPProcessor,
    vocabulary: Vocabulary,
    at: tuple[int, int] | None = None,
) -> Explanation:
    """Say which words won where in an image, by how much, and what would change without each of them.

    The image is encoded once. A large photograph with many words is explained at a smaller size, which is that of the
    explanation's `image`.

    Args:
        image: A picture, or its file.
        model: The model.
        processor: Its processor.
        vocabulary: The words; what is baked into the model plays no part.
        at: (x, y) of a pixel whose patch's attention is shown, too.

    Raises:
        TypeError: If the vocabulary is none, the image neither picture nor path, or the pixel no pair of numbers.
        OSError: If the image cannot be read.
        ValueError: If its pixels are not as expected, or there is no such pixel.

    Example:
    ```python
    >>> import itaclip_hf
    >>> from itaclip_hf.samples import load_demo_scene

    >>> vocabulary = itaclip_hf.Vocabulary(["grass", ["dog", "puppy"]], background=["sky", "sand"])
    >>> found = itaclip_hf.explain(load_demo_scene(0)[0], *itaclip_hf.load("demo", preset="fast"), vocabulary)
    >>> [entry.label for entry in found.classes if entry.pixels]
    ['background', 'grass', 'dog']

    ```
    """
    if not isinstance(vocabulary, Vocabulary):
        raise TypeError(f"Expected a Vocabulary, but got {type(vocabulary).__name__}. Make one of the words.")
    if not isinstance(image, Image.Image | str | os.PathLike):
        raise TypeError(
            f"Expected a PIL image or the path of a file, but got {type(image).__name__}. Make a picture of an array "
            "(height, width, 3) of uint8 by `PIL.Image.fromarray`."
        )
    model.config.validate_settings()
    picture = read_rgb_image(image)
    place = None if at is None else _read_place(at, picture)
    words = processor(vocabulary=vocabulary, return_tensors="pt").to(model.device)
    embeddings = TextCache().encode_texts(model, words["input_ids"], words["attention_mask"])
    texts = EncodedTexts(processor, vocabulary, embeddings)
    inputs = processor(images=picture, return_tensors="pt")
    size = _fit_memory(picture.height, picture.width, len(embeddings))
    # Maps are stitched at the size that the model takes for the original one.
    inputs["original_sizes"] = torch.tensor([size])
    (features,) = model.encode_dense(pack_inputs(inputs.to(model.device))[0])
    with torch.autocast(model.device.type, enabled=False):  # sums of many terms need float32
        maps = compute_text_maps(features, model.config, embeddings)
        evidence, omissions = _compare(maps, texts, processor, vocabulary, Settings.of(model, processor))
    attention = None
    if place is not None:
        attention = attend_from(
            model, features.image, (place[0] * size[1] // picture.width, place[1] * size[0] // picture.height)
        )
    return Explanation(picture.resize(size[::-1]), vocabulary, evidence, omissions, attention)


def _read_place(at: Any, picture: Image.Image) -> tuple[int, int]:
    """The pixel, as plain numbers."""
    is_pair = isinstance(at, list | tuple) and len(at) == 2
    if not is_pair or not all(isinstance(each, numbers.Integral) and not isinstance(each, bool) for each in at):
        raise TypeError(f"Expected `at` to be two whole numbers (x, y), but got {at!r:.200}. Pass those of a pixel.")
    if not (0 <= at[0] < picture.width and 0 <= at[1] < picture.height):
        raise ValueError(
            f"Expected a pixel (x, y) of an image of {picture.width} x {picture.height}, counted from 0, but got {at}."
        )
    return int(at[0]), int(at[1])


def _fit_memory(height: int, width: int, texts: int) -> tuple[int, int]:
    """Size of the explanation: the image's, or a smaller one of its shape."""
    scale = min(1.0, math.sqrt(MOST_ELEMENTS / (height * width * texts)))
    return max(1, round(height * scale)), max(1, round(width * scale))


def _compare(
    text_maps: torch.Tensor,
    texts: EncodedTexts,
    processor: ITACLIPProcessor,
    vocabulary: Vocabulary,
    settings: Settings,
) -> tuple[PixelEvidence, tuple[Omission, ...]]:
    """The label map of the whole vocabulary, and what becomes of it without each text."""
    queries = texts.mix(vocabulary)
    maps = text_maps @ queries.embeddings.T
    classes = ClassMaps.of_queries(maps, queries)
    best_queries = maps.argmax(-1).unique().tolist()
    (labels,) = processor.post_process_label_maps([classes])
    omissions = []
    for reduction in list_reductions(vocabulary, settings.uses_texts):
        others = labels
        # Scores change without any text, the map of classes only without one that is the best somewhere.
        if settings.has_thresholds or reduction.query is None or reduction.query in best_queries:
            weights, class_ids, _ = texts.mix(reduction.vocabulary)
            own = text_maps @ weights[torch.tensor(class_ids) == reduction.class_id].T
            (others,) = processor.post_process_label_maps([classes.with_class(reduction.class_id, own)])
        changes = count_changes(labels, others, vocabulary.labels)
        omissions.append(Omission(reduction.kind, reduction.label, reduction.text, changes))
    omissions.sort(key=lambda omission: -omission.pixels)
    return find_evidence(maps, queries, classes, labels), tuple(omissions)


def _list_shares(pixels: dict[str, int], total: int) -> str:
    """Entries with their shares in percent, most pixels first, without those that round to nothing."""
    found = sorted(pixels.items(), key=lambda entry: -entry[1])
    return _list_most({name: f"{count / total:.0%}" for name, count in found if count > LEAST_SHARE * total})


def _list_most(figures: dict[str, str]) -> str:
    """The first entries in a line."""
    shown = [f"{name} {figure}" for name, figure in list(figures.items())[:MOST_WORDS]]
    return ", ".join(shown) + (f" and {len(figures) - MOST_WORDS} more" if len(figures) > MOST_WORDS else "")


def _shorten(text: str) -> str:
    return text if len(text) <= MOST_LETTERS else f"{text[: MOST_LETTERS - 3]}..."
