"""Options about how a run over a dataset goes about it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ...evaluation.running.runner import RunOptions as RunnerOptions

__all__ = ["SEEDS", "RunOptions"]

SEEDS: dict[str, Any] = {"min": 0, "max": 2**31 - 1}  # that every generator takes, with room to count on from


@dataclass(frozen=True)
class RunOptions:
    """How many images, how many at a time, and what to do with bad ones and earlier progress."""

    panel = "Run"

    limit: Annotated[int | None, typer.Option(help="Only the first so many images.")] = None
    batch_size: Annotated[int, typer.Option(help="Images that are predicted together.")] = 1
    workers: Annotated[int, typer.Option(help="Processes that decode and resize, per evaluating process.")] = 2
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first image that cannot be scored.")] = False
    restart: Annotated[bool, typer.Option("--restart", help="Throw earlier progress away.")] = False
    plots: Annotated[bool, typer.Option("--plots/--no-plots", help="Whether to draw pictures.")] = True

    def for_runner(self) -> "RunnerOptions":
        """What the runner needs to know of them.

        Raises:
            ValueError: If a number is out of its range.
        """
        from ...evaluation.running.runner import RunOptions as RunnerOptions

        return RunnerOptions(
            batch_size=self.batch_size,
            num_workers=self.workers,
            limit=self.limit,
            strict=self.strict,
            restart=self.restart,
        )
