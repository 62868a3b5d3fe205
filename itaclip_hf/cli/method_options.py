"""The option `--method`: a training-free method by name, or one that a file of one's own makes known."""

import sys
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["MethodOption", "resolve_method"]

MethodOption = Annotated[
    str | None,
    typer.Option(
        "--method",
        help="clip, maskclip, sclip, clearclip, naclip or itaclip; or FILE.py:NAME, where FILE.py registers the "
        "method NAME. Default: what the checkpoint says, which is ITACLIP for a CLIP checkpoint.",
    ),
]


def resolve_method(text: str) -> str:
    """The name of a method that is known from then on.

    Args:
        text: Name of a method, or `FILE.py:NAME`; the file is run once.

    Raises:
        ValueError: If there is no such method or file.
    """
    from ..methods import get_method

    file, _, name = text.rpartition(":")
    if file.endswith(".py"):
        _run_file(Path(file).resolve())
    else:
        name = text
    return get_method(name).name


@cache
def _run_file(path: Path) -> None:
    spec = spec_from_file_location(path.stem, path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise ValueError(f"Expected a Python file in `--method FILE.py:NAME`, but there is no {path}.")
    module = module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)  # where its classes are looked for, should they be pickled
    spec.loader.exec_module(module)
