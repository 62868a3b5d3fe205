"""`itaclip ablate`: the paper's ablation tables, or one's own, on any data."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..plain_text import show_name
from .options.data import StreamedDataOptions
from .options.model import ModelOptions, quiet_libraries
from .options.processes import ProcessOptions
from .options.run import RunOptions
from .options.vocabulary import VocabularyOptions
from .terminal import say, warn

if TYPE_CHECKING:
    from ..evaluation.ablation.tables import AblationTable
    from ..processing import Vocabulary

__all__ = ["ablate"]


def ablate(
    tables: Annotated[
        list[str],
        typer.Argument(
            metavar="TABLE",
            help="attention, feed-forward, intermediate, pamr, engineering, stride, weights, background, methods, "
            "backbones, or their numbers in the paper (2 to 8, 11, 1, 10); 'all' of these; beyond, which is not of "
            "the paper; or a YAML file of your own.",
        ),
    ],
    data: StreamedDataOptions,
    words: VocabularyOptions,
    model: ModelOptions,
    processes: ProcessOptions,
    run: RunOptions,
    benchmark: Annotated[
        str | None, typer.Option(help="Benchmark, as for `itaclip evaluate`; with --data or another source of images.")
    ] = None,
    models: Annotated[
        str | None, typer.Option(help="Checkpoints for the table of backbones, separated by commas.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Setting of the full method that all rows start from, by its name in reports and tables; may be "
            "repeated.",
        ),
    ] = None,
    replicates: Annotated[
        int, typer.Option(min=1, max=10**6, help="Resamplings of the images for the intervals.")
    ] = 2000,
    out: Annotated[Path | None, typer.Option(help="Folder for the tables; default: itaclip_ablation/NAME.")] = None,
) -> None:
    """Compute ablation tables: every row's mIoU with the interval of its difference, beside the paper's figures.

    Rows share passes through the encoder, label maps and texts where they may; each gives what `itaclip evaluate`
    would give. Writes NAME.md, NAME.csv, NAME.json and NAME.png for each table, and tables.md with all of them. A run
    that was stopped goes on where it was; another table in the same folder computes only what is new. Many processes
    as for `itaclip evaluate`.
    """
    from ..evaluation.ablation.report import format_ablation
    from ..evaluation.ablation.run import run_ablations
    from ..evaluation.ablation.table_files import parse_setting
    from ..evaluation.ablation.tables import check_settings
    from ..evaluation.ablation.variants import AblationBase
    from ..evaluation.data.benchmarks import get_benchmark
    from ..files import refuse_inputs
    from ..loading import choose_dtype

    quiet_libraries()
    settings = dict(parse_setting(setting) for setting in set_ or [])
    check_settings(settings)
    chosen = None if benchmark is None else get_benchmark(benchmark)
    vocabulary = words.read(chosen)
    found, left_out = _choose_tables(tables, models, vocabulary)
    samples = data.open_dataset(chosen, len(vocabulary.labels))
    running = run.for_runner()
    accelerator = processes.join("ablate")
    folder = out or Path("itaclip_ablation") / Path(benchmark or samples.title).name
    refuse_inputs(folder, (*words.files, *(Path(name) for name in tables)))
    reports, results = run_ablations(
        found,
        AblationBase(model.model, vocabulary, benchmark, settings, model.proxy),
        samples,
        folder,
        choose_dtype(model.dtype.value, accelerator.device),
        running,
        accelerator,
        left_out,
        run.plots,
        replicates,
        ["itaclip", *sys.argv[1:]],
    )
    problems = results[0].problems
    if accelerator.is_main_process:
        for report in reports:
            say(f"{report['title']}\n\n{format_ablation(report)}")
        for name, reason in left_out.items():
            warn(f"Left out: {name}: {reason}", "yellow")
        say(f"Tables: {folder}")
        if problems:
            first = problems[0]
            warn(f"{len(problems)} images could not be scored; the first is {show_name(first.path)}: {first.message}")
    if accelerator.num_processes > 1:
        accelerator.end_training()
    if problems:
        raise typer.Exit(1)


def _choose_tables(
    names: list[str], models: str | None, words: "Vocabulary"
) -> tuple[list["AblationTable"], dict[str, str]]:
    """The tables that were asked for, and of "all" those that do not fit, with the reason."""
    from ..evaluation.ablation.paper_tables import get_table, make_backbone_table, table_names
    from ..evaluation.ablation.table_files import load_table_file

    checkpoints = [] if models is None else [model.strip() for model in models.split(",") if model.strip()]
    left_out = {}
    if "all" in names:
        if not checkpoints:
            left_out["backbones"] = "name two or more checkpoints with --models"
        if not words.background:
            left_out["background"] = "the vocabulary has no background words"
        known = [name for name in table_names() if name not in left_out]
        names = [*known, *(name for name in names if name != "all" and name not in known)]
    tables = []
    for name in names:
        if Path(name).suffix in (".yaml", ".yml"):
            tables.append(load_table_file(name))
        elif checkpoints and get_table(name).name == "backbones":
            tables.append(make_backbone_table(checkpoints))
        else:
            tables.append(get_table(name))
    if checkpoints and not any(table.name == "backbones" for table in tables):
        raise ValueError("Expected the table backbones with `--models`, but it was not asked for. Add `backbones`.")
    return tables, left_out
