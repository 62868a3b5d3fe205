"""`itaclip convert`: label files of COCO-Object and Pascal Context from those that the datasets are published with."""

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["convert"]


class Target(str, Enum):
    """What to make."""

    coco_object = "coco-object"
    context = "context"


def convert(
    target: Annotated[Target, typer.Argument(help="What to make.")],
    data: Annotated[
        Path, typer.Option(help="coco-object: the COCO-Stuff folder; context: the VOC2010 folder with JPEGImages.")
    ],
    annotations: Annotated[Path | None, typer.Option(help="context: folder of the annotations' .mat files.")] = None,
    names: Annotated[Path | None, typer.Option(help="context: labels.txt of the annotations, to check ids.")] = None,
    split: Annotated[str, typer.Option(help="coco-object: val or train.")] = "val",
) -> None:
    """Make label files of COCO-Object (from COCO-Stuff) or Pascal Context (from its annotations).

    coco-object writes NAME_instanceTrainIds.png beside COCO-Stuff's label files; context writes
    SegmentationClassContext/NAME.png into the VOC2010 folder.
    """
    from ..evaluation.data.conversions import convert_coco_object, convert_pascal_context

    if target is Target.coco_object:
        written = convert_coco_object(data, split)
    elif annotations is None:
        raise ValueError("Expected `--annotations` with `context`, but got none. Name the folder of the .mat files.")
    else:
        written = convert_pascal_context(annotations, data, names)
    typer.echo(f"{written} label files written.")
