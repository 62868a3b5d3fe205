"""Options about large images, and about what else is written."""

from dataclasses import dataclass
from enum import Enum
from typing import Annotated

import typer

from ...media import FORMATS
from ...methods.settings import SIZE_NAMES
from .settings import SettingOptions, name_option

__all__ = ["FormatName", "MediaOptions"]

FormatName = Enum("FormatName", {name: name for name in FORMATS}, type=str)  # type: ignore[misc]


@dataclass(frozen=True)
class MediaOptions:
    """How large inputs are worked on, and in which formats results are written beside the usual files."""

    panel = "Inputs and results"

    format: Annotated[
        list[FormatName] | None,
        typer.Option(
            help="Also write the results of all images as a data set: coco (coco.json), yolo (a folder with images, "
            "polygons and data.yaml) or masks (a black and white picture of each class); may be given many times."
        ),
    ] = None
    tile: Annotated[
        int | None,
        typer.Option(
            min=64,
            max=2**14,
            help="Work on images at their own resolution, cut into tiles of so many pixels a side (such as 1024) that "
            "overlap so far that no seam shows; by default an image is scaled down as the settings say.",
        ),
    ] = None
    bands: Annotated[
        tuple[int, int, int] | None,
        typer.Option(
            metavar="RED GREEN BLUE",
            help="Read inputs as rasters, and these of their bands, counted from 1. GeoTIFFs are read as rasters "
            "anyway, with the bands that they call red, green and blue, and always by tiles.",
        ),
    ] = None

    def refuse_sizes(self, settings: SettingOptions) -> None:
        """Refuse options that scale an image which is worked on as it is.

        Raises:
            ValueError: If one was given.
        """
        given = [name_option(name) for name in settings.given() if name in SIZE_NAMES]
        if given:
            raise ValueError(
                f"Expected no {given[0]} with --tile or a raster, which is worked on at its own resolution, but got "
                "both. Leave one of them out."
            )
