"""`itaclip tune`: the method's free numbers and background words, chosen on a few labelled images of one's own."""

import sys
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from ..dtypes import NumberFormat
from .dataset_options import (
    BackgroundFirstLineOption,
    DataOption,
    DatasetChoice,
    DatasetConfigOption,
    DatasetOption,
    DefinitionsOption,
    IgnoreIndexOption,
    ImageColumnOption,
    ImagesOption,
    LabelColumnOption,
    LabelsOption,
    ReduceLabelsOption,
    SplitOption,
    TextsOption,
    VocabularyOption,
)
from .method_options import MethodOption, resolve_method
from .model_options import DEFAULT_MODEL, DtypeOption, ModelOption, PresetOption, quiet_libraries
from .process_options import CpuOption, join_processes

__all__ = ["tune"]


class Tunable(str, Enum):
    """What is tuned unless it is kept."""

    photometric_weight = "photometric-weight"
    auxiliary_weight = "auxiliary-weight"
    similarity_scale = "similarity-scale"
    score_threshold = "score-threshold"
    area_threshold = "area-threshold"
    background = "background"


def tune(
    benchmark: Annotated[
        str | None,
        typer.Argument(
            help="voc21, voc20, context60, context59, coco_stuff, coco_object, cityscapes or ade20k. "
            "Without it, name a dataset by --images and --labels or by --dataset."
        ),
    ] = None,
    data: DataOption = None,
    split: SplitOption = "val",
    images: ImagesOption = None,
    labels: LabelsOption = None,
    dataset: DatasetOption = None,
    dataset_config: DatasetConfigOption = None,
    image_column: ImageColumnOption = "image",
    label_column: LabelColumnOption = "label",
    ignore_index: IgnoreIndexOption = None,
    reduce_labels: ReduceLabelsOption = False,
    vocabulary: VocabularyOption = None,
    background_first_line: BackgroundFirstLineOption = False,
    definitions: DefinitionsOption = None,
    texts: TextsOption = None,
    model: ModelOption = DEFAULT_MODEL,
    method: MethodOption = None,
    preset: PresetOption = None,
    shortest_edge: Annotated[int | None, typer.Option(help="Image size in pixels; default: the benchmark's.")] = None,
    keep: Annotated[
        list[Tunable] | None, typer.Option(help="Leave this setting as it is; may be given many times.")
    ] = None,
    background_candidates: Annotated[
        str | None, typer.Option(help='Words that may join the background: "wall, floor, tree".')
    ] = None,
    held_out: Annotated[float, typer.Option(help="Share of the images that only the final scores see.")] = 0.5,
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many images, drawn at random.")] = None,
    pixels: Annotated[int, typer.Option(help="Pixels of each image that the search looks at.")] = 20_000,
    min_gain: Annotated[float, typer.Option(help="mIoU in percent that a change must gain to be made.")] = 0.1,
    sureness: Annotated[
        float, typer.Option(help="Share of resamplings of the images in which a change must gain; 0 asks for none.")
    ] = 0.9,
    seed: Annotated[int, typer.Option(help="Seed of the split and of the pixels.")] = 0,
    dtype: DtypeOption = NumberFormat.auto,
    cpu: CpuOption = False,
    workers: Annotated[int, typer.Option(help="Processes that decode and resize for the final scores.")] = 2,
    plots: Annotated[bool, typer.Option("--plots/--no-plots", help="Whether to draw pictures.")] = False,
    save_model: Annotated[
        bool, typer.Option("--save-model", help="Also save model and processor, ready for every command.")
    ] = False,
    restart: Annotated[bool, typer.Option("--restart", help="Throw earlier final scores in --out away.")] = False,
    out: Annotated[Path, typer.Option(help="Folder for the report.")] = Path("itaclip_tuning"),
) -> None:
    """Tune λ, α, scale, thresholds and background words on a few labelled images.

    The images are split at random: every image of one part is encoded once for the whole search; the other part then
    tells what the chosen settings are worth against the default, with a confidence interval. Writes report.md,
    report.json, settings.json, vocabulary.json and two evaluation reports, and prints the options to use.
    """
    from ..evaluation.data.benchmarks import choose_settings, get_benchmark
    from ..evaluation.data.dataset_split import split_dataset
    from ..evaluation.data.segmentation_datasets import StreamedDataset

    chosen = None if benchmark is None else get_benchmark(benchmark)
    method = None if method is None else resolve_method(method)
    settings = None if method is None else choose_settings(method)
    if chosen is not None:
        settings = chosen.settings if method is None else chosen.for_method(method).settings
    choice = DatasetChoice(
        chosen, data, split, images, labels, dataset, dataset_config, image_column, label_column, False,
        ignore_index, reduce_labels, vocabulary, background_first_line, definitions, texts,
    )  # fmt: skip
    words = choice.read_vocabulary()
    samples = choice.open_dataset(len(words.labels))
    assert not isinstance(samples, StreamedDataset)
    parts = split_dataset(samples, held_out, limit, seed)
    # Not before: these take seconds, and a wrong option is told at once.
    from ..evaluation.reporting.full_evaluation import load_model, load_processor
    from ..evaluation.running.runner import RunOptions
    from ..evaluation.tuning.report import tune_and_report
    from ..evaluation.tuning.search import TuningOptions
    from ..method_loading import set_processor_fields

    quiet_libraries()
    options = TuningOptions(
        keep=frozenset(entry.name for entry in keep or ()),
        background_candidates=_split_words(background_candidates),
        pixels=pixels,
        min_gain=min_gain / 100,
        sureness=sureness,
        seed=seed,
        show_progress=True,
    )
    accelerator = join_processes(cpu, None, "tune")
    stride = None if preset is None else preset.window_stride
    loaded = load_model(model, settings, stride, dtype.value, accelerator.device, method, benchmark)
    processor = load_processor(model, settings, method, benchmark)
    if shortest_edge is not None:
        set_processor_fields(processor, {"shortest_edge": shortest_edge})
    run = RunOptions(num_workers=workers, restart=restart)
    report = tune_and_report(
        loaded, processor, words, parts, out, options, run, accelerator, model, plots, save_model,
        ["itaclip", *sys.argv[1:]],
    )  # fmt: skip
    typer.echo(report.markdown)
    typer.echo(f"Report: {out}")


def _split_words(text: str | None) -> tuple[str, ...]:
    return tuple(word.strip() for word in (text or "").replace(";", ",").split(",") if word.strip())
