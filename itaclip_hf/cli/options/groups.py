"""Groups of options: a command takes an instance of each group, and `--help` shows a panel for each.

A group is a dataclass whose fields are options, `Annotated[type, typer.Option(...)]` with their defaults, and whose
`panel` is its heading. A command that gives its parameter an instance of the group has the defaults of that one.
"""

import functools
import inspect
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import fields, is_dataclass
from typing import Annotated, Any, get_args

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
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))

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
        option = copy(option)
        option.rich_help_panel = group.panel
        yield inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=getattr(defaults, field.name),
            annotation=Annotated[kind, option],
        )
