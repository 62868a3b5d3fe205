"""Groups of options: a command takes an instance of each group, and `--help` shows a panel for each.

A group is a dataclass whose fields are options, `Annotated[type, typer.Option(...)]` with their defaults, and whose
`panel` is its heading. A command that gives its parameter an instance of the group has the defaults of that one.
"""

import functools
import inspect
import math
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

__all__ = ["take_groups"]


def take_groups(command: Callable[..., None]) -> Callable[..., None]:
    """The command as Typer reads it, with the fields of its groups in the place of each.

    Raises:
        ValueError: If two options of the command have one name.
    """
    groups: dict[str, Any] = {}
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        if is_dataclass(parameter.annotation):
            groups[parameter.name] = parameter.annotation
            parameters += _list_options(parameter)
        else:
            parameters.append(_as_option(parameter.name, parameter.default, *get_args(parameter.annotation)))

    @functools.wraps(command)
    def run(**values: Any) -> None:
        made = {
            name: group(**{field.name: values.pop(field.name) for field in fields(group)})
            for name, group in groups.items()
        }
        command(**values, **made)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _list_options(parameter: inspect.Parameter) -> Iterator[inspect.Parameter]:
    """The fields of a group as parameters, under its heading."""
    group = parameter.annotation
    defaults = group() if parameter.default is inspect.Parameter.empty else parameter.default
    for field in fields(group):
        kind, option = get_args(field.type)
        yield _as_option(field.name, getattr(defaults, field.name), kind, option, group.panel)


def _as_option(name: str, default: Any, kind: Any, option: Any, panel: str | None = None) -> inspect.Parameter:
    option = copy(option)  # commands share it
    option.rich_help_panel = panel
    if Path in (kind, *get_args(kind)):
        option.parser = _read_path
    if float in (kind, *get_args(kind)):
        option.callback = _expect_finite
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option])


def _read_path(text: str | Path) -> Path:
    """An empty text, as from a variable that was not set, is not the current folder."""
    if not str(text):
        raise typer.BadParameter("Expected a path, but got an empty one. For the current folder, write a dot.")
    return Path(text)


def _expect_finite(number: Any) -> Any:
    """Comparisons with nan are false, so that it passes bounds."""
    if number is not None and not math.isfinite(number):
        raise typer.BadParameter(f"Expected a number, but got {number}. Write one.")
    return number


_read_path.__name__ = "path"  # what help calls such values
