"""`itaclip convert`: label files of Pascal Context from the annotations that it is published with."""

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from .terminal import say

__all__ = ["convert"]


class Target(str, Enum):
    """What to make."""

    context = "context"


def convert(
    target: Annotated[Target, typer.Argument(help="What to make.")],
    data: Annotated[Path, typer.Option(help="The VOC2010 folder with JPEGImages.")],
    annotations: Annotated[Path, typer.Option(help="Folder of the annotations' .mat files.")],
    names: Annotated[Path | None, typer.Option(help="labels.txt of the annotations, to check ids.")] = None,
) -> None:
    """Make label files of Pascal Context from its annotations: VOC2010/SegmentationClassContext/NAME.png."""
    from ..evaluation.data.conversions import convert_pascal_context

    say(f"{convert_pascal_context(annotations, data, names)} label files written.")
