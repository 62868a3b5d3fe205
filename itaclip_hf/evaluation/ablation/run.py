"""Ablations: the rows of several tables computed in one go over a dataset, and written as tables.

Rows that mean the same are computed once, all others share what they have in common (`VariantFamily`); systems that
are more than settings of our model stand beside them, each by itself. Each row's progress lies in a folder of its own,
named by everything that determines its result: a run that was stopped goes on, and another table in the same folder
computes only what it has new.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from ...loading import name_dtype
from ..data.regions import DatasetWithRegions
from ..data.segmentation_datasets import SegmentationDataset, StreamedDataset
from ..reporting.plots import check_plotting
from ..reporting.report import describe_hardware, describe_versions
from ..running.baselines import SYSTEMS, System
from ..running.predictor_family import JoinedFamily, SinglePredictor
from ..running.runner import EvaluationResult, RunOptions, claim_results, describe_runs, make_accelerator, run_family
from .family import VariantFamily, Work, naming_variant
from .report import build_table_report, list_files, write_overview, write_table_report
from .tables import AblationTable
from .variants import AblationBase, SystemVariant, Variant, hash_values, leave_out_rows, resolve_row

__all__ = ["run_ablations"]


def run_ablations(
    tables: Sequence[AblationTable],
    base: AblationBase,
    dataset: SegmentationDataset | StreamedDataset,
    folder: str | os.PathLike[str],
    dtype: torch.dtype = torch.float32,
    options: RunOptions | None = None,
    accelerator: Accelerator | None = None,
    left_out: Mapping[str, str] | None = None,
    plots: bool = True,
    replicates: int = 2000,
    command: Sequence[str] = (),
) -> tuple[list[dict[str, Any]], list[EvaluationResult]]:
    """Computes tables and writes them; every process calls it, the main process writes.

    Args:
        tables: What to compute.
        base: What their rows start from.
        dataset: Images and labels.
        folder: Tables and progress go there.
        dtype: Number format of the models.
        options: How to go about it.
        accelerator: The processes; made here if not given.
        left_out: Tables that are not computed, and why, for the overview.
        plots: Whether to draw pictures, which needs matplotlib.
        replicates: Resamplings of the images for the intervals.
        command: How to run it again, for the tables.

    Returns:
        The content of each table's JSON file, and the results of all different rows.

    Raises:
        ValueError: A row cannot be computed, two tables have one name, or no image could be scored.
        OSError: A checkpoint cannot be loaded, another run uses the folder, or another file is where a table would be.
    """
    if plots:
        check_plotting()  # before the work, not after it
    names = [table.name for table in tables]
    if len(set(names)) < len(names):
        raise ValueError(f"Expected tables of different names, but got {', '.join(names)}.")
    options = options or RunOptions()
    accelerator = accelerator or make_accelerator()
    has_regions = isinstance(dataset, DatasetWithRegions)
    resolved = [(table, [resolve_row(base, table, row) for row in table.rows]) for table in tables]
    tables, of_tables = zip(*(leave_out_rows(*each, has_regions) for each in resolved), strict=True)
    _refuse_idle(base.proxy, has_regions, [variant for of_rows in of_tables for variant in of_rows])
    # Rows that mean the same, in one table or in several, are one variant.
    variants = {variant.key: variant for of_rows in of_tables for variant in of_rows}
    shared = VariantFamily(
        [each for each in variants.values() if isinstance(each, Variant)], dtype, accelerator.device
    )
    loaded = {
        key: _load(each, dtype, accelerator.device)
        for key, each in variants.items()
        if isinstance(each, SystemVariant)
    }
    # Those that differ in a setting which says what the system does by itself are one, with one folder of progress.
    described = {key: hash_values([each.describe(), each.vocabulary.fingerprint]) for key, each in loaded.items()}
    systems = {described[key]: each for key, each in loaded.items()}
    family = JoinedFamily([shared, *map(SinglePredictor, systems.values())])
    target = Path(folder)
    progress = [target / "progress" / hash_values(run)[:16] for run in describe_runs(dataset, family, options)]
    with claim_results(accelerator, target, list_files(tables)):
        results = run_family(dataset, family, progress, options, accelerator)
        if not len(results[0].counts):
            raise ValueError("Expected images to score, but not one could be. See the problems above.")
        facts = _describe_run(base, dataset, dtype, results, _gather_work(shared.work), command)
        keys = [*(variant.key for variant in shared.variants), *systems]
        result_of = dict(zip(keys, results, strict=True))
        reports = [
            build_table_report(
                table,
                [result_of[described.get(variant.key, variant.key)] for variant in of_rows],
                base.vocabulary.labels,
                facts,
                base.benchmark,
                replicates,
            )
            for table, of_rows in zip(tables, of_tables, strict=True)
        ]
        if accelerator.is_main_process:
            for report in reports:
                write_table_report(target, report, plots)
            write_overview(target, reports, left_out or {}, plots)
        accelerator.wait_for_everyone()
    return reports, results


def _refuse_idle(proxy: str | None, has_regions: bool, variants: Sequence[Variant | SystemVariant]) -> None:
    """What no row looks at would be ignored in silence."""
    of_model = [variant for variant in variants if isinstance(variant, Variant)]
    systems = [SYSTEMS[variant.system].title for variant in variants if isinstance(variant, SystemVariant)]
    if has_regions and systems:
        raise ValueError(f"Expected no regions with {', '.join(systems)}, which knows none. Leave them out.")
    if proxy is not None and not any(variant.proxy == proxy for variant in of_model):
        raise ValueError("Expected a proxy only with a row that compares its patches, but got one. Leave it out.")
    if has_regions and not any(variant.settings.takes_regions for variant in of_model):
        raise ValueError("Expected regions only with a row that looks at them, but got some. Leave them out.")


def _load(variant: SystemVariant, dtype: torch.dtype, device: torch.device) -> System:
    with naming_variant(variant.title):
        return SYSTEMS[variant.system](
            variant.model, variant.vocabulary, variant.benchmark, variant.settings, dtype, device
        )


def _gather_work(work: Work) -> dict[str, tuple[int, int]]:
    """Work of all processes together; every process encodes the same texts, which counts once."""
    of_processes: list[Work] = gather_object([work])
    total = {
        name: (sum(each.run[name] for each in of_processes), sum(each.needed[name] for each in of_processes))
        for name in ("window views", "last blocks", "label maps")
    }
    return {**total, "texts": (work.run["texts"], work.needed["texts"])}


def _describe_run(
    base: AblationBase,
    dataset: SegmentationDataset | StreamedDataset,
    dtype: torch.dtype,
    results: Sequence[EvaluationResult],
    work: Mapping[str, tuple[int, int]],
    command: Sequence[str],
) -> dict[str, Any]:
    """What holds for all tables of a run, as JSON values."""
    vocabulary = base.vocabulary
    return {
        "dataset": dataset.title,
        "benchmark": base.benchmark,
        "images": len(results[0].counts),
        "problems": len(results[0].problems),
        "model": base.model,
        "proxy": base.proxy,
        "regions": dataset.describe().get("regions"),
        "dtype": name_dtype(dtype),
        "settings": dict(base.settings),
        "vocabulary": {
            "classes": len(vocabulary.labels),
            "queries": len(vocabulary.query_names),
            "background": len(vocabulary.background),
            "auxiliary_texts": sum(len(entry.auxiliary_texts) for entry in vocabulary.classes),
            "sha256": vocabulary.fingerprint,
        },
        "variants": len(results),
        "resumed": sum(result.resumed for result in results),
        "work": {name: list(counts) for name, counts in work.items()},
        "seconds": round(results[0].seconds, 1),
        "hardware": describe_hardware(results[0].num_processes),
        "versions": describe_versions(),
        "command": list(command),
    }
