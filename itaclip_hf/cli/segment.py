"""`itaclip segment`: label maps, overlays and class shares of images, for classes named on the command line."""

import os
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
from .terminal import say, warn

if TYPE_CHECKING:
    from ..loading import Loaded
    from .images import ImageFile, SegmentedImage

__all__ = ["segment"]

LONGEST_NAME = 255  # bytes, of a file in a folder, on nearly every file system


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

    def existing(self) -> list[Path]:
        """Those of them that are there."""
        # Unlike `Path.exists`, this is also an answer where a name is too long to exist.
        return [
            path for path in (self.labels, self.overlay, self.confidence, self.description) if os.path.lexists(path)
        ]

    def read_request(self) -> tuple[Any, Any]:
        """Image and settings of an earlier result; nothing where there is none of ours."""
        from ..files import read_json

        try:
            content = read_json(self.description)
            return content["image"], content["settings"]
        except (OSError, ValueError, KeyError, TypeError):
            return None, None


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
    from ..files import locked_folder
    from ..methods import Settings
    from .images import find_images

    vocabulary = words.read()
    files = find_images(images, out)
    _protect_files(files, out, existing)
    loaded = model.load(settings, device, vocabulary or model.own_vocabulary())
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
    with locked_folder(out):
        _protect_files(files, out, existing)  # once more, as another run may have come before
        failed = _segment_files(files, out, request, loaded)
    if failed:
        warn(f"{failed} of {len(files)} images failed; see the lines above.")
        raise typer.Exit(1)


def _protect_files(files: Sequence["ImageFile"], out: Path, existing: Existing) -> None:
    """Nothing takes the place of an image to segment, nor of a file that is no result of ours."""
    from ..files import is_own_png, refuse_others

    images = {os.path.realpath(file.path) for file in files}
    with_results = []
    for file in files:
        results = ResultFiles.of(file, out)
        there = results.existing()
        for path in there:
            if os.path.realpath(path) in images:
                raise ValueError(
                    f"Expected results beside the images, but {path} is an image itself. Use another --out."
                )
        if there and existing is not Existing.refuse and results.read_request() == (None, None):
            # A run that was stopped leaves pictures without a description.
            refuse_others(there, lambda path: path.suffix == ".png" and is_own_png(path))
        with_results += [file.path] if there else []
    if with_results and existing is Existing.refuse:
        others = f" and {len(with_results) - 1} others" if len(with_results) > 1 else ""
        raise ValueError(
            f"Expected no results in {out} yet, but those of {with_results[0]}{others} are there. "
            "Use --existing overwrite, --existing skip or another --out."
        )


def _leave_out_finished(files: Sequence["ImageFile"], out: Path, request: dict[str, Any]) -> list["ImageFile"]:
    remaining = []
    for file in files:
        results = ResultFiles.of(file, out)
        if not os.path.lexists(results.description):
            remaining.append(file)
        elif results.read_request() != (str(file.path), request):
            raise ValueError(
                f"Expected {results.description} to be of {file.path} with the same settings, but it is of another "
                "image or other settings. Use --existing overwrite or another --out."
            )
    if len(remaining) < len(files):
        say(f"{len(files) - len(remaining)} of {len(files)} images are finished already.")
    return remaining


def _segment_files(files: Sequence["ImageFile"], out: Path, request: dict[str, Any], loaded: "Loaded") -> int:
    """Segment every file and write its results; the number of files that failed."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

    from ..image_errors import find_image_error

    done, failed = 0, 0
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        try:
            for file in progress.track(files, description="Segmenting"):
                try:
                    results = _check_names(ResultFiles.of(file, out))
                    result, seconds = _segment_file(file.path, loaded)
                except Exception as error:
                    reason = str(error) if isinstance(error, OSError) else find_image_error(error)
                    if reason is None:
                        raise
                    failed += 1
                    warn(f"{file.path}: {' '.join(reason.split())}")
                    continue
                _write_result(results, result, {"image": str(file.path), "settings": request, "seconds": seconds})
                done += 1
                say(f"{file.path} -> {results.overlay}: {result.summarize()}")
        except KeyboardInterrupt as stop:
            current = files[min(done + failed, len(files) - 1)].path
            advice = "To go on, run it again with --existing skip."
            raise type(stop)(f"{done} of {len(files)} images are done, not {current}. {advice}") from None
    return failed


def _segment_file(path: Path, loaded: "Loaded") -> tuple["SegmentedImage", float]:
    """The result, and the seconds that it took."""
    from .images import read_image_file, segment_image

    start = time.perf_counter()
    result = segment_image(read_image_file(path), *loaded)
    return result, round(time.perf_counter() - start, 3)


def _check_names(results: ResultFiles) -> ResultFiles:
    longest = results.confidence.name
    if len(os.fsencode(longest)) > LONGEST_NAME:
        raise ValueError(
            f"Expected a name that leaves room for its results' names, but {longest} has more than {LONGEST_NAME} "
            "bytes. Rename the image."
        )
    return results


def _write_result(paths: ResultFiles, result: "SegmentedImage", origin: dict[str, Any]) -> None:
    from ..drawing import make_palette, to_grey_image, to_indexed_image
    from ..files import write_json, write_png

    write_png(paths.labels, to_indexed_image(result.labels, make_palette(result.has_background)))
    write_png(paths.overlay, result.draw())
    if origin["settings"]["confidence"]:
        write_png(paths.confidence, to_grey_image(result.confidence))
    size = {"height": result.image.height, "width": result.image.width}
    write_json(paths.description, {**origin, **size, "classes": result.describe_classes()})
