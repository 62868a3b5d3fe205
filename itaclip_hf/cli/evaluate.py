"""`itaclip evaluate`: the mIoU table of a benchmark, a folder or a `datasets` dataset, on one process or many."""

import sys
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .model_options import DEFAULT_MODEL, ModelOption, PresetOption, quiet_libraries

if TYPE_CHECKING:
    from ..evaluation.benchmarks import Benchmark, MethodSettings
    from ..evaluation.label_mapping import LabelMapping
    from ..evaluation.segmentation_datasets import SegmentationDataset, StreamedDataset
    from ..processing import Vocabulary

__all__ = ["evaluate"]


class Texts(str, Enum):
    """Which of a benchmark's texts enrich its class names."""

    definitions = "definitions"
    synonyms = "synonyms"
    none = "none"


class EvaluationDtype(str, Enum):
    """Number format of the model."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


def evaluate(
    benchmark: Annotated[
        str | None,
        typer.Argument(
            help="voc21, voc20, context60, context59, coco_stuff, coco_object, cityscapes or ade20k. "
            "Without it, name a dataset by --images and --labels or by --dataset."
        ),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of the benchmark.")] = None,
    split: Annotated[str, typer.Option(help="Split of the benchmark or dataset.")] = "val",
    images: Annotated[Path | None, typer.Option(help="Folder of images, subfolders included.")] = None,
    labels: Annotated[Path | None, typer.Option(help="Folder of PNG label maps of the same names.")] = None,
    dataset: Annotated[
        str | None, typer.Option(help="Dataset of the Hub, or a folder written by `Dataset.save_to_disk`.")
    ] = None,
    dataset_config: Annotated[str | None, typer.Option(help="Configuration of that dataset.")] = None,
    image_column: Annotated[str, typer.Option(help="Its column of images.")] = "image",
    label_column: Annotated[str, typer.Option(help="Its column of label maps.")] = "label",
    streaming: Annotated[bool, typer.Option("--streaming", help="Read the dataset as a stream.")] = False,
    ignore_index: Annotated[
        int | None,
        typer.Option(help="Label id that is not scored, where --data is not given; default: 255 if it is no class."),
    ] = None,
    reduce_labels: Annotated[
        bool, typer.Option("--reduce-labels", help="Label id 0 is not scored either, and classes begin at 1.")
    ] = False,
    vocabulary: Annotated[
        Path | None, typer.Option(help="Class names as JSON or in the published text formats.")
    ] = None,
    background_first_line: Annotated[
        bool, typer.Option("--background-first-line", help="The first line of the vocabulary lists background words.")
    ] = False,
    definitions: Annotated[
        Path | None, typer.Option(help="Texts about the classes: 'name >=text' a line, instead of the benchmark's.")
    ] = None,
    texts: Annotated[
        Texts | None, typer.Option(help="Which of the benchmark's texts to use; default: its own.")
    ] = None,
    model: ModelOption = DEFAULT_MODEL,
    preset: PresetOption = None,
    dtype: Annotated[
        EvaluationDtype, typer.Option(help="Number format; auto: bfloat16 on GPUs, else float32.")
    ] = EvaluationDtype.auto,
    cpu: Annotated[bool, typer.Option("--cpu", help="Use the CPU although there is a GPU.")] = False,
    processes: Annotated[
        int | None, typer.Option(help="Stop unless so many processes work together (started by torchrun).")
    ] = None,
    shortest_edge: Annotated[int | None, typer.Option(help="Image size in pixels; default: the benchmark's.")] = None,
    similarity_scale: Annotated[float | None, typer.Option(help="Factor on the cosines.")] = None,
    auxiliary_weight: Annotated[float | None, typer.Option(help="Weight α of the texts about the classes.")] = None,
    photometric_weight: Annotated[float | None, typer.Option(help="Weight λ of the unflipped views.")] = None,
    score_threshold: Annotated[float | None, typer.Option(help="Pixels of a lower score become class 0.")] = None,
    area_threshold: Annotated[float | None, typer.Option(help="Smaller shares of the foreground are dropped.")] = None,
    limit: Annotated[int | None, typer.Option(help="Only the first so many images.")] = None,
    batch_size: Annotated[int, typer.Option(help="Images that are predicted together.")] = 1,
    workers: Annotated[int, typer.Option(help="Processes that decode and resize, per evaluating process.")] = 2,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first image that cannot be scored.")] = False,
    restart: Annotated[bool, typer.Option("--restart", help="Throw earlier progress away.")] = False,
    plots: Annotated[bool, typer.Option("--plots/--no-plots", help="Whether to draw pictures.")] = True,
    out: Annotated[Path | None, typer.Option(help="Folder for the report; default: itaclip_evaluation/NAME.")] = None,
) -> None:
    """Evaluate a model: mIoU over a benchmark, a folder or a dataset, with a report.

    Writes report.json, report.md, pictures and per-image counts. A run that was stopped goes on where it was.
    Images that cannot be scored are named and listed, the others are done, and the exit code is 1. With many
    processes: torchrun --nproc_per_node N -m itaclip_hf.cli evaluate … (on CPUs after ACCELERATE_USE_CPU=1).
    """
    from accelerate import Accelerator

    from ..evaluation.benchmarks import MethodSettings, get_benchmark
    from ..evaluation.full_evaluation import evaluate_and_report, load_model, load_processor
    from ..evaluation.predictor import ITACLIPPredictor
    from ..evaluation.report import format_markdown
    from ..evaluation.runner import RunSettings, check_process_count

    quiet_libraries()
    chosen = None if benchmark is None else get_benchmark(benchmark)
    words = _read_words(chosen, vocabulary, background_first_line, definitions, texts)
    samples = _open_dataset(
        chosen, words, data, split, images, labels, dataset, dataset_config, image_column, label_column, streaming,
        _generic_mapping(len(words.labels), ignore_index, reduce_labels),
    )  # fmt: skip
    settings = _override(
        MethodSettings("definitions", 0.2) if chosen is None else chosen.settings,
        shortest_edge=shortest_edge,
        similarity_scale=similarity_scale,
        auxiliary_weight=auxiliary_weight,
        photometric_weight=photometric_weight,
        score_threshold=score_threshold,
        area_threshold=area_threshold,
    )
    run = RunSettings(batch_size=batch_size, num_workers=workers, limit=limit, strict=strict, restart=restart)
    accelerator = Accelerator(cpu=cpu)
    check_process_count(accelerator)
    if processes is not None and accelerator.num_processes != processes:
        raise ValueError(
            f"Expected {processes} processes, but got {accelerator.num_processes}. Start with "
            f"`torchrun --standalone --nproc_per_node {processes} -m itaclip_hf.cli evaluate …`, on CPUs with "
            "ACCELERATE_USE_CPU=1 before it."
        )
    stride = None if preset is None else preset.window_stride
    loaded = load_model(model, settings, stride, dtype.value, accelerator.device)
    predictor = ITACLIPPredictor(loaded, load_processor(model, settings), words, name=model)
    name = benchmark or samples.title
    title = f"{chosen.title if chosen else name}, {Path(model).name}"
    folder = out or Path("itaclip_evaluation") / Path(name).name
    result, report = evaluate_and_report(
        samples, predictor, folder, title, chosen, run, accelerator, plots, ["itaclip", *sys.argv[1:]]
    )
    if accelerator.is_main_process:
        typer.echo(format_markdown(report))
        typer.echo(f"Report: {folder}")
        if result.problems:
            message = f"{len(result.problems)} images could not be scored; they are listed above."
            typer.secho(message, fg="red", err=True)
    if accelerator.num_processes > 1:
        accelerator.end_training()
    if result.problems:
        raise typer.Exit(1)


def _read_words(
    benchmark: "Benchmark | None",
    vocabulary: Path | None,
    background_first_line: bool,
    definitions: Path | None,
    texts: Texts | None,
) -> "Vocabulary":
    """The benchmark's words, or those of a file, with the texts that were asked for."""
    from ..processing import Vocabulary, load_auxiliary_texts

    if vocabulary is None and benchmark is None:
        raise ValueError("Expected a benchmark or `--vocabulary`, but got neither. Name the classes in a file.")
    if vocabulary is not None and texts is not None:
        raise ValueError(
            "Expected `--vocabulary` or `--texts`, but got both. Texts of a file go with `--definitions`."
        )
    if vocabulary is not None:
        has_background = background_first_line or (benchmark is not None and benchmark.has_background)
        words = Vocabulary.from_file(vocabulary, background_first_line=has_background)
    else:
        assert benchmark is not None
        words = benchmark.vocabulary(texts.value if texts is not None else None)
    return words if definitions is None else words.with_auxiliary_texts(load_auxiliary_texts(definitions))


