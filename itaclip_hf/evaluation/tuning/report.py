"""Tuning from start to report: splits, searches, scores default and chosen settings on the held-out part, writes.

`report.md` and `report.json` tell what was found and what it is worth; `settings.json` and `vocabulary.json` hold the
chosen settings; `default/` and `tuned/` are full evaluation reports on the held-out part.
"""

import datetime
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from ...files import own_results, write_json, write_text
from ...markdown import Markup, bold, escape, format_table, percent, signed_percent
from ...modeling import ITACLIPForSemanticSegmentation
from ...processing import ITACLIPProcessor, Vocabulary
from ..data.dataset_split import SubsetDataset
from ..metrics.comparison import Comparison
from ..reporting.full_evaluation import evaluate_and_report
from ..reporting.report_comparison import compare_reports
from ..running.predictor import ITACLIPPredictor
from ..running.runner import RunOptions, make_accelerator
from .samples import TunableSettings
from .search import TUNED, TuningOptions, TuningResult, apply_settings, describe_settings, tune_settings

__all__ = ["TuningReport", "tune_and_report"]

SETTINGS_FILE, VOCABULARY_FILE, MODEL_FOLDER = "settings.json", "vocabulary.json", "model"
RESULT_FILES = (SETTINGS_FILE, VOCABULARY_FILE, MODEL_FOLDER, "report.md", "report.json", "default", "tuned")


@dataclass(frozen=True)
class TuningReport:
    """What came of it.

    Args:
        result: The search, on the part to tune on.
        comparison: Default and chosen settings on the held-out part.
        content: Content of `report.json`.
        markdown: Content of `report.md`.
    """

    result: TuningResult
    comparison: Comparison
    content: Mapping[str, Any]
    markdown: str


def tune_and_report(
    model: ITACLIPForSemanticSegmentation,
    processor: ITACLIPProcessor,
    vocabulary: Vocabulary,
    parts: tuple[SubsetDataset, SubsetDataset],
    folder: str | os.PathLike[str],
    options: TuningOptions | None = None,
    run: RunOptions | None = None,
    accelerator: Accelerator | None = None,
    name: str | None = None,
    plots: bool = False,
    save_model: bool = False,
    command: Sequence[str] = (),
) -> TuningReport:
    """Tune on one part of a dataset and report what that is worth on the other.

    Args:
        model: The model; it has the chosen settings and vocabulary afterwards.
        processor: The processor; it has the chosen settings afterwards.
        vocabulary: The classes, with the background words to begin with.
        parts: Images to tune on and held-out ones, of `split_dataset`.
        folder: Everything is written there.
        options: How to search.
        run: How to go about the evaluations.
        accelerator: The process; made here if not given.
        name: What reports call the model.
        plots: Whether to draw pictures of the held-out part.
        save_model: Whether to save model and processor, ready for `from_pretrained`.
        command: How to run it again, for the report.

    Raises:
        ValueError: If there are many processes, nothing to tune, or too few classes.
        SampleError: If an image to tune on cannot be used.
        OSError: If another file is where a result would be, or another run uses the folder.
    """
    accelerator = accelerator or make_accelerator()
    if accelerator.num_processes > 1:
        raise ValueError(
            f"Expected one process for tuning, but got {accelerator.num_processes}. Start it without torchrun."
        )
    target = Path(folder)
    with own_results(target, RESULT_FILES):
        tuning_part, held_out_part = parts
        result = tune_settings(model, processor, vocabulary, tuning_part, options)
        # The chosen settings come last, so that model and processor keep them.
        for label, settings in (("default", result.default), ("tuned", result.chosen)):
            words = apply_settings(model, processor, vocabulary, settings)
            predictor = ITACLIPPredictor(model, processor, words, name=name)
            title = f"{held_out_part.title}, {label} settings"
            evaluate_and_report(held_out_part, predictor, target / label, title, None, run, accelerator, plots)
        comparison = compare_reports(target / "default", target / "tuned")
        write_json(target / SETTINGS_FILE, describe_settings(result.chosen))
        write_json(target / VOCABULARY_FILE, words.to_dict())
        if save_model:
            model.save_pretrained(target / MODEL_FOLDER)
            processor.save_pretrained(target / MODEL_FOLDER)
        content = _build_content(result, comparison, parts, name, command)
        options_to_use = _format_options(result.chosen, processor.image_processor.image_engineering)
        markdown = _format_markdown(result, comparison, parts, _format_use(options_to_use, target, save_model))
        write_text(target / "report.md", markdown)
        write_json(target / "report.json", content)
        return TuningReport(result, comparison, content, markdown)


def _format_options(settings: TunableSettings, has_views: bool) -> list[str]:
    """The settings as options of `itaclip evaluate`; the background words come with the vocabulary."""
    # Without image engineering the command refuses λ.
    names = [name for name, about in TUNED.items() if has_views or about["grid"].needs != "views"]
    return [part for name in names for part in (f"--{name.replace('_', '-')}", f"{getattr(settings, name):g}")]


