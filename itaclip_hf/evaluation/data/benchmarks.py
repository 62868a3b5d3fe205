"""The field's benchmarks as declared data: classes, texts, label ids, folders on disk and the published settings.

Class names are the datasets' own, in label order. Synonyms, background words, definitions and one-word synonyms
(`vocabularies/*.json`) are this package's, written in the manner of an LLM's answers; the authors' files can be used
in their place.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from typing import Any, Literal

from ...processing.vocabulary import Vocabulary, VocabularyClass
from .dataset_layouts import Layout
from .label_mapping import LabelMapping

__all__ = [
    "BENCHMARKS",
    "CITYSCAPES_TRAIN_IDS",
    "COCO_STUFF_UNUSED_IDS",
    "COCO_THING_COUNT",
    "AuxiliaryTexts",
    "Benchmark",
    "coco_object_mapping",
    "coco_stuff_mapping",
    "get_benchmark",
]

AuxiliaryTexts = Literal["definitions", "synonyms", "none"]

COCO_STUFF_UNUSED_IDS = frozenset({11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90})
"""Ids among the 182 of COCO-Stuff's label files that no image uses; without them 171 classes are left."""

COCO_THING_COUNT = 80
"""The first 80 of the 171 classes are things, the others stuff."""

CITYSCAPES_TRAIN_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""`labelIds` of the 19 scored classes, in the order of their `trainIds`."""


@dataclass(frozen=True)
class Benchmark:
    """One benchmark; see `BENCHMARKS`.

    Args:
        name: What the command line calls it.
        title: What tables call it.
        vocabulary_file: File in `vocabularies/`, without its suffix.
        has_background: Whether class 0 is the background.
        layouts: How it lies on disk, the first that is found counts.
        auxiliary_texts: Which texts about the classes go with it in the paper.
    """

    name: str
    title: str
    vocabulary_file: str
    has_background: bool
    layouts: tuple[Layout, ...]
    auxiliary_texts: AuxiliaryTexts = "definitions"

    @property
    def num_classes(self) -> int:
        """Number of scored classes, the background included where there is one."""
        return len(_read_vocabulary(self.vocabulary_file)["classes"]) + self.has_background

    def vocabulary(self, auxiliary_texts: AuxiliaryTexts | None = None) -> Vocabulary:
        """The benchmark's words.

        Args:
            auxiliary_texts: Which texts enrich the names; the paper's choice if not given.
        """
        kind = auxiliary_texts or self.auxiliary_texts
        content = _read_vocabulary(self.vocabulary_file)
        return Vocabulary(
            classes=[VocabularyClass(entry["names"], _auxiliary_texts(entry, kind)) for entry in content["classes"]],
            background=content["background"] if self.has_background else (),
            metadata={
                "source": f"itaclip_hf/evaluation/data/vocabularies/{self.vocabulary_file}.json",
                "auxiliary_texts": kind,
            },
        )

    def vocabulary_with(self, texts: Mapping[str, str], source: str) -> Vocabulary:
        """The benchmark's names with texts of a file in place of its own.

        Args:
            texts: By class, under any of its names or the dataset's own, such as "wall-brick" for "brick wall".
            source: What reports call the file.

        Raises:
            ValueError: A class is unknown, or comes twice.
        """
        entries = _read_vocabulary(self.vocabulary_file)["classes"]
        labels = {e["dataset_name"]: e["names"][0] for e in entries if "dataset_name" in e}
        named: dict[str, str] = {}
        for name in texts:
            label = labels.get(name.lower(), name)
            if label in named:
                raise ValueError(
                    f"Expected one text for each class, but got two for {named[label]!r}. Remove one of them."
                )
            named[label] = name
        names = self.vocabulary("none")
        words = names.with_auxiliary_texts({label: texts[name] for label, name in named.items()})
        return replace(words, metadata={**(names.metadata or {}), "auxiliary_texts": source})


def get_benchmark(name: str) -> Benchmark:
    """A benchmark by name.

    Raises:
        ValueError: There is none of that name.
    """
    if name not in BENCHMARKS:
        raise ValueError(f"Expected a benchmark out of {', '.join(BENCHMARKS)}, but got {name!r}.")
    return BENCHMARKS[name]


def coco_stuff_mapping() -> LabelMapping:
    """COCO-Stuff's label files (0…181, 255 unlabelled) to its 171 classes."""
    used = [raw for raw in range(182) if raw not in COCO_STUFF_UNUSED_IDS]
    return LabelMapping({raw: class_id for class_id, raw in enumerate(used)}, frozenset({255}))


def coco_object_mapping(source: LabelMapping) -> LabelMapping:
    """COCO-Object from COCO-Stuff: things count from 1, all else is background, unlabelled pixels too."""
    object_ids = {
        raw: stuff_id + 1 if stuff_id < COCO_THING_COUNT else 0 for raw, stuff_id in source.class_ids.items()
    }
    return LabelMapping(object_ids | dict.fromkeys(source.ignored, 0))


def _auxiliary_texts(entry: Mapping[str, Any], kind: AuxiliaryTexts) -> tuple[str, ...]:
    if kind == "none":
        return ()
    return (entry["definition" if kind == "definitions" else "synonym"],)


@cache
def _read_vocabulary(name: str) -> dict[str, Any]:
    path = resources.files(__package__) / "vocabularies" / f"{name}.json"
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


# Folders that a dataset's own files are often put into.
_PLAIN_ROOTS = ("data", "dataset", "datasets")


