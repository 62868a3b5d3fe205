"""Makes the table of the vote of regions in `docs/beyond.md`: the embedded checkpoint on held-out scenes.

    python docs/make_regions.py --scenes 16 --stride 56

Every image is encoded once; rows differ in what happens to its label map. Differences are to the label map of the same
model without a vote on the same scenes, with intervals of 95 % from drawing scenes anew. Run from the root of the
repository.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from skimage.measure import label as find_components

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # the picture world is not installed

from demo_world.dataset import BenchmarkName, load_benchmark, vocabulary_dict  # noqa: E402
from itaclip_hf import Vocabulary  # noqa: E402
from itaclip_hf.evaluation.metrics.comparison import compare_counts  # noqa: E402
from itaclip_hf.evaluation.metrics.confusion_matrix import encode_pair_counts  # noqa: E402
from itaclip_hf.evaluation.metrics.image_counts import ImageCounts  # noqa: E402
from itaclip_hf.loading import load  # noqa: E402
from itaclip_hf.regions import compute_superpixels  # noqa: E402

__all__: list[str] = []

TEST_SETS: tuple[BenchmarkName, ...] = ("world-stuff", "world-20")
PLAIN = "no vote"


def label_scenes(
    name: BenchmarkName, scenes: int, settings: dict
) -> Iterator[tuple[str, int, np.ndarray, np.ndarray]]:
    """Row, number of the scene, truth and label map, for each scene and row."""
    model, processor = load("demo", Vocabulary.from_dict(vocabulary_dict(name)), settings=settings)
    for number, row in enumerate(load_benchmark(name, scenes=scenes)):
        truth = np.array(row["label"])
        inputs = processor(images=row["image"], return_tensors="pt")
        with torch.inference_mode():
            outputs = model(**inputs)
        yield PLAIN, number, truth, processor.post_process_semantic_segmentation(outputs)[0].numpy()
        regions = {
            "Felzenszwalb superpixels": compute_superpixels(row["image"]),
            "*the truth's connected regions (a ceiling)*": find_components(truth, background=-1, connectivity=1),
        }
        for source, region_map in regions.items():
            voted = processor.post_process_semantic_segmentation(outputs, region_maps=[region_map], region_vote=True)
            yield source, number, truth, voted[0].numpy()


def compare_rows(name: BenchmarkName, scenes: int, settings: dict) -> Iterator[str]:
    """A line of the table for each row."""
    labels = Vocabulary.from_dict(vocabulary_dict(name)).labels
    counts: dict[str, list] = {}
    for row, number, truth, found in label_scenes(name, scenes, settings):
        counts.setdefault(row, []).append((number, str(number), *encode_pair_counts(truth, found, len(labels))))
    images = {row: ImageCounts.from_images(len(labels), of_row) for row, of_row in counts.items()}
    for row, of_row in images.items():
        compared = compare_counts(images[PLAIN], of_row, labels, (PLAIN, row))
        low, high = (100 * bound for bound in compared.interval)
        difference = f"{100 * compared.difference:+.1f} ({low:+.1f} to {high:+.1f})" if row != PLAIN else ""
        yield f"| {name} | {row} | {100 * compared.mean_iou[1]:.1f} | {difference} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=16)
    parser.add_argument("--stride", type=int, default=56)
    options = parser.parse_args()
    print("| test set | refinement | regions | mIoU | difference |\n|---|---|---|---|---|")
    for name in TEST_SETS:
        for steps in (0, 10):
            for line in compare_rows(name, options.scenes, {"window_stride": options.stride, "pamr_steps": steps}):
                print(line.replace(f"| {name} |", f"| {name} | {'PAMR' if steps else 'none'} |"), flush=True)


if __name__ == "__main__":
    main()
