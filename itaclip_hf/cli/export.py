"""`itaclip export`: a checkpoint with its vocabulary for other runtimes."""

import re
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from .options.classes import ClassOptions
from .options.model import ModelOptions, NumberFormat
from .options.settings import SettingOptions
from .terminal import say

__all__ = ["export"]


class ExportFormat(str, Enum):
    """What to write."""

    onnx = "onnx"


def export(
    checkpoint: Annotated[
        str, typer.Argument(metavar="FOLDER", help="CLIP or ITACLIP checkpoint: a folder, a hub id, or 'demo'.")
    ],
    words: ClassOptions,
    settings: SettingOptions,
    export_format: Annotated[ExportFormat, typer.Option("--format", help="What to write.")] = ExportFormat.onnx,
    out: Annotated[Path, typer.Option(help="Folder for the files.")] = Path("itaclip_export"),
    image_size: Annotated[
        str | None,
        typer.Option(
            metavar="HEIGHTxWIDTH",
            help="Size of the images to come; default: 224x224. It matters where the model looks at them in one "
            "piece: the file takes one size alone.",
        ),
    ] = None,
) -> None:
    """Write the vision tower, with classes baked in, for other runtimes; needs the extra `[onnx]`.

    vision.onnx takes normalised windows and gives the cosines of their patches with each query, and their features;
    vision.json says the rest. They are written only if ONNX Runtime gave what torch gives. docs/export.md segments
    with them in NumPy.
    """
    from ..onnx_export import DEFAULT_SIZE, LARGEST_DIFFERENCE, export_onnx, refuse_idle_size

    size = None if image_size is None else _read_size(image_size)
    model = ModelOptions(model=checkpoint, dtype=NumberFormat.float32)
    loaded = model.load(settings, "cpu", words.read() or model.own_vocabulary())
    if size is not None:
        refuse_idle_size(*loaded, size)
    description = export_onnx(out, *loaded, image_size=size or DEFAULT_SIZE)
    height, width = description["input"]["shape"][2:]
    difference = description["largest_difference_from_torch"]
    say(
        f"{out / description['file']}: {len(description['query_classes'])} queries of {len(description['labels'])} "
        f"classes, pieces of {height} x {width} pixels; at most {difference:.1g} from torch "
        f"(allowed: {LARGEST_DIFFERENCE:g})"
    )


def _read_size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([1-9]\d{0,3})x([1-9]\d{0,3})", text, re.ASCII)
    if found is None:
        raise ValueError(
            f"Expected `--image-size` like 480x640, height first, each up to 9999, but got {text!r}. Write it so."
        )
    return int(found[1]), int(found[2])
