"""Ablation tables as files: Markdown, CSV, JSON and a picture each, and one page with all of them.

Beside our figures stand the paper's. Every row is compared with the table's reference row on the same images, by a
paired bootstrap over images; how far the order of the rows agrees with the paper's is counted over pairs of rows.
"""

import itertools
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...files import write_json, write_text
from ...markdown import (
    bold,
    code,
    escape,
    format_csv,
    format_facts,
    format_table,
    percent,
    picture,
    signed_percent,
)
from ..data.benchmarks import BENCHMARKS
from ..metrics.comparison import compare_counts
from ..reporting.plots import plot_differences
from ..running.runner import EvaluationResult
from .tables import AblationTable

__all__ = ["build_table_report", "format_ablation", "list_files", "write_overview", "write_table_report"]

OVERVIEW_FILE = "tables.md"


def build_table_report(
    table: AblationTable,
    results: Sequence[EvaluationResult],
    class_names: Sequence[str],
    facts: Mapping[str, Any],
    benchmark: str | None = None,
    replicates: int = 2000,
) -> dict[str, Any]:
    """The content of a table's JSON file.

    Args:
        table: The table.
        results: The result of each of its rows.
        class_names: Of the classes.
        facts: What holds for the whole run.
        benchmark: The benchmark that was run; its published figures alone are shown, if the table has them.
        replicates: Resamplings of the images.

    Returns:
        JSON values; mIoU and differences as fractions, published figures in percent as published.
    """
    reference = results[[row.name for row in table.rows].index(table.reference)]
    rows = []
    for row, result in zip(table.rows, results, strict=True):
        titles = (table.reference, row.name)
        comparison = compare_counts(reference.counts, result.counts, class_names, titles, replicates)
        entry = {
            "name": row.name,
            "settings": dict(row.settings),
            "mean_iou": comparison.mean_iou[1],
            "difference": comparison.difference,
            "interval": list(comparison.interval),
            "share_better": comparison.share_better,
            "published": dict(row.published),
        }
        rows.append(entry)
    shown = _choose_benchmarks(table, benchmark)
    return {
        "table": table.name,
        "title": table.title,
        "number": table.number,
        "note": table.note,
        "reference": table.reference,
        "base": dict(table.base),
        "images": len(reference.counts),
        "confidence": 0.95,
        "replicates": replicates,
        "shown_benchmarks": shown,
        "rows": rows,
        "pairs_in_published_order": {name: _count_ordered_pairs(rows, name) for name in shown},
        "run": dict(facts),
    }


def list_files(tables: Sequence[AblationTable]) -> list[str]:
    """Names of all files that may be written for these tables."""
    return [OVERVIEW_FILE, *(f"{table.name}.{kind}" for table in tables for kind in ("md", "csv", "json", "png"))]


def write_table_report(folder: str | os.PathLike[str], report: Mapping[str, Any], plots: bool) -> None:
    """Writes `NAME.md`, `NAME.csv`, `NAME.json` and, where asked for, `NAME.png`."""
    target, name = Path(folder), report["table"]
    if plots:
        _plot(target / f"{name}.png", report)
    text = f"# {escape(_heading(report))}\n\n{format_ablation(report)}{_format_picture(report, plots)}"
    write_text(target / f"{name}.md", f"{text}\n{_format_facts(report['run'])}")
    write_text(target / f"{name}.csv", _format_csv(report))
    write_json(target / f"{name}.json", report)


def write_overview(
    folder: str | os.PathLike[str], reports: Sequence[Mapping[str, Any]], left_out: Mapping[str, str], plots: bool
) -> None:
    """Writes `tables.md` with all tables and, once, what holds for all of them.

    `left_out` has the names of tables that were asked for by "all" and do not fit, and why.
    """
    parts = ["# Ablation tables\n", _format_facts(reports[0]["run"])]
    for report in reports:
        parts.append(f"## {escape(_heading(report))}\n\n{format_ablation(report)}{_format_picture(report, plots)}")
    if left_out:
        parts.append("\n".join(["## Left out\n", format_facts(left_out)]))
    write_text(Path(folder) / OVERVIEW_FILE, "\n".join(parts))


def format_ablation(report: Mapping[str, Any]) -> str:
    """The table as Markdown, its note before it and the agreement with the paper behind it."""
    shown = report["shown_benchmarks"]
    interval = f"{100 * report['confidence']:g} % interval"
    header = ["", "mIoU", f"difference to “{report['reference']}” ({interval})"]
    header += [f"paper: {_title(name)}" for name in shown]
    published = {row["name"]: row["published"] for row in report["rows"]}
    rows = [
        [
            *_format_scores(row, is_reference=row["name"] == report["reference"]),
            *(_format_published(published, row["name"], report["reference"], name) for name in shown),
        ]
        for row in report["rows"]
    ]
    agreement = [
        f"{agreeing} of {pairs} ({_title(name)})"
        for name, (agreeing, pairs) in report["pairs_in_published_order"].items()
        if pairs
    ]
    order = f" Pairs of rows in the paper's order: {', '.join(agreement)}." if agreement else ""
    note = f"{escape(report['note'])}\n\n" if report["note"] else ""
    return f"{note}{format_table(header, rows)}\n{report['images']} images.{order}\n"