def _generic_mapping(num_labels: int, ignore_index: int | None, reduce_labels: bool) -> "LabelMapping":
    from ..evaluation.label_mapping import LabelMapping

    first = 1 if reduce_labels else 0
    ignored = {0} if reduce_labels else set()
    if ignore_index is not None:
        ignored.add(ignore_index)
    elif not first <= 255 < first + num_labels:
        ignored.add(255)
    return LabelMapping.shifted(num_labels, first=first, ignored=ignored)


def _open_dataset(
    benchmark: "Benchmark | None",
    words: "Vocabulary",
    data: Path | None,
    split: str,
    images: Path | None,
    labels: Path | None,
    dataset: str | None,
    dataset_config: str | None,
    image_column: str,
    label_column: str,
    streaming: bool,
    mapping: "LabelMapping",
) -> "SegmentationDataset | StreamedDataset":
    """The one dataset that the options name."""
    from ..evaluation.segmentation_datasets import load_benchmark_dataset, load_folder_dataset

    named = {
        "BENCHMARK with --data": benchmark is not None and data is not None,
        "--images with --labels": images is not None and labels is not None,
        "--dataset": dataset is not None,
    }
    found = [way for way, is_named in named.items() if is_named]
    if len(found) != 1:
        raise ValueError(f"Expected one of {', '.join(named)}, but got {' and '.join(found) or 'none of them'}.")
    if benchmark is not None and data is not None:
        return load_benchmark_dataset(benchmark, data, split)
    if images is not None and labels is not None:
        return load_folder_dataset(images, labels, mapping)
    return _load_table(dataset or "", dataset_config, split, image_column, label_column, streaming, mapping)


def _load_table(
    name: str,
    config: str | None,
    split: str,
    image_column: str,
    label_column: str,
    streaming: bool,
    mapping: "LabelMapping",
) -> "SegmentationDataset | StreamedDataset":
    import datasets

    from ..evaluation.segmentation_datasets import StreamedDataset, TableDataset

    if Path(name).is_dir() and any((Path(name) / file).is_file() for file in ("state.json", "dataset_dict.json")):
        table: Any = datasets.load_from_disk(name)
        table = table[split] if isinstance(table, datasets.DatasetDict) else table
        table = table.to_iterable_dataset() if streaming else table
    else:
        table = datasets.load_dataset(name, config, split=split, streaming=streaming)
    kind = StreamedDataset if streaming else TableDataset
    return kind(table, mapping, image_column, label_column, title=Path(name).name)


def _override(settings: "MethodSettings", **changes: float | int | None) -> "MethodSettings":
    return replace(settings, **{name: value for name, value in changes.items() if value is not None})  # type: ignore[arg-type]
