"""What quality costs: labels and mIoU against seconds an image, for window strides and sets of views.

    python -m benchmarks.presets --scenes 16
    python -m benchmarks.presets --strides 28 56 112 0 --views "all five" plain     # the presets among them

Every setting sees the same held-out scenes of the drawn world, scene by scene, so that a busy minute of the machine
hits all alike. Scenes that are done are kept in the folder, so a stopped run goes on. It writes `presets.csv`,
`presets.md` and `presets.png`.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from demo_world.dataset import BENCHMARK_NAMES, BenchmarkName, compose_benchmark_scene, vocabulary_dict
from itaclip_hf import ITACLIPForSemanticSegmentation, ITACLIPProcessor, Vocabulary
from itaclip_hf.evaluation.metrics.comparison import compare_counts
from itaclip_hf.evaluation.metrics.confusion_matrix import encode_pair_counts
from itaclip_hf.evaluation.metrics.image_counts import ImageCounts
from itaclip_hf.evaluation.running.predictor import hash_weights
from itaclip_hf.files import write_atomically, write_json, write_text
from itaclip_hf.loading import load
from itaclip_hf.markdown import format_csv
from itaclip_hf.modeling.windows import plan_windows

from .measuring import synchronize
from .output import describe_machine, format_seconds, format_table, print_machine
from .workload import read_device

__all__ = ["STRIDES", "VIEW_SETS", "Setting", "main", "select_views"]

STRIDES = (28, 56, 112, 224)
VIEW_SETS = {  # numbers of the paper's views: original, grayscale, blurred, flipped vertically and horizontally
    "all five": (0, 1, 2, 3, 4),
    "three photometric": (0, 1, 2),
    "plain and mirrored": (0, 4),
    "plain": (0,),
}
PHOTOMETRIC_VIEWS = 3
REPLICATES, CONFIDENCE = 2000, 0.95


class Setting(NamedTuple):
    """One point of the curve.

    Attributes:
        stride: Pixels between windows; 0 for the whole image in one piece.
        views: Name in `VIEW_SETS`.
    """

    stride: int
    views: str

    @property
    def name(self) -> str:
        """What files call it."""
        return f"{f'stride {self.stride}' if self.stride else 'whole image'}, {self.views}"


class Point(NamedTuple):
    """What a setting reaches over all scenes.

    Attributes:
        setting: The setting.
        window_views: Number of pictures that go through the vision tower for an image.
        seconds: Median over scenes, from resized picture to label map.
        agreement: Share of pixels with the label of the first setting, the paper's.
        mean_iou: Against the truth.
        difference: Of the mIoU to that of the first setting.
        interval: Its confidence interval, by a bootstrap over scenes.
    """

    setting: Setting
    window_views: int
    seconds: float
    agreement: float
    mean_iou: float
    difference: float
    interval: tuple[float, float]


def select_views(inputs: dict[str, torch.Tensor], kept: Sequence[int]) -> dict[str, torch.Tensor]:
    """Leave out views of the paper's five and share out their weights.

    The photometric ones keep λ among them and the flips the rest; where one kind is missing, the other gets all.

    Args:
        inputs: The image processor's, with all five views.
        kept: Numbers of the views to keep, ascending.
    """
    selected = {key: value[:, kept] if key.startswith("augmentation_") else value for key, value in inputs.items()}
    weights = inputs["augmentation_weight"]
    shared = torch.zeros_like(weights)
    for group in (slice(0, PHOTOMETRIC_VIEWS), slice(PHOTOMETRIC_VIEWS, None)):
        members = [number for number in range(weights.shape[1])[group] if number in kept]
        if members:
            shared[:, members] = weights[:, group].sum(1, keepdim=True) / len(members)
    shared = shared[:, kept]
    return selected | {"augmentation_weight": shared / shared.sum(1, keepdim=True)}


class SceneMeasurement:
    """Runs all settings on a scene.

    Args:
        model: With its vocabulary baked in.
        processor: That goes with it.
        settings: The settings; the first one is the reference.
    """

    def __init__(
        self, model: ITACLIPForSemanticSegmentation, processor: ITACLIPProcessor, settings: Sequence[Setting]
    ) -> None:
        self.model = model
        self.processor = processor
        self.settings = settings
        self.class_names = model.config.class_names
        self.window_size = model.config.window_size

    def measure(self, image: NDArray[np.uint8], truth: NDArray[np.integer[Any]]) -> dict[str, Any]:
        """Seconds, agreement with the reference and confusion counts of every setting, as JSON values."""
        inputs = dict(self.processor(images=image, return_tensors="pt").to(self.model.device))
        results: dict[str, Any] = {}
        reference: torch.Tensor | None = None
        for setting in self.settings:
            labels, seconds = self._segment(select_views(inputs, VIEW_SETS[setting.views]), setting.stride)
            reference = labels if reference is None else reference
            codes, counts = encode_pair_counts(truth, labels.cpu().numpy(), len(self.class_names))
            results[setting.name] = {
                "window_views": self._count_windows(inputs, setting.stride) * len(VIEW_SETS[setting.views]),
                "seconds": seconds,
                "agreement": float((labels == reference).double().mean()),
                "codes": codes.tolist(),
                "counts": counts.tolist(),
            }
        return results

    def _count_windows(self, inputs: dict[str, torch.Tensor], stride: int) -> int:
        height, width = inputs["image_sizes"][0].tolist()
        return plan_windows((height, width), self.window_size if stride else 0, max(stride, 1)).num_windows

    def _segment(self, inputs: dict[str, torch.Tensor], stride: int) -> tuple[torch.Tensor, float]:
        self.model.config.window_size = self.window_size if stride else 0
        self.model.config.window_stride = max(stride, 1)
        synchronize(self.model.device)
        start = time.perf_counter()
        labels = self.model.predict_labels(self.processor, **inputs).labels[0]
        synchronize(self.model.device)
        return labels, time.perf_counter() - start


def summarise(
    scenes: Sequence[dict[str, Any]], settings: Sequence[Setting], class_names: Sequence[str]
) -> list[Point]:
    """Points of the curve from the results of all scenes."""
    counts = [_gather_counts(scenes, setting, len(class_names)) for setting in settings]
    points = []
    for setting, own in zip(settings, counts, strict=True):
        titles = (settings[0].name, setting.name)
        comparison = compare_counts(counts[0], own, class_names, titles, REPLICATES, CONFIDENCE)
        points.append(
            Point(
                setting,
                scenes[0][setting.name]["window_views"],
                statistics.median(scene[setting.name]["seconds"] for scene in scenes),
                statistics.mean(scene[setting.name]["agreement"] for scene in scenes),
                comparison.mean_iou[1],
                comparison.difference,
                comparison.interval,
            )
        )
    return points


def format_points(points: Sequence[Point]) -> str:
    """The curve as a Markdown table."""
    header = ["stride and views", "window views", "time", "of the first", "labels as the first", "mIoU", "difference"]
    header.append(f"{100 * CONFIDENCE:g} % interval")
    rows = [
        [
            point.setting.name,
            str(point.window_views),
            format_seconds(point.seconds),
            f"{100 * point.seconds / points[0].seconds:.0f} %",
            f"{100 * point.agreement:.2f} %",
            f"{100 * point.mean_iou:.2f}",
            f"{100 * point.difference:+.2f}",
            f"{100 * point.interval[0]:+.2f} to {100 * point.interval[1]:+.2f}",
        ]
        for point in points
    ]
    return format_table(header, rows)


def draw_points(points: Sequence[Point], path: Path, title: str) -> None:
    """Quality against seconds an image, a line for each set of views."""
    from matplotlib.figure import Figure  # no pyplot: it would pick a screen
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    panels = {"labels as at the paper's setting (%)": "agreement", "mIoU on held-out scenes (%)": "mean_iou"}
    for axes, (label, attribute) in zip(figure.subplots(1, 2), panels.items(), strict=True):
        for views in dict.fromkeys(point.setting.views for point in points):
            line = [point for point in points if point.setting.views == views]
            heights = [100 * getattr(point, attribute) for point in line]
            axes.plot([point.seconds for point in line], heights, marker="o", label=views)
            for point, height in zip(line, heights, strict=True):
                axes.annotate(
                    str(point.setting.stride), (point.seconds, height), (3, 4), textcoords="offset points", fontsize=7
                )
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("seconds an image")
        axes.set_ylabel(label)
        axes.grid(linewidth=0.4, which="both")
    handles, names = axes.get_legend_handles_labels()
    figure.legend(
        handles, names, loc="outside lower center", ncols=len(names), title="views (numbers: stride; 0: whole image)"
    )
    figure.suptitle(title, fontsize=10)
    with write_atomically(path) as file:
        figure.savefig(file, format="png", dpi=110)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure time, label agreement and mIoU for window strides and sets of views."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.presets", description=main.__doc__)
    parser.add_argument(
        "--model", default="demo", help="demo, or a checkpoint trained on the drawn world (%(default)s)"
    )
    parser.add_argument("--scenes", type=int, default=16, help="number of scenes (%(default)s)")
    parser.add_argument("--world", choices=BENCHMARK_NAMES, default="world-stuff", help="test set (%(default)s)")
    parser.add_argument(
        "--strides", type=int, nargs="+", default=list(STRIDES), help="0: whole image; the first is the reference"
    )
    parser.add_argument("--views", nargs="+", choices=VIEW_SETS, default=list(VIEW_SETS), help="(%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("itaclip_benchmarks/presets"), help="folder (%(default)s)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, … (%(default)s)")
    parser.add_argument("--threads", type=int, help="threads of torch on the CPU (its own choice)")
    options = parser.parse_args(arguments)
    device = read_device(options)
    machine = describe_machine(device)
    print_machine(machine)
    settings = [Setting(stride, views) for views in options.views for stride in options.strides]
    model, processor = _load(options.model, options.world, device)
    identity = {
        "weights": hash_weights(model),
        "world": options.world,
        "strides": options.strides,
        "views": options.views,
        "device": str(device),
        "threads": torch.get_num_threads(),
    }
    _check_folder(options.out, identity)
    measurement = SceneMeasurement(model, processor, settings)
    points = summarise(_measure_scenes(options, measurement), settings, measurement.class_names)
    title = f"{options.scenes} scenes of {options.world}, {options.model}, {machine['processor']}"
    _write_points(options.out, points, machine)
    print(format_points(points))
    draw_points(points, options.out / "presets.png", title)
    print(f"\nWrote {options.out}")


@torch.no_grad()
def _load(
    name: str, world: BenchmarkName, device: torch.device
) -> tuple[ITACLIPForSemanticSegmentation, ITACLIPProcessor]:
    return load(name, Vocabulary.from_dict(vocabulary_dict(world)), dtype=torch.float32, device=device)


def _check_folder(folder: Path, identity: dict[str, Any]) -> None:
    """Refuse a folder whose scenes were measured in another way."""
    file = folder / "identity.json"
    if file.is_file() and json.loads(file.read_text(encoding="utf-8")) != identity:
        raise SystemExit(
            f"Expected {folder} to hold scenes of this model, test set, strides, views, device and number of threads, "
            "but it holds others. Name another --out."
        )
    write_json(file, identity)


def _measure_scenes(options: argparse.Namespace, measurement: SceneMeasurement) -> list[dict[str, Any]]:
    scenes = []
    for number in range(options.scenes):
        file = options.out / "scenes" / f"{number:04d}.json"
        if not file.is_file():
            scene = compose_benchmark_scene(options.world, number)
            write_json(file, measurement.measure(scene.image, scene.label))
        scenes.append(json.loads(file.read_text(encoding="utf-8")))
        print(f"scene {number + 1} of {options.scenes}", file=sys.stderr, flush=True)
    return scenes


def _gather_counts(scenes: Sequence[dict[str, Any]], setting: Setting, num_classes: int) -> ImageCounts:
    images = [
        (number, str(number), np.array(scene[setting.name]["codes"]), np.array(scene[setting.name]["counts"]))
        for number, scene in enumerate(scenes)
    ]
    return ImageCounts.from_images(num_classes, images)


def _write_points(folder: Path, points: Sequence[Point], machine: dict[str, Any]) -> None:
    header = [*Setting._fields, *Point._fields[1:6], "low", "high"]
    rows = [[*point.setting, *point[1:6], *point.interval] for point in points]
    write_text(folder / "presets.csv", format_csv(header, rows))
    lines = [f"* {name}: {value}" for name, value in machine.items()]
    write_text(folder / "presets.md", "\n".join([format_points(points), "", *lines, ""]))


if __name__ == "__main__":
    main()
