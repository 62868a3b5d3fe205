"""`itaclip compare`: two reports side by side, with the uncertainty of their difference."""

from pathlib import Path
from typing import Annotated

import typer

from .options.run import SEEDS
from .terminal import say

__all__ = ["compare"]


def compare(
    first: Annotated[Path, typer.Argument(metavar="A", help="Folder of a report.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Folder of another report on the same images.")],
    replicates: Annotated[int, typer.Option(min=1, max=10**6, help="Resamplings of the images.")] = 2000,
    confidence: Annotated[float, typer.Option(min=0.5, max=0.999, help="Level of the interval.")] = 0.95,
    seed: Annotated[int, typer.Option(**SEEDS, help="Seed of the resampling.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Also write the comparison there, as a new JSON file.")] = None,
) -> None:
    """Compare two evaluations: differences by class, and a paired bootstrap interval of the mIoU difference."""
    from ..evaluation.reporting.report_comparison import compare_reports, format_comparison
    from ..files import refuse_others, write_json

    refuse_others([out] if out else [])
    comparison = compare_reports(first, second, replicates=replicates, level=confidence, seed=seed)
    say(format_comparison(comparison))
    if out is not None:
        write_json(out, comparison.to_dict())
