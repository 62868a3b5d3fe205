"""`itaclip evaluate`: the mIoU table of a benchmark, a folder or a `datasets` dataset, on one process or many."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    StreamingOption,
    Texts,
    TextsOption,
    VocabularyOption,
)
from .method_options import MethodOption, resolve_method
from .model_options import DEFAULT_MODEL, DtypeOption, ModelOption, PresetOption, quiet_libraries
from .process_options import CpuOption, ProcessesOption, join_processes

if TYPE_CHECKING:
    from ..modeling import ITACLIPForSemanticSegmentation
    from ..processing import ITACLIPProcessor

__all__ = ["evaluate"]


def evaluate(
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
    streaming: StreamingOption = False,
    ignore_index: IgnoreIndexOption = None,
    reduce_labels: ReduceLabelsOption = False,
    vocabulary: VocabularyOption = None,
    background_first_line: BackgroundFirstLineOption = False,
    definitions: DefinitionsOption = None,
    texts: TextsOption = None,
    model: ModelOption = DEFAULT_MODEL,
    method: MethodOption = None,
    preset: PresetOption = None,
    dtype: DtypeOption = NumberFormat.auto,
    cpu: CpuOption = False,
    processes: ProcessesOption = None,
    shortest_edge: Annotated[int | None, typer.Option(help="Image size in pixels; default: the benchmark's.")] = None,
    similarity_scale: Annotated[float | None, typer.Option(help="Factor on the cosines.")] = None,
    auxiliary_weight: Annotated[float | None, typer.Option(help="Weight α of the texts about the classes.")] = None,
    photometric_weight: Annotated[float | None, typer.Option(help="Weight λ of the unflipped views.")] = None,
    score_threshold: Annotated[float | None, typer.Option(help="Pixels of a lower score become class 0.")] = None,
    area_threshold: Annotated[float | None, typer.Option(help="Smaller shares of the foreground are dropped.")] = None,
    pamr_steps: Annotated[int | None, typer.Option(help="Steps of the pixel refinement; 0 for none.")] = None,
    limit: Annotated[int | None, typer.Option(help="Only the first so many images.")] = None,
    batch_size: Annotated[int, typer.Option(help="Images that are predicted together.")] = 1,
    workers: Annotated[int, typer.Option(help="Processes that decode and resize, per evaluating process.")] = 2,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first image that cannot be scored.")] = False,
    restart: Annotated[bool, typer.Option("--restart", help="Throw earlier progress away.")] = False,
    plots: Annotated[bool, typer.Option("--plots/--no-plots", help="Whether to draw pictures.")] = True,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the report; default: itaclip_evaluation/NAME, or NAME_METHOD.")
    ] = None,
) -> None:
    """Evaluate a model: mIoU over a benchmark, a folder or a dataset, with a report.

    Writes report.json, report.md, pictures and per-image counts. A run that was stopped goes on where it was.
    Images that cannot be scored are named and listed, the others are done, and the exit code is 1. With many
    processes: torchrun --nproc_per_node N -m itaclip_hf.cli evaluate … (on CPUs after ACCELERATE_USE_CPU=1).
    GroupViT checkpoints are recognised and run with the rules of their paper.
    """
    from ..evaluation.data.benchmarks import choose_settings, get_benchmark

    chosen = None if benchmark is None else get_benchmark(benchmark)
    settings = None if chosen is None else chosen.settings  # without a benchmark, the checkpoint's own
    if method is not None:
        method = resolve_method(method)
        settings = choose_settings(method)
        is_refined = None if pamr_steps is None else pamr_steps > 0
        if chosen is not None:
            chosen = chosen.for_method(method, is_refined)
            settings = chosen.settings
    choice = DatasetChoice(
        chosen, data, split, images, labels, dataset, dataset_config, image_column, label_column, streaming,
        ignore_index, reduce_labels, vocabulary, background_first_line, definitions, texts,
    )  # fmt: skip
    words = choice.read_vocabulary()
    samples = choice.open_dataset(len(words.labels))
    # Not before: these take seconds, and a wrong option is told at once.
    from ..evaluation.reporting.full_evaluation import evaluate_and_report, load_model, load_processor
    from ..evaluation.reporting.report import format_markdown
    from ..evaluation.running.baselines import find_baseline
    from ..evaluation.running.predictor import ITACLIPPredictor, Predictor
    from ..evaluation.running.runner import RunOptions

    quiet_libraries()
    run = RunOptions(batch_size=batch_size, num_workers=workers, limit=limit, strict=strict, restart=restart)
    accelerator = join_processes(cpu, processes, "evaluate")
    predictor: Predictor
    baseline = find_baseline(model)
    if baseline is not None:
        _refuse_options(
            model,
            method=method,
            preset=preset,
            pamr_steps=pamr_steps,
            similarity_scale=similarity_scale,
            auxiliary_weight=auxiliary_weight,
            photometric_weight=photometric_weight,
            area_threshold=area_threshold,
            texts=texts,
            definitions=definitions,
        )
        fields = {"score_threshold": score_threshold, "shortest_edge": shortest_edge}
        given = {name: value for name, value in fields.items() if value is not None}
        predictor = baseline(model, words, benchmark, given, dtype.value, accelerator.device)
        chosen = None if chosen is None else replace(chosen, published_miou=None)  # that is another method's
    else:
        stride = None if preset is None else preset.window_stride
        loaded = load_model(model, settings, stride, dtype.value, accelerator.device, method, benchmark)
        processor = load_processor(model, settings, method, benchmark)
        _set_fields(
            loaded,
            processor,
            pamr_steps=pamr_steps,
            similarity_scale=similarity_scale,
            shortest_edge=shortest_edge,
            auxiliary_weight=auxiliary_weight,
            photometric_weight=photometric_weight,
            score_threshold=score_threshold,
            area_threshold=area_threshold,
        )
        _refuse_idle_options(processor, texts=texts, definitions=definitions, photometric_weight=photometric_weight)
        predictor = ITACLIPPredictor(loaded, processor, words, name=model)
    name = benchmark or samples.title
    description = predictor.describe()
    title = f"{chosen.title if chosen else name}, {description['method']}, {Path(model).name}"
    if accelerator.is_main_process:
        typer.echo(f"Running {model} in {description['dtype']} on {accelerator.device} ...", err=True)
    folder = out or Path("itaclip_evaluation") / "_".join(filter(None, (Path(name).name, method)))
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


def _set_fields(
    model: "ITACLIPForSemanticSegmentation", processor: "ITACLIPProcessor", **fields: float | int | None
) -> None:
    """Give model and processor what options say; `None` says nothing."""
    from ..method_loading import set_processor_fields

    given = {name: value for name, value in fields.items() if value is not None}
    for name in ("pamr_steps", "similarity_scale"):
        setattr(model.config, name, given.pop(name, getattr(model.config, name)))
    model.config.validate_method()
    set_processor_fields(processor, given)


def _refuse_idle_options(
    processor: "ITACLIPProcessor", texts: Texts | None, definitions: Path | None, photometric_weight: float | None
) -> None:
    """An option that the method gives no weight would be ignored in silence."""
    names_texts = texts in (Texts.definitions, Texts.synonyms) or definitions is not None
    if names_texts and processor.auxiliary_weight == 0:
        raise ValueError(
            "Expected no --texts or --definitions, as texts about the classes have no weight here, but got them. "
            "Leave them out, or give --auxiliary-weight more than 0."
        )
    if not processor.image_processor.image_engineering and photometric_weight is not None:
        raise ValueError(
            "Expected no --photometric-weight, as there are no augmented views here, but got one. Leave it out, or "
            "choose --method itaclip."
        )


def _refuse_options(model: str, **options: object) -> None:
    """Options about ITACLIP's own stages mean nothing to another method, and would be ignored in silence."""
    given = [f"--{name.replace('_', '-')}" for name, value in options.items() if value is not None]
    if given:
        raise ValueError(
            f"Expected no {', '.join(given)} with {model}, which is no CLIP checkpoint and has no such settings, but "
            "got them. Leave them out; --score-threshold sets its background threshold."
        )
