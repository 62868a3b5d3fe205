"""Options about how `itaclip tune` searches."""

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Annotated

import typer

from ...methods.settings import setting_fields
from .run import SEEDS

if TYPE_CHECKING:
    from ...evaluation.tuning.search import TuningOptions

__all__ = ["SearchOptions"]

_TUNABLE = [name for name, field in setting_fields().items() if field.metadata["grid"]] + ["background"]
Tunable = Enum("Tunable", {name: name.replace("_", "-") for name in _TUNABLE}, type=str)  # type: ignore[misc]


@dataclass(frozen=True)
class SearchOptions:
    """What is searched, on which part of the data, and how sure a change must be."""

    panel = "Search"

    keep: Annotated[
        list[Tunable] | None,
        typer.Option(
            metavar="NAME",
            help=f"Leave this as it is: {', '.join(each.value for each in Tunable)}; may be given many times.",
        ),
    ] = None
    background_candidates: Annotated[
        str | None, typer.Option(help='Words that may join the background: "wall, floor, tree".')
    ] = None
    held_out: Annotated[float, typer.Option(help="Share of the images that only the final scores see.")] = 0.5
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many images, drawn at random.")] = None
    pixels: Annotated[int, typer.Option(help="Pixels of each image that the search looks at.")] = 20_000
    min_gain: Annotated[float, typer.Option(help="mIoU in percent that a change must gain to be made.")] = 0.1
    sureness: Annotated[
        float, typer.Option(help="Share of resamplings of the images in which a change must gain; 0 asks for none.")
    ] = 0.9
    seed: Annotated[int, typer.Option(**SEEDS, help="Seed of the split and of the pixels.")] = 0

    def for_search(self) -> "TuningOptions":
        """What the search needs to know of them.

        Raises:
            ValueError: If a value is out of its range.
        """
        from ...evaluation.tuning.search import TuningOptions

        words = (self.background_candidates or "").replace(";", ",").split(",")
        return TuningOptions(
            keep=frozenset(entry.name for entry in self.keep or ()),
            background_candidates=tuple(word.strip() for word in words if word.strip()),
            pixels=self.pixels,
            min_gain=self.min_gain / 100,
            sureness=self.sureness,
            seed=self.seed,
            show_progress=True,
        )
