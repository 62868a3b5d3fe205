"""The report of an evaluation: everything that a table, a reader or a later comparison needs, in one folder.

`report.json` holds scores, settings, vocabulary, versions, hardware and timing; `report.md` is the table for humans;
`per_image.npz` the counts of every image; three pictures show classes, confusions, and the best, median and worst
images.
"""

import datetime
import math
import os
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ...files import read_json, write_json, write_text
from ...markdown import bold, code, escape, format_facts, format_table, percent, picture
from ...methods import Published
from ...processing import Vocabulary
from ...version import __version__
from ..data.benchmarks import Benchmark
from ..metrics.confusion_matrix import SegmentationScores, compute_segmentation_scores

if TYPE_CHECKING:
    from ..running.runner import EvaluationResult

__all__ = [
    "REPORT_FILE",
    "RESULT_FILES",
    "build_report",
    "describe_hardware",
    "describe_versions",
    "format_markdown",
    "load_report",
    "write_report",
]

REPORT_FILE = "report.json"
PER_IMAGE_FILE = "per_image.npz"
VOCABULARY_FILE = "vocabulary.json"
MARKDOWN_FILE = "report.md"
RESULT_FILES = (REPORT_FILE, MARKDOWN_FILE, VOCABULARY_FILE, PER_IMAGE_FILE)
"""What `write_report` writes."""
SCORES: tuple[Literal["mean_iou", "mean_accuracy", "overall_accuracy", "frequency_weighted_iou"], ...] = (
    "mean_iou",
    "mean_accuracy",
    "overall_accuracy",
    "frequency_weighted_iou",
)

_PACKAGES = ("torch", "transformers", "accelerate", "numpy", "pillow")


def build_report(
    title: str,
    result: "EvaluationResult",
    description: Mapping[str, Any],
    vocabulary: Vocabulary,
    benchmark: Benchmark | None = None,
    command: Sequence[str] = (),
    pictures: Sequence[str] = (),
    published: Published | None = None,
) -> dict[str, Any]:
    """The content of `report.json`: JSON values, fractions in [0, 1], null for what does not occur.

    `description` is that of `describe_run`. The method's published figure is only shown beside a run like the
    published one: of its settings, on all images of the benchmark, with words that may be the authors'.
    """
    scores = compute_segmentation_scores(result.confusion)
    if published is not None and benchmark is not None:
        others = _compare_data(description["dataset"], len(result.counts), benchmark)
        others |= _compare_words(vocabulary, benchmark, published)
        published = published._replace(differences={**published.differences, **others})
    return {
        "title": title,
        "benchmark": None if benchmark is None else benchmark.name,
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "command": list(command),
        "scores": {name: _json_number(scores[name]) for name in SCORES},
        "published_mean_iou": None if published is None or published.differences else round(published.miou / 100, 4),
        "published_differences": None
        if published is None
        else [f"{name} {own} instead of {their}" for name, (own, their) in published.differences.items()],
        "classes": _describe_classes(scores, result, vocabulary),
        "images": {
            "scored": len(result.counts),
            "of_earlier_runs": result.resumed,
            "problems": [
                {"index": p.index, "kind": p.kind, "path": p.path, "message": p.message} for p in result.problems
            ],
        },
        "settings": dict(description),
        "vocabulary": {
            "sha256": vocabulary.fingerprint,
            "classes": len(vocabulary.labels),
            "queries": len(vocabulary.query_names),
            "background": list(vocabulary.background),
            "auxiliary_texts": sum(len(entry.auxiliary_texts) for entry in vocabulary.classes),
            "metadata": vocabulary.metadata,
            "file": VOCABULARY_FILE,
        },
        "pictures": list(pictures),
        "timing": {
            "seconds": round(result.seconds, 3),
            "images_per_second": round(result.images_per_second, 4),
            "peak_memory_bytes": result.peak_memory_bytes,
            "peak_device_memory_bytes": result.peak_device_memory_bytes,
        },
        "hardware": describe_hardware(result.num_processes),
        "versions": describe_versions(),
    }


def write_report(
    folder: str | os.PathLike[str], report: Mapping[str, Any], result: "EvaluationResult", vocabulary: Vocabulary
) -> Path:
    """Writes JSON, Markdown, vocabulary and per-image counts; pictures come from `plots`.

    Returns:
        The path of `report.json`, which is written last.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    result.counts.save(target / PER_IMAGE_FILE)
    write_json(target / VOCABULARY_FILE, vocabulary.to_dict())
    write_text(target / MARKDOWN_FILE, format_markdown(report))
    write_json(target / REPORT_FILE, report)
    return target / REPORT_FILE


def load_report(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads a report by its folder or file.

    Raises:
        FileNotFoundError: There is none.
        ValueError: The file is no report.
    """
    file = Path(path) / REPORT_FILE if Path(path).is_dir() else Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"Expected a report, but there is no {file}. Give the folder of an evaluation.")
    try:
        report: dict[str, Any] = read_json(file)
        _ = report["scores"], report["classes"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"Expected a report of an evaluation in {file}, but it is none: {error!r}.") from error
    return report


