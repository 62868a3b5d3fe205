"""Options about large images, and about what else is written."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Annotated

import typer

from ...media import FORMATS, ImageFile
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
    regions: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER|felzenszwalb",
            help="Regions of each picture, whose pixels become what most of them are (--no-region-vote: they are only "
            "described): a folder with NAME.png or NAME.npy of ids (0: none) for each, or superpixels. NAME.json "
            "then says which class each region is.",
        ),
    ] = None
    every: Annotated[
        int | None, typer.Option(min=1, help="Of a video, segment every so many frames; by default all.")
    ] = None

    def refuse_idle(self, settings: SettingOptions, files: Sequence[ImageFile]) -> None:
        """Refuse options that mean nothing beside the others or for the inputs; they would be ignored in silence.

        Raises:
            ValueError: If one was given.
        """
        sizes = [name_option(name) for name in settings.given() if name in SIZE_NAMES]
        kinds = {file.kind: file for file in files}
        if sizes and (self.tile is not None or "raster" in kinds):
            raise ValueError(
                f"Expected no {sizes[0]} with --tile or a raster, which is worked on at its own resolution, but got "
                "both. Leave one of them out."
            )
        if self.regions is not None and (self.tile is not None or kinds.keys() != {"picture"}):
            raise ValueError(
                "Expected pictures without --tile where there are --regions, but got others. Leave one of them out."
            )
        if self.every is not None and "video" not in kinds:
            raise ValueError("Expected a video with --every, but got none. Leave it out.")
        for name in self.format or ():
            place = FORMATS[name.value].place
            for file in files:
                if file.kind != "picture":
                    raise ValueError(f"Expected pictures with --format, but {file} is a {file.kind}. Leave it out.")
                if f"{file.result_name}.json" == place:
                    raise ValueError(f"Expected images that leave the name {place}, but got {file}. Rename it.")