def _voc_layouts(mapping: LabelMapping) -> tuple[Layout, ...]:
    return tuple(
        Layout(
            "JPEGImages",
            ".jpg",
            labels,
            ".png",
            mapping,
            list_file="ImageSets/Segmentation/{split}.txt",
            roots=("", "VOC2012", "VOCdevkit/VOC2012", "TrainVal/VOCdevkit/VOC2012", *_PLAIN_ROOTS),
        )
        for labels in ("SegmentationClass", "SegmentationClassRaw")
    )


def _context_layouts(mapping: LabelMapping) -> tuple[Layout, ...]:
    # The official split of Pascal Context is VOC 2010's own; its list serves trees without a Context list.
    return tuple(
        Layout(
            "JPEGImages",
            ".jpg",
            "SegmentationClassContext",
            ".png",
            mapping,
            list_file=list_file,
            roots=("", "VOC2010", "VOCdevkit/VOC2010", *_PLAIN_ROOTS),
            advice="Label files are made of the annotations, one .mat file an image, by `itaclip convert context "
            "--data VOC2010 --annotations FOLDER`; trainval_merged.json is not read.",
        )
        for list_file in ("ImageSets/SegmentationContext/{split}.txt", "ImageSets/Main/{split}.txt")
    )


_COCO_ROOTS = (
    "",
    "coco_stuff164k",
    "coco_object",
    "coco",
    "coco2017",
    "coco-stuff",
    "coco-stuff/dataset",
    "cocostuff",
    "cocostuff/dataset",
    *_PLAIN_ROOTS,
)
_COCO_IMAGES = ("images/{split}2017", "{split}2017")
_COCO_LABELS = (
    "annotations/{split}2017",
    "stuffthingmaps/{split}2017",
    "stuffthingmaps_trainval2017/{split}2017",
    "labels/{split}2017",
)


def _coco_layouts(mappings: Mapping[str, LabelMapping]) -> tuple[Layout, ...]:
    return tuple(
        Layout(images, ".jpg", labels, suffix, mapping, roots=_COCO_ROOTS)
        for suffix, mapping in mappings.items()
        for images in _COCO_IMAGES
        for labels in _COCO_LABELS
    )


def _cityscapes_layouts() -> tuple[Layout, ...]:
    scored = {raw: class_id for class_id, raw in enumerate(CITYSCAPES_TRAIN_IDS)}
    from_label_ids = LabelMapping(scored, frozenset(range(34)) - scored.keys())
    # labelTrainIds come first: where a user made them, they are what other tools score.
    mappings = {"_gtFine_labelTrainIds.png": LabelMapping.shifted(19), "_gtFine_labelIds.png": from_label_ids}
    return tuple(
        Layout(
            "leftImg8bit/{split}",
            "_leftImg8bit.png",
            "gtFine/{split}",
            suffix,
            mapping,
            roots=("", "cityscapes", *_PLAIN_ROOTS),
        )
        for suffix, mapping in mappings.items()
    )


def _ade20k_layouts() -> tuple[Layout, ...]:
    mapping = LabelMapping.shifted(150, first=1, ignored=(0,))
    splits = {"val": "validation", "train": "training"}
    roots = ("", "ADEChallengeData2016", "ade/ADEChallengeData2016", *_PLAIN_ROOTS)
    return (
        Layout("images/{split}", ".jpg", "annotations/{split}", ".png", mapping, splits=splits, roots=roots),
        Layout("images/{split}", ".jpg", "annotations/{split}", ".png", mapping, roots=roots),
    )


BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        Benchmark(
            "voc21",
            "Pascal VOC 2012 (21)",
            "pascal_voc",
            has_background=True,
            layouts=_voc_layouts(LabelMapping.shifted(21)),
        ),
        Benchmark(
            "voc20",
            "Pascal VOC 2012 (20)",
            "pascal_voc",
            has_background=False,
            layouts=_voc_layouts(LabelMapping.shifted(20, first=1, ignored=(0, 255))),
        ),
        Benchmark(
            "context60",
            "Pascal Context (60)",
            "pascal_context",
            has_background=True,
            layouts=_context_layouts(LabelMapping.shifted(60)),
        ),
        Benchmark(
            "context59",
            "Pascal Context (59)",
            "pascal_context",
            has_background=False,
            layouts=_context_layouts(LabelMapping.shifted(59, first=1, ignored=(0, 255))),
        ),
        Benchmark(
            "coco_stuff",
            "COCO-Stuff 164k (171)",
            "coco_stuff",
            has_background=False,
            layouts=_coco_layouts({"_labelTrainIds.png": LabelMapping.shifted(171), ".png": coco_stuff_mapping()}),
        ),
        Benchmark(
            "coco_object",
            "COCO-Object (81)",
            "coco_object",
            has_background=True,
            auxiliary_texts="synonyms",
            layouts=_coco_layouts(
                {
                    "_instanceTrainIds.png": LabelMapping.shifted(81, ignored=()),
                    "_labelTrainIds.png": coco_object_mapping(LabelMapping.shifted(171)),
                    ".png": coco_object_mapping(coco_stuff_mapping()),
                }
            ),
        ),
        Benchmark(
            "cityscapes",
            "Cityscapes (19)",
            "cityscapes",
            has_background=False,
            auxiliary_texts="synonyms",
            layouts=_cityscapes_layouts(),
        ),
        Benchmark(
            "ade20k",
            "ADE20K (150)",
            "ade20k",
            has_background=False,
            layouts=_ade20k_layouts(),
        ),
    )
}
