"""`itaclip segment`: label maps, overlays and class shares of images, for classes named on the command line."""

import os
import time
from collections.abc import Iterable, Iterator
from enum import Enum
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..media import FORMATS, KINDS, Foreseen, Format, ImageFile, Kind, Plan, ResultFiles, Track
from ..plain_text import show_name
from .options.classes import ClassOptions
from .options.media import MediaOptions
from .options.model import ModelOptions
from .options.processes import DeviceOption
from .options.settings import SettingOptions
from .results import (
    Tasks,
    leave_out_finished,
    protect_files,
    read_finished,
    tell_failure,
    write_description,
)
from .terminal import say, warn

if TYPE_CHECKING:
    from ..loading import Loaded

__all__ = ["segment"]


class Existing(str, Enum):
    """What to do with results of an earlier run."""

    refuse = "refuse"
    overwrite = "overwrite"
    skip = "skip"


def segment(
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE",
            help="Images, GeoTIFFs, videos, addresses of images, and folders; these are searched.",
        ),
    ],
    words: ClassOptions,
    model: ModelOptions,
    settings: SettingOptions,
    media: MediaOptions,
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
    score of each class). Images of folders keep their subfolders; a second image of the same name becomes NAME-2, and
    the frames of a GIF or pages of a TIFF become NAME_0001, NAME_0002, … A GeoTIFF gets a GeoTIFF of label ids, a
    video (name it, as folders are searched for images alone) a folder of label maps and a video of overlays.
    An image that cannot be read is reported, the others are done, and the exit code is 1.
    """
    from ..files import locked_folder, own_results
    from ..loading import name_dtype
    from ..media.pictures import find_images
    from ..methods import Settings

    vocabulary = words.read()
    tasks = [(file, _name_results(file, out)) for file in find_images(images, out, media.bands is not None)]
    if media != MediaOptions() or any(file.kind != "picture" for file, _ in tasks):
        media.refuse_idle(settings, [file for file, _ in tasks])
    plan = Plan(confidence, media.tile, list(media.bands) if media.bands else None, media.every or 1, media.regions)
    settings = settings.with_regions(media.regions)
    if media.regions is not None:
        from ..regions import open_regions

        open_regions(media.regions)
    _protect_files(tasks, existing)
    # What is not installed, or in the way, is told before a model is loaded.
    kinds = {name: _load_part(KINDS[name]) for name in {file.kind for file, _ in tasks}}
    formats = {out / FORMATS[name.value].place: _load_part(FORMATS[name.value]) for name in media.format or ()}
    if existing is Existing.refuse and (there := [place for place in formats if os.path.lexists(place)]):
        raise ValueError(f"Expected no {there[0]} yet, but it is there. Use --existing skip, or another --out.")
    loaded = model.load(settings, device, vocabulary or model.own_vocabulary())
    if not loaded.model.config.query_classes:
        raise ValueError(
            f'Expected classes, as {model.model} has none of its own, but got none. Add --classes "cat; dog; sky".'
        )
    if loaded.model.config.num_labels == 1:
        warn('Every pixel gets the one class that you name. Separate classes by ";", or add --background "wall".')
    used = Settings.of(*loaded)
    settings.warn_of_missing_regions(used, media.regions)
    request = {
        "model": model.model,
        "proxy": model.proxy,
        "method": settings.method,
        **used.to_json(),
        "dtype": name_dtype(loaded.model.dtype),
        "vocabulary": None if vocabulary is None else vocabulary.fingerprint,
        **plan._asdict(),
    }
    remaining = leave_out_finished(tasks, request) if existing is Existing.skip else tasks
    with own_results(out, [place.name for place in formats]) if formats else locked_folder(out):
        _protect_files(remaining, existing)  # once more, as another run may have come before
        failed = _segment_files(remaining, request, kinds, loaded, plan)
        if formats:
            finished = read_finished(tasks, request)
            for place, part in formats.items():
                part.write(finished, place)
                say(f"{len(finished)} images -> {place}")
    if failed:
        warn(f"{failed} of {len(remaining)} images failed; see the lines above.")
        raise typer.Exit(1)


def _name_results(file: ImageFile, out: Path) -> ResultFiles:
    base = out / file.result_name
    return ResultFiles(*(base.with_name(base.name + end) for end in KINDS[file.kind].ends))


def _protect_files(tasks: Tasks, existing: Existing) -> None:
    # Most runs begin with an empty folder: who follows one need not read what is done with earlier results.
    if any(os.path.lexists(path) for _, results in tasks for path in vars(results).values()):
        protect_files(tasks, may_replace=existing is not Existing.refuse)


def _segment_files(tasks: Tasks, request: dict[str, Any], kinds: dict[str, Any], loaded: "Loaded", plan: Plan) -> int:
    """Segment every file and write its results; the number of files that failed."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

    from ..files import reading_input, refuse_long_names
    from ..media.pictures import summarize_classes

    done, failed, is_noted = 0, 0, False
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        try:
            for file, results in progress.track(tasks, description="Segmenting"):
                start = time.perf_counter()
                try:
                    refuse_long_names(vars(results).values())
                    with reading_input():
                        opened = kinds[file.kind].open_input(file, plan)
                        foreseen = opened.foresee(loaded, plan)
                    is_noted = _note_what_to_know(file, foreseen, is_noted)
                    found = opened.segment(results, loaded, plan, _make_track(progress))
                except Exception as error:
                    tell_failure(file, error)
                    failed += 1
                    continue
                seconds = round(time.perf_counter() - start, 3)
                origin = {"image": str(file), "settings": request, "seconds": seconds}
                height, width = foreseen.size
                write_description(results, found, {**origin, "height": height, "width": width})
                done += 1
                say(f"{show_name(file)} -> {show_name(results.overlay)}: {summarize_classes(found.classes)}")
        except KeyboardInterrupt as stop:
            current, _ = tasks[min(done + failed, len(tasks) - 1)]
            advice = "To go on, run it again with --existing skip."
            raise type(stop)(f"{done} of {len(tasks)} images are done, not {current}. {advice}") from None
    return failed


def _note_what_to_know(file: ImageFile, foreseen: Foreseen, is_noted: bool) -> bool:
    """Say what a user would not see in the results; whether it is noted now that large images are seen smaller."""
    from ..processing.pixels import describe_reduction

    if foreseen.note:
        warn(f"Note: {foreseen.note}", "yellow")
    reduction = "" if is_noted else describe_reduction(foreseen.size, foreseen.seen)
    if reduction:  # once a run is enough
        advice = "To find small things, too, add --tile 1024 (its own resolution; many times the work)."
        warn(f"Note: {show_name(file)} {reduction} {advice}", "yellow")
    return is_noted or bool(reduction)


def _load_part(row: Kind | Format) -> Any:
    """The module of a kind or format, if what it needs is installed."""
    try:
        return import_module(f"..media.{row.module}", __package__)
    except ModuleNotFoundError as error:
        raise ImportError(
            f"Expected {error.name}, but it is not installed. Run `pip install 'itaclip_hf[{row.extra}]'`."
        ) from error


def _make_track(progress: Any) -> Track:
    """Shows steps within a file as a line of their own, as long as they last."""

    def track(steps: Iterable[Any], total: int | None, what: str) -> Iterator[Any]:
        task = progress.add_task(what, total=total)
        try:
            for step in steps:
                yield step
                progress.advance(task)
        finally:
            progress.remove_task(task)

    return track
