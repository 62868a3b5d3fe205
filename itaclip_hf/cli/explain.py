"""`itaclip explain`: why images are segmented as they are, for classes named on the command line."""

import itertools
from pathlib import Path
from typing import Annotated

import typer

from ..plain_text import show_name
from .options.classes import ClassOptions
from .options.model import ModelOptions
from .options.processes import DeviceOption
from .options.settings import SettingOptions
from .results import tell_failure
from .terminal import say, warn

__all__ = ["explain"]


def explain(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE", help="Images, and folders of images.")],
    words: ClassOptions,
    model: ModelOptions,
    settings: SettingOptions,
    at: Annotated[
        str | None,
        typer.Option(metavar="X,Y", help="Also show what the patch at this pixel looks at, in every block."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the results; those of earlier runs are replaced.")] = Path(
        "itaclip_explained"
    ),
    device: DeviceOption = "auto",
) -> None:
    """Tell why images are segmented as they are: which words won where, by how much, and what changes without each.

    Prints two tables for each image and writes NAME_explained.png (classes, words that won, leads, runners-up),
    NAME_explained.json (all figures) and, with --at, NAME_attention.png: the attention of a patch over the blocks.
    An image that cannot be explained is reported, the others are done, and the exit code is 1.
    """
    from ..files import own_results, reading_input, refuse_foreign_results, refuse_long_names, write_json, write_png
    from ..media.pictures import find_images, find_seen_size, read_picture
    from ..processing.pixels import describe_reduction

    place = None if at is None else _read_place(at)
    vocabulary = words.read() or model.own_vocabulary()
    if vocabulary is None:
        raise ValueError(
            'Expected the words to explain, but got none. Add --classes "cat; dog, puppy", also for a model that has '
            "some: it keeps no words."
        )
    files = find_images(images, out)
    others = [str(file.path) for file in files if file.kind != "picture"]
    if others:
        raise ValueError(f"Expected pictures to explain, but {others[0]} is none. Take a frame or a part of it.")
    from ..explaining import explain as explain_image  # not before: a wrong option is told at once

    kinds = ("explained.png", "explained.json", *(["attention.png"] if place else []))
    results = [[out / f"{file.result_name}_{kind}" for kind in kinds] for file in files]
    for folder, those in itertools.groupby(sorted(itertools.chain(*results)), lambda path: path.parent):
        refuse_foreign_results(folder, [path.name for path in those])
    loaded = model.load(settings, device)
    failed, is_noted = 0, False
    for file, paths in zip(files, results, strict=True):
        picture, figures, *attention = paths
        try:
            refuse_long_names(paths)
            with reading_input():
                image = read_picture(file.path, file.frame)
            size = (image.height, image.width)
            reduction = describe_reduction(size, find_seen_size(size, loaded.processor, None))
            if reduction and not is_noted:  # once is enough
                is_noted = True
                advice = "To explain details, raise --shortest-edge and --longest-edge."
                warn(f"Note: {show_name(file)} {reduction} {advice}", "yellow")
            with own_results(picture.parent, [path.name for path in paths]):
                found = explain_image(image, *loaded, vocabulary, place)
                write_png(picture, found.draw())
                for path in attention:
                    write_png(path, found.draw_attention())
                write_json(figures, {"image": str(file.path), "model": model.model, **found.to_json()})
        except Exception as error:
            tell_failure(file, error)
            failed += 1
            continue
        say(f"{show_name(file)} -> {show_name(picture)}\n\n{found.to_markdown()}")
    if failed:
        warn(f"{failed} of {len(files)} images failed; see the lines above.")
        raise typer.Exit(1)


def _read_place(text: str) -> tuple[int, int]:
    try:
        x, y = map(int, text.split(","))
    except ValueError:
        raise ValueError(f'Expected a pixel as "X,Y", such as 120,80, but got {text!r}. Write two numbers.') from None
    return x, y
