"""Scores a checkpoint on held-out scenes, adding one part of the method after another.

    python -m demo_world.ablation_table CHECKPOINT_FOLDER --scenes 32 --out table.json

Every row keeps the parts of the rows above. The interval is a bootstrap over scenes (95 %): the world's randomness,
not that of training. All rows share one pass of the encoder a scene, up to the last block.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.utils import logging

from itaclip_hf import ITACLIPConfig, ITACLIPForSemanticSegmentation, ITACLIPProcessor, Vocabulary
from itaclip_hf.evaluation.ablation.dense_variants import DenseVariant, encode_variants
from itaclip_hf.evaluation.metrics.confusion_matrix import compute_segmentation_scores
from itaclip_hf.modeling.class_scores import Queries
from itaclip_hf.modeling.model_inputs import ImageInputs, read_images

from .dataset import BENCHMARK_NAMES, BenchmarkName, compose_benchmark_scene, vocabulary_dict
from .scenes import Scene
from .sprites import HELD_OUT_STYLES, TRAINING_STYLES

__all__ = ["VARIANTS", "Variant", "main", "score_checkpoint"]

PLAIN = {
    "attention_maps": ("qk",),
    "intermediate_layers": (),
    "last_feed_forward": True,
    "pamr_steps": 0,
}


@dataclass(frozen=True)
class Variant:
    """One row: what changes in the model's configuration, in the views and in the texts."""

    name: str
    config: dict[str, Any] = field(default_factory=dict)
    image_engineering: bool = False
    has_definitions: bool = False
    has_synonyms: bool = False


def _add_parts() -> tuple[Variant, ...]:
    rows: list[tuple[str, dict[str, Any], bool, bool]] = [
        ("plain CLIP", {}, False, False),
        ("+ qq + kk", {"attention_maps": ("qq", "kk")}, False, False),
        ("+ no feed-forward", {"last_feed_forward": False}, False, False),
        ("+ intermediate maps", {"intermediate_layers": (7, 8, 10)}, False, False),
        ("+ image engineering", {}, True, False),
        ("+ definitions", {}, True, True),
        ("+ PAMR (all of ITACLIP)", {"pamr_steps": 10}, True, True),
    ]
    config: dict[str, Any] = dict(PLAIN)
    variants = []
    for name, change, image_engineering, has_definitions in rows:
        config = {**config, **change}
        variants.append(Variant(name, config, image_engineering, has_definitions))
    return tuple(variants)


_ALL = _add_parts()[-1]
VARIANTS = (
    *_add_parts(),
    replace(_ALL, name="all, synonyms instead of definitions", has_definitions=False, has_synonyms=True),
    replace(_ALL, name="all but image engineering", image_engineering=False),
)


def score_checkpoint(
    folder: Path, scenes: Sequence[Scene], vocabulary: Vocabulary, variants: Sequence[Variant], stride: int
) -> dict[str, np.ndarray]:
    """Confusion matrix of every scene for every variant, (scenes, classes, classes), truth in rows."""
    model = ITACLIPForSemanticSegmentation.from_pretrained(folder, dtype=torch.float32, window_stride=stride).eval()
    processor = ITACLIPProcessor.from_pretrained(folder)
    fields = model.config.to_dict()
    configs = [ITACLIPConfig.from_dict({**fields, **variant.config}) for variant in variants]
    queries = [_encode_queries(model, processor, vocabulary, variant) for variant in variants]
    classes = len(vocabulary.labels)
    matrices: dict[str, list[np.ndarray]] = {variant.name: [] for variant in variants}
    for scene in scenes:
        inputs = processor(images=scene.image, return_tensors="pt")
        plain = (1.0, *[0.0] * (inputs["augmentation_weight"].shape[1] - 1))  # the plain view comes first
        ends = [
            DenseVariant(config, None if variant.image_engineering else plain)
            for config, variant in zip(configs, variants, strict=True)
        ]
        with torch.inference_mode():
            encoded = encode_variants(model, read_images(ImageInputs(**inputs), model.config), ends)
            for variant, config, words, (features,) in zip(variants, configs, queries, encoded, strict=True):
                found = model.label_dense(features, words, config)
                prediction = processor.post_process_label_maps([found], area_threshold=0.0)[0].numpy()
                pairs = scene.label.astype(np.int64) * classes + prediction
                matrices[variant.name].append(np.bincount(pairs.ravel(), minlength=classes**2))
    return {name: np.stack(counts).reshape(-1, classes, classes) for name, counts in matrices.items()}


