"""`itaclip evaluate`: the mIoU table of a benchmark, a folder or a `datasets` dataset, on one process or many."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from .options.data import BENCHMARKS_HELP, StreamedDataOptions
from .options.model import SystemOptions
from .options.processes import ProcessOptions
from .options.run import RunOptions
from .options.settings import SettingOptions
from .options.vocabulary import VocabularyOptions
from .terminal import say, warn

__all__ = ["evaluate"]


def evaluate(
    data: StreamedDataOptions,
    words: VocabularyOptions,
    model: SystemOptions,
    settings: SettingOptions,
    processes: ProcessOptions,
    run: RunOptions,
    benchmark: Annotated[str | None, typer.Argument(help=BENCHMARKS_HELP)] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the report; default: itaclip_evaluation/NAME, or NAME_METHOD.")
    ] = None,
) -> None:
    """Evaluate a model: mIoU over a benchmark, a folder or a dataset, with a report.

    Writes report.json, report.md, pictures and per-image counts. A run that was stopped goes on where it was.
    Images that cannot be scored are named and listed, the others are done, and the exit code is 1. With many
    processes: torchrun --nproc_per_node N -m itaclip_hf.cli evaluate … (on CPUs after ACCELERATE_USE_CPU=1).
    GroupViT checkpoints, and methods that are more than settings of our model, run with the rules of their papers.
    """
    from ..evaluation.data.benchmarks import get_benchmark
    from ..files import refuse_inputs

    chosen = None if benchmark is None else get_benchmark(benchmark)
    method = settings.resolve_method()
    vocabulary = words.read(chosen, method)
    samples = data.open_dataset(chosen, len(vocabulary.labels))
    settings = settings.with_regions(data.regions)
    name = benchmark or samples.title
    folder = out or Path("itaclip_evaluation") / "_".join(filter(None, (Path(name).name, method)))
    refuse_inputs(folder, words.files)
    # Not before: these take seconds, and a wrong option is told at once.
    from ..evaluation.reporting.full_evaluation import evaluate_and_report
    from ..evaluation.reporting.report import format_markdown
    from ..evaluation.running.predictor import ITACLIPPredictor, Predictor, describe_backbone
    from ..methods import Settings, find_published

    running = run.for_runner()
    accelerator = processes.join("evaluate")
    predictor: Predictor
    baseline = model.find_baseline(method)
    if baseline is not None:
        if data.regions is not None:
            raise ValueError(f"Expected no --regions with {baseline.__name__}, which knows none. Leave them out.")
        words.refuse_texts(f"{baseline.title} knows no texts about the classes")
        published = None  # that of another system
        predictor = model.load_baseline(baseline, settings, accelerator.device, vocabulary, benchmark)
    else:
        loaded = model.load(settings, accelerator.device, benchmark=benchmark)
        used = Settings.of(*loaded)
        settings.warn_of_missing_regions(used, data.regions)
        if not used.uses_texts:
            words.refuse_texts("texts about the classes have no weight here")
        published = (
            None if benchmark is None else find_published(used, benchmark, describe_backbone(loaded.model.config))
        )
        predictor = ITACLIPPredictor(*loaded, vocabulary, name=model.model)
    description = predictor.describe()
    title = f"{chosen.title if chosen else name}, {description['method']}, {Path(model.model).name}"
    if accelerator.is_main_process:
        warn(f"Running {model.model} in {description['dtype']} on {accelerator.device} ...", None)
    result, report = evaluate_and_report(
        samples,
        predictor,
        folder,
        title,
        chosen,
        running,
        accelerator,
        run.plots,
        ["itaclip", *sys.argv[1:]],
        published,
    )
    if accelerator.is_main_process:
        say(format_markdown(report))
        say(f"Report: {folder}")
        if result.problems:
            warn(f"{len(result.problems)} images could not be scored; they are listed above.")
    if accelerator.num_processes > 1:
        accelerator.end_training()
    if result.problems:
        raise typer.Exit(1)
