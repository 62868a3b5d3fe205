"""`itaclip tune`: the method's free numbers and background words, chosen on a few labelled images of one's own."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from .options.data import BENCHMARKS_HELP, DataOptions
from .options.model import ModelOptions
from .options.processes import CpuOption, ProcessOptions
from .options.search import SearchOptions
from .options.settings import SettingOptions
from .options.vocabulary import VocabularyOptions
from .terminal import say

__all__ = ["tune"]


def tune(
    data: DataOptions,
    words: VocabularyOptions,
    model: ModelOptions,
    settings: SettingOptions,
    search: SearchOptions,
    benchmark: Annotated[str | None, typer.Argument(help=BENCHMARKS_HELP)] = None,
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
    from ..evaluation.data.benchmarks import get_benchmark
    from ..evaluation.data.dataset_split import split_dataset
    from ..evaluation.data.segmentation_datasets import StreamedDataset
    from ..files import refuse_inputs

    refuse_inputs(out, words.files)
    chosen = None if benchmark is None else get_benchmark(benchmark)
    vocabulary = words.read(chosen, settings.resolve_method())
    samples = data.open_dataset(chosen, len(vocabulary.labels))
    assert not isinstance(samples, StreamedDataset)
    parts = split_dataset(samples, search.held_out, search.limit, search.seed)
    # Not before: these take seconds, and a wrong option is told at once.
    from ..evaluation.running.runner import RunOptions
    from ..evaluation.tuning.report import tune_and_report

    options, running = search.for_search(), RunOptions(num_workers=workers, restart=restart)
    accelerator = ProcessOptions(cpu).join("tune")
    loaded = model.load(settings, accelerator.device, benchmark=benchmark)
    report = tune_and_report(
        *loaded,
        vocabulary,
        parts,
        out,
        options,
        running,
        accelerator,
        model.model,
        plots,
        save_model,
        ["itaclip", *sys.argv[1:]],
    )
    say(report.markdown)
    say(f"Report: {out}")