def _encode_queries(
    model: ITACLIPForSemanticSegmentation, processor: ITACLIPProcessor, vocabulary: Vocabulary, variant: Variant
) -> Queries:
    """Labels alone, or with synonyms, or with definitions: synonyms would hide what the definitions do."""
    classes = [
        {
            "names": entry.names if variant.has_synonyms else [entry.label],
            "auxiliary_texts": entry.auxiliary_texts if variant.has_definitions else [],
        }
        for entry in vocabulary.classes
    ]
    chosen = Vocabulary.from_dict({"background": vocabulary.background, "classes": classes})
    inputs = processor(vocabulary=chosen, return_tensors="pt")
    with torch.inference_mode():
        embeddings = model.encode_queries(inputs["input_ids"], inputs["attention_mask"], inputs["text_weight"])
    return Queries.sort(embeddings, inputs["query_classes"], len(vocabulary.labels))


def _mean_iou(confusion: np.ndarray) -> float:
    """In percent, over the classes that are in the scenes or in the predictions."""
    return 100 * compute_segmentation_scores(confusion)["mean_iou"]


def _summarize(matrices: np.ndarray, draws: int = 1000) -> dict[str, float]:
    """MIoU of the set with a bootstrap interval over scenes."""
    rng = np.random.default_rng(0)
    count = len(matrices)
    scores = [_mean_iou(matrices[rng.integers(count, size=count)].sum(0)) for _ in range(draws)]
    low, high = np.percentile(scores, (2.5, 97.5))
    return {"miou": round(_mean_iou(matrices.sum(0)), 2), "low": round(low, 2), "high": round(high, 2)}


def main() -> None:
    """Prints the table as Markdown and writes it as JSON."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--benchmark", choices=BENCHMARK_NAMES, default="world-stuff")
    parser.add_argument("--scenes", type=int, default=32)
    parser.add_argument("--stride", type=int, default=56)
    parser.add_argument("--seed", type=int, default=2026, help="of the scenes")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seen", action="store_true", help="the training styles instead of the held-out family")
    parser.add_argument("--rows", type=int, nargs="*", help="numbers of the rows to compute, from 0")
    parser.add_argument("--title", default="Scores", help="heading in the model card")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    logging.disable_progress_bar()
    torch.set_num_threads(arguments.threads)

    benchmark: BenchmarkName = arguments.benchmark
    styles = TRAINING_STYLES if arguments.seen else HELD_OUT_STYLES
    scenes = [
        compose_benchmark_scene(benchmark, number, arguments.seed, styles=styles) for number in range(arguments.scenes)
    ]
    vocabulary = Vocabulary.from_dict(vocabulary_dict(benchmark))
    variants = [VARIANTS[row] for row in arguments.rows] if arguments.rows else VARIANTS
    matrices = score_checkpoint(arguments.checkpoint, scenes, vocabulary, variants, arguments.stride)
    table = {name: _summarize(counts) for name, counts in matrices.items()}
    print("| configuration | mIoU | 95 % interval |\n|---|---|---|")
    for name, row in table.items():
        print(f"| {name} | {row['miou']:.1f} | {row['low']:.1f} – {row['high']:.1f} |")
    if arguments.out:
        settings = {
            "title": arguments.title,
            "benchmark": benchmark,
            "scenes": len(scenes),
            "stride": arguments.stride,
            "styles": styles,
        }
        arguments.out.write_text(json.dumps({**settings, "rows": table}, indent=2) + "\n")


if __name__ == "__main__":
    main()