def format_markdown(report: Mapping[str, Any]) -> str:
    """The report as Markdown: scores, settings in a line each, the table of classes, what could not be scored."""
    pictures = [picture(name.removesuffix(".png").replace("_", " "), name) for name in report["pictures"]]
    classes = [
        (entry["id"], entry["label"], percent(entry["iou"]), percent(entry["accuracy"])) for entry in report["classes"]
    ]
    sections = [
        f"# {escape(report['title'])}\n",
        _format_scores(report),
        _format_run(report),
        "\n".join([*pictures, ""]),
        format_table(("id", "class", "IoU", "accuracy"), classes),
        _format_problems(report["images"]["problems"]),
    ]
    return "\n".join(section for section in sections if section)


def _compare_data(dataset: Mapping[str, Any], scored: int, benchmark: Benchmark) -> dict[str, tuple[Any, Any]]:
    """What keeps a run from having been on the images that figures are published for."""
    title = f"{benchmark.title}, val"
    if dataset["title"] != title:
        return {"dataset": (dataset["title"], title)}
    return {} if scored == dataset["images"] else {"images": (scored, f"all {dataset['images']}")}


def _compare_words(vocabulary: Vocabulary, benchmark: Benchmark, published: Published) -> dict[str, tuple[Any, Any]]:
    """What tells the words from the authors'; those of a file are known by their numbers alone."""
    names, without = vocabulary.query_names, sum(not entry.auxiliary_texts for entry in vocabulary.classes)
    differences: dict[str, tuple[Any, Any]] = {}
    if names == benchmark.vocabulary("none").query_names:
        differences["words"] = ("of this package", "the authors'")
    elif published.queries not in (None, len(names)):
        differences["words"] = (f"for {len(names)} queries", f"the authors' for {published.queries}")
    if published.uses_texts and without:
        differences["texts"] = (f"about all but {without} classes", "about each class")
    return differences


def _describe_classes(
    scores: SegmentationScores, result: "EvaluationResult", vocabulary: Vocabulary
) -> list[dict[str, Any]]:
    return [
        {
            "id": class_id,
            "label": label,
            "iou": _json_number(scores["per_category_iou"][class_id]),
            "accuracy": _json_number(scores["per_category_accuracy"][class_id]),
            "labelled_pixels": int(result.confusion[class_id].sum()),
            "predicted_pixels": int(result.confusion[:, class_id].sum()),
        }
        for class_id, label in enumerate(vocabulary.labels)
    ]


def describe_hardware(num_processes: int) -> dict[str, Any]:
    """What the run ran on, as JSON values."""
    import torch  # not above: two reports are compared without it

    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "processes": num_processes,
        "machine": platform.machine(),
        "system": platform.system(),
        "cpu": _cpu_name(),
        "cpu_cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "gpus_of_main_machine": gpus,
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def describe_versions() -> dict[str, str]:
    """Versions of Python, this package and what results depend on."""
    versions = {"python": platform.python_version(), "itaclip_hf": __version__}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:  # another way of installing than by distributions
            versions[package] = "unknown"
    return versions


def _format_scores(report: Mapping[str, Any]) -> str:
    scores, published = report["scores"], report["published_mean_iou"]
    header = ("mIoU", "mean accuracy", "overall accuracy", "frequency-weighted IoU", "images")
    mean_iou, *others = (percent(scores[name]) for name in SCORES)
    table = format_table(header, [(bold(mean_iou), *others, report["images"]["scored"])])
    differences = report.get("published_differences")
    if differences:
        lines = [f"  - {escape(difference)}" for difference in differences]
        return "\n".join([table, "- The published figure is of another run; this one has", *lines])
    if published is None:
        return table
    return f"{table}\nPublished with CLIP ViT-B/16 and the authors' texts: {percent(published)} mIoU.\n"


def _format_run(report: Mapping[str, Any]) -> str:
    vocabulary, timing, hardware = report["vocabulary"], report["timing"], report["hardware"]
    predictor = report["settings"].get("predictor", {})
    refinement = predictor.get("refinement")
    if isinstance(refinement, Mapping):  # of a published system: what ran, and not what it has by itself
        refinement = ", ".join(refinement).replace("_", " ")
    facts = {
        "dataset": report["settings"].get("dataset", {}).get("title"),
        "method": ", ".join(str(predictor[key]) for key in ("method", "model", "dtype", "device") if key in predictor),
        "refinement": refinement,
        "vocabulary": f"{vocabulary['classes']} classes, {vocabulary['queries']} queries, "
        f"{len(vocabulary['background'])} background words, {vocabulary['auxiliary_texts']} auxiliary texts, "
        f"SHA-256 {vocabulary['sha256'][:16]}…",
        "speed": "all images are of earlier runs"
        if report["images"]["of_earlier_runs"] == report["images"]["scored"]
        else f"{timing['images_per_second']:.2f} images/s, {timing['seconds']:.0f} s, "
        f"peak memory {timing['peak_memory_bytes'] / 2**30:.2f} GiB",
        "hardware": f"{hardware['processes']} process(es), "
        f"{', '.join(hardware['gpus_of_main_machine']) or hardware['cpu']}",
        "versions": ", ".join(f"{name} {version}" for name, version in report["versions"].items()),
        "command": code(" ".join(report["command"])) if report["command"] else None,
    }
    return format_facts(facts)


def _format_problems(problems: Sequence[Mapping[str, Any]]) -> str:
    if not problems:
        return ""
    rows = [f"- {problem['kind']}: {code(problem['path'])}: {escape(problem['message'])}" for problem in problems]
    return "\n".join([f"## {len(problems)} images could not be scored\n", *rows, ""])


def _json_number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