def _format_scores(row: Mapping[str, Any], is_reference: bool) -> tuple[str, str, str]:
    if is_reference:
        return bold(row["name"]), percent(row["mean_iou"], 1), "–"
    difference, low, high = (signed_percent(share, 1) for share in (row["difference"], *row["interval"]))
    return row["name"], percent(row["mean_iou"], 1), f"{difference} ({low} to {high})"


def _choose_benchmarks(table: AblationTable, benchmark: str | None) -> list[str]:
    """Whose published figures to show: the evaluated benchmark's, or all where it has none."""
    named = Counter(name for row in table.rows for name in row.published)
    known = [name for name, count in named.items() if count > 1]  # one figure alone compares nothing
    return [benchmark] if benchmark in known else known


def _count_ordered_pairs(rows: Sequence[Mapping[str, Any]], benchmark: str) -> tuple[int, int]:
    """How many pairs of rows with different published figures are in that order here, and how many there are."""
    published = [(row["published"][benchmark], row["mean_iou"]) for row in rows if benchmark in row["published"]]
    ordered = [pair for pair in itertools.combinations(published, 2) if pair[0][0] != pair[1][0]]
    agreeing = sum((theirs - their) * (ours - our) > 0 for (their, our), (theirs, ours) in ordered)
    return agreeing, len(ordered)


def _format_published(published: Mapping[str, Mapping[str, float]], row: str, reference: str, benchmark: str) -> str:
    figure, of_reference = published[row].get(benchmark), published[reference].get(benchmark)
    if figure is None:
        return "–"
    if of_reference is None or row == reference:
        return f"{figure:.1f}"
    return f"{figure:.1f} ({figure - of_reference:+.1f})"


def _format_csv(report: Mapping[str, Any]) -> str:
    benchmarks = list(dict.fromkeys(name for row in report["rows"] for name in row["published"]))
    header = ["row", "miou", "difference", "low", "high", *(f"paper_{name}" for name in benchmarks)]
    rows = []
    for row in report["rows"]:
        ours = (row["mean_iou"], row["difference"], *row["interval"])
        figures = [row["published"].get(name, "") for name in benchmarks]
        rows.append([row["name"], *(percent(share, 3) for share in ours), *figures])
    return format_csv(header, rows)


def _format_facts(run: Mapping[str, Any]) -> str:
    """One line for each thing that holds for the whole run."""
    vocabulary, hardware = run["vocabulary"], run["hardware"]
    changes = ", ".join(f"{name} {value}" for name, value in run["settings"].items())
    of_benchmark = f" for {_title(run['benchmark'])}" if run["benchmark"] else ""
    facts = {
        "dataset": f"{run['dataset']}, {run['images']} images",
        "model": f"{run['model']}, {run['dtype']}",
        "proxy": run["proxy"],
        "regions": run["regions"],
        "start": f"ITACLIP's settings{of_benchmark}" + (f", but {changes}" if changes else ""),
        "vocabulary": f"{vocabulary['classes']} classes, {vocabulary['queries']} queries, "
        f"{vocabulary['background']} background words, {vocabulary['auxiliary_texts']} auxiliary texts, "
        f"SHA-256 {vocabulary['sha256'][:16]}…",
        "shared work": _format_work(run["work"]),
        "time": f"{run['seconds']:.0f} s for {run['variants']} different rows{_format_resumed(run)}, "
        f"{hardware['processes']} process(es), {', '.join(hardware['gpus_of_main_machine']) or hardware['cpu']}",
        "not scored": f"{run['problems']} images" if run["problems"] else None,
        "versions": ", ".join(f"{name} {version}" for name, version in run["versions"].items()),
        "command": code(" ".join(run["command"])) if run["command"] else None,
    }
    return format_facts(facts)


def _format_resumed(run: Mapping[str, Any]) -> str:
    """What the time does not include."""
    maps = run["images"] * run["variants"]
    return f" ({run['resumed']:,} of {maps:,} label maps had been made before)" if run["resumed"] else ""


def _format_work(work: Mapping[str, Sequence[int]]) -> str | None:
    """Passes that were run against passes of the rows one by one; nothing where all was done by earlier runs."""
    parts = [f"{run:,} {name} instead of {needed:,}" for name, (run, needed) in work.items() if needed]
    return ", ".join(parts) if work.get("window views", (0, 0))[1] else None


def _format_picture(report: Mapping[str, Any], plots: bool) -> str:
    return f"\n{picture(report['title'], report['table'] + '.png')}\n" if plots else ""


def _plot(path: Path, report: Mapping[str, Any]) -> None:
    rows, shown = report["rows"], report["shown_benchmarks"]
    of_reference = next(row for row in rows if row["name"] == report["reference"])["published"]
    published = {
        _title(name): [
            row["published"][name] - of_reference[name] if name in row["published"] else None for row in rows
        ]
        for name in shown
        if name in of_reference
    }
    plot_differences(
        path,
        [f"{row['name']} ({percent(row['mean_iou'], 1)})" for row in rows],
        [100 * row["difference"] for row in rows],
        [(100 * row["interval"][0], 100 * row["interval"][1]) for row in rows],
        published,
        f"{_heading(report)}: mIoU against “{report['reference']}”",
    )


def _heading(report: Mapping[str, Any]) -> str:
    return report["title"] + (f" (table {report['number']} of the paper)" if report["number"] else "")


def _title(benchmark: str) -> str:
    return BENCHMARKS[benchmark].title if benchmark in BENCHMARKS else benchmark