def _build_content(
    result: TuningResult,
    comparison: Comparison,
    parts: tuple[SubsetDataset, SubsetDataset],
    name: str | None,
    command: Sequence[str],
) -> dict[str, Any]:
    return {
        "model": name,
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "command": list(command),
        "default": describe_settings(result.default),
        "chosen": describe_settings(result.chosen),
        "steps": [
            {"changed": step.changed, "mean_iou": step.mean_iou, "settings": describe_settings(step.settings)}
            for step in result.steps
        ],
        "held_out": comparison.to_dict(),
        "parts": {"tuning": parts[0].describe(), "held_out": parts[1].describe()},
        "search": {
            "settings_scored": result.evaluations,
            "sampled_pixels": result.pixels,
            "seconds_encoding": round(result.seconds_encoding, 3),
            "seconds_searching": round(result.seconds_searching, 3),
        },
        "notes": list(result.notes),
    }


def _format_markdown(
    result: TuningResult, comparison: Comparison, parts: tuple[SubsetDataset, SubsetDataset], use: str
) -> str:
    sections = [
        f"# Tuning on {escape(parts[0].source.title)}\n",
        _format_verdict(comparison),
        _format_settings(result),
        _format_scores(result, comparison, parts),
        _format_steps(result),
        "".join(f"- {escape(note)}\n" for note in result.notes),
        use,
    ]
    return "\n".join(section for section in sections if section)


def _format_verdict(comparison: Comparison) -> str:
    low, high = comparison.interval
    interval = f"{100 * comparison.level:g} % confidence interval {signed_percent(low)} to {signed_percent(high)}"
    difference = signed_percent(comparison.difference)
    gain = f"On held-out images the chosen settings change the mIoU by {difference} ({interval})."
    if low > 0:
        return f"{gain} They are better.\n"
    if high < 0:
        return f"{gain} **They are worse: keep the default.**\n"
    return f"{gain} **This may be chance: the interval holds 0.** More labelled images would tell.\n"


def _format_settings(result: TuningResult) -> str:
    default, chosen = result.default, result.chosen
    rows: list[tuple[object, ...]] = [
        (" ".join(filter(None, (name, about["symbol"]))), f"{getattr(default, name):g}", f"{getattr(chosen, name):g}")
        for name, about in TUNED.items()
    ]
    before, after = default.background, chosen.background
    if before:
        left_out = [word for word in before if word not in after]
        added = [word for word in after if word not in before]
        rows.append(("background words", len(before), len(after)))
        rows += [("… left out", "", ", ".join(left_out))] if left_out else []
        rows += [("… added", "", ", ".join(added))] if added else []
    return format_table(("setting", "default", "chosen"), rows)


def _format_scores(result: TuningResult, comparison: Comparison, parts: tuple[SubsetDataset, SubsetDataset]) -> str:
    first, last = result.steps[0].mean_iou, result.steps[-1].mean_iou
    default, chosen = comparison.mean_iou
    rows = [
        (
            "tuned on (sampled pixels, labelled classes, no closing)",
            len(parts[0]),
            *map(percent, (first, last)),
            signed_percent(last - first),
        ),
        (
            Markup("**held out** (whole pipeline)"),
            comparison.num_images,
            *map(percent, (default, chosen)),
            bold(signed_percent(chosen - default)),
        ),
    ]
    return (
        f"{format_table(('mIoU', 'images', 'default', 'chosen', 'difference'), rows)}\n"
        f"{result.evaluations} settings were scored in {result.seconds_searching:.1f} s, after encoding the images "
        f"once in {result.seconds_encoding:.1f} s.\n"
    )


def _format_steps(result: TuningResult) -> str:
    rows = []
    for before, step in zip(result.steps, result.steps[1:], strict=False):
        changes = [
            f"{name} {getattr(before.settings, name):g} → {getattr(step.settings, name):g}"
            for name in TUNED
            if getattr(before.settings, name) != getattr(step.settings, name)
        ]
        words = set(before.settings.background) ^ set(step.settings.background)
        changes += [f"{'with' if word in step.settings.background else 'without'} “{word}”" for word in sorted(words)]
        rows.append((", ".join(changes), percent(step.mean_iou)))
    if not rows:
        return "No move of the search gained enough: the default stays.\n"
    return format_table(("move of the search", "mIoU on the part to tune on"), rows)


def _format_use(options: Sequence[str], folder: Path, is_model_saved: bool) -> str:
    vocabulary = shlex.quote(str(folder / VOCABULARY_FILE))
    lines = [
        "Options for `itaclip evaluate` (with the same model, method, preset and image size):",
        "",
        f"    --vocabulary {vocabulary} {' '.join(options)}",
    ]
    if is_model_saved:
        model = shlex.quote(str(folder / MODEL_FOLDER))
        lines += [
            "",
            "All in one for `from_pretrained`, pipelines and images:",
            "",
            f"    itaclip segment IMAGE --model {model}",
        ]
    return "\n".join([*lines, ""])
