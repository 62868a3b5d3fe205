"""`itaclip segment`: label maps, overlays and class shares of images, for classes named on the command line."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options.classes import ClassOptions
from .options.model import ModelOptions
from .options.processes import DeviceOption
from .options.settings import SettingOptions

if TYPE_CHECKING:
    from ..loading import Loaded
    from .images import ImageFile, SegmentedImage

__all__ = ["segment"]


class Existing(str, Enum):
    """What to do with results of an earlier run."""

    refuse = "refuse"
    overwrite = "overwrite"
    skip = "skip"


@dataclass(frozen=True)
class ResultFiles:
    """The files of one image's result. The JSON file is written last: where it is, the result is complete."""

    labels: Path
    overlay: Path
    confidence: Path
    description: Path

    @classmethod
    def of(cls, image_file: "ImageFile", out: Path) -> "ResultFiles":
        """The files that belong to an image."""
        base = out / image_file.result_name
        return cls(
            *(base.with_name(base.name + end) for end in ("_labels.png", "_overlay.png", "_confidence.png", ".json"))
        )

    def exist(self) -> bool:
        """Whether any of them is there."""
        return any(path.exists() for path in (self.labels, self.overlay, self.confidence, self.description))


def segment(
    images: Annotated[
        list[Path],
        typer.Argument(metavar="IMAGE...", help="Images, and folders that are searched with all below them."),
    ],
    words: ClassOptions,
    model: ModelOptions,
    settings: SettingOptions,
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("itaclip_results"),
    confidence: Annotated[
        bool,
        typer.Option(
            "--confidence",
            help="Also write NAME_confidence.png, the score of each pixel's class in 16-bit grey (65535: 1).",
        ),
    ] = False,
    existing: Annotated[
        Existing,
        typer.Option(help="Earlier results in --out: refuse to begin, overwrite them, or skip what is finished."),
    ] = Existing.refuse,
    device: DeviceOption = "auto",
) -> None:
    """Segment images into classes that you name.

    Writes for each image NAME_labels.png (label ids, with a palette), NAME_overlay.png and NAME.json (share and mean
    score of each class). Images of folders keep their subfolders; a second image of the same name becomes NAME-2.
    An image that cannot be read is reported, the others are done, and the exit code is 1.
    """
    from ..methods import Settings
    from .images import find_images

    vocabulary = words.read()
    files = find_images(images, out)
    if existing is Existing.refuse:
        _refuse_existing(files, out)
    loaded = model.load(settings, device, vocabulary)
    if not loaded.model.config.query_classes:
        raise ValueError(
            f'Expected classes, as {model.model} has none of its own, but got none. Add --classes "cat; dog; sky".'
        )
    request = {
        "model": model.model,
        "method": settings.method,
        **Settings.of(*loaded).to_json(),
        "dtype": str(loaded.model.dtype).removeprefix("torch."),
        "vocabulary": None if vocabulary is None else vocabulary.fingerprint,
        "confidence": confidence,
    }
    if existing is Existing.skip:
        files = _leave_out_finished(files, out, request)
    failed = _segment_files(files, out, request, loaded)
    if failed:
        typer.secho(f"{failed} of {len(files)} images failed; see the lines above.", fg="red", err=True)
        raise typer.Exit(1)


def _refuse_existing(files: Sequence["ImageFile"], out: Path) -> None:
    earlier = [file.path for file in files if ResultFiles.of(file, out).exist()]
    if earlier:
        others = f" and {len(earlier) - 1} others" if len(earlier) > 1 else ""
        raise ValueError(
            f"Expected no results in {out} yet, but those of {earlier[0]}{others} are there. "
            "Use --existing overwrite, --existing skip or another --out."
        )


def _leave_out_finished(files: Sequence["ImageFile"], out: Path, request: dict[str, Any]) -> list["ImageFile"]:
    remaining = []
    for file in files:
        description = ResultFiles.of(file, out).description
        if not description.exists():
            remaining.append(file)
            continue
        if _read_request(description) != (str(file.path), request):
            raise ValueError(
                f"Expected {description} to be of {file.path} with the same settings, but it is of another image "
                "or other settings. Use --existing overwrite or another --out."
            )
    if len(remaining) < len(files):
        typer.echo(f"{len(files) - len(remaining)} of {len(files)} images are finished already.")
    return remaining


def _read_request(description: Path) -> tuple[Any, Any]:
    """Image and settings of an earlier result; nothing where the file is of another program."""
    try:
        content = json.loads(description.read_text(encoding="utf-8"))
        return content["image"], content["settings"]
    except (ValueError, KeyError, TypeError):
        return None, None


def _segment_files(files: Sequence["ImageFile"], out: Path, request: dict[str, Any], loaded: "Loaded") -> int:
    """Segment every file and write its results; the number of files that failed."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

    from .images import UNREADABLE, read_rgb_image, segment_image

    failed = 0
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        for file in progress.track(files, description="Segmenting"):
            start = time.perf_counter()
            try:
                result = segment_image(read_rgb_image(file.path), *loaded)
            except (*UNREADABLE, MemoryError, RuntimeError) as error:
                if isinstance(error, RuntimeError) and "memory" not in str(error):
                    raise  # torch has no one error for too little memory, and anything else is a fault of the program
                failed += 1
                typer.secho(f"{file.path}: {' '.join(str(error).split())}", fg="red", err=True)
                continue
            paths = ResultFiles.of(file, out)
            description = {
                "image": str(file.path),
                "height": result.image.height,
                "width": result.image.width,
                "settings": request,
                "seconds": round(time.perf_counter() - start, 3),
                "classes": result.describe_classes(),
            }
            _write_result(paths, result, description)
            typer.echo(f"{file.path} -> {paths.overlay}: {result.summarize()}")
    return failed


def _write_result(paths: ResultFiles, result: "SegmentedImage", description: dict[str, Any]) -> None:
    from ..drawing.pictures import make_palette, to_grey_image, to_indexed_image
    from ..files import write_json, write_png

    write_png(paths.labels, to_indexed_image(result.labels, make_palette(result.has_background)))
    write_png(paths.overlay, result.draw())
    if description["settings"]["confidence"]:
        write_png(paths.confidence, to_grey_image(result.confidence))
    write_json(paths.description, description)
