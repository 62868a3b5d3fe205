"""Options about the method: one by name, a preset, and every single setting, derived from `itaclip_hf.methods`."""

import sys
from dataclasses import dataclass, make_dataclass, replace
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...methods.settings import (
    PRESETS,
    SETTING_NAMES,
    VOTE_NAME,
    check_setting,
    describe_setting,
    get_preset,
    setting_fields,
)
from ..terminal import warn

if TYPE_CHECKING:
    from ...methods import Settings

__all__ = ["SettingOptions", "name_option"]

_METAVARS = {int: "INT", float: "FLOAT", str: "NAME"}


def _make_option(name: str) -> Any:
    """A setting as option. Its text is read in `SettingOptions.changes`, because "none" may be a value, too."""
    metadata = setting_fields()[name].metadata
    values = metadata["values"]
    if values.type is bool:
        return Annotated[bool | None, typer.Option(help=metadata["help"])]
    metavar = _METAVARS[values.type] + (",..." if values.is_list else "")
    return Annotated[str | None, typer.Option(help=describe_setting(name), metavar=metavar)]


@dataclass(frozen=True)
class _MethodOptions:
    """What is not one option a setting, and what is done with all of them."""

    panel = "Settings"

    method: Annotated[
        str | None,
        typer.Option(
            help="clip, maskclip, sclip, clearclip, naclip or itaclip; `itaclip evaluate` also knows the systems of "
            "docs/methods.md, such as tagclip; or FILE.py:NAME, where FILE.py registers the method NAME. Default: "
            "what the checkpoint says, which is ITACLIP for a CLIP checkpoint.",
        ),
    ] = None
    preset: Annotated[
        str | None,
        typer.Option(
            metavar="|".join(PRESETS),
            help="How finely windows are moved over the image, or, live, the whole image in one piece; by default as "
            "the method does (ITACLIP: paper).",
        ),
    ] = None

    def __post_init__(self) -> None:
        self.changes()  # a wrong value is told at once
        if self.preset is not None:
            get_preset(self.preset)

    def given(self) -> dict[str, str | bool]:
        """What was given of all these options, as it stands on the command line."""
        return {name: text for name, text in vars(self).items() if text is not None}

    def changes(self) -> dict[str, Any]:
        """The settings that were given, by name.

        Raises:
            TypeError: If a value is of another type than its setting's.
            ValueError: If a value is out of its range.
        """
        texts = {name: text for name, text in self.given().items() if name in SETTING_NAMES}
        return {name: check_setting(name, _read_value(name, text)) for name, text in texts.items()}

    def refuse_idle(self, used: "Settings") -> None:
        """Refuse options that change nothing beside the others; they would be ignored in silence.

        Args:
            used: The settings that came of them.

        Raises:
            ValueError: If one was given.
        """
        for name, other in used.find_idle(self.changes()).items():
            raise ValueError(
                f"Expected no {name_option(name)}, as it changes nothing where `{other}` is {getattr(used, other)!r}, "
                f"but got one. Leave it out, or change {name_option(other)}."
            )

    def with_regions(self: Any, regions: str | None) -> Any:
        """These options where regions come from such a place: they vote, unless it was said that they do not.

        Raises:
            ValueError: If they are to vote, and there are none.
        """
        vote = getattr(self, VOTE_NAME)
        if regions is None and vote:
            raise ValueError(
                "Expected --regions with --region-vote, but got none. Say where they are, or leave it out."
            )
        return self if regions is None or vote is not None else replace(self, **{VOTE_NAME: True})

    def warn_of_missing_regions(self, used: "Settings", regions: str | None) -> None:
        """Say that a method goes without the regions that it is made for.

        Args:
            used: The settings that came of these options.
            regions: Where regions come from, if they do.
        """
        if regions is None and used.takes_regions:
            warn("This method looks at regions and gets none: what it does with them is left out. See --regions.")

    def resolve_method(self) -> str | None:
        """The name of the method, which is known from then on: of settings of our model, or of another system.

        Raises:
            ValueError: If there is no such method or file.
        """
        from ...methods import get_method, published_systems

        if self.method is None:
            return None
        file, _, name = self.method.rpartition(":")
        if file.endswith(".py"):
            _run_file(Path(file).resolve())
        else:
            name = self.method
        return name if name in published_systems() else get_method(name).name


_Fields: Any = make_dataclass(
    "_Fields", [(name, _make_option(name), None) for name in SETTING_NAMES], bases=(_MethodOptions,), frozen=True
)


class SettingOptions(_Fields):
    """The method and what is changed of its settings; options that are not given change nothing."""


def name_option(name: str) -> str:
    """What the command line calls a setting."""
    return f"--{name.replace('_', '-')}"


def _read_value(name: str, text: str | bool) -> Any:
    """What a text stands for; one that is no number stays text, for `check_setting` to refuse."""
    if isinstance(text, bool):
        return text
    values = setting_fields()[name].metadata["values"]
    is_none = text.strip().lower() in ("", "none")
    if values.is_list:
        return [] if is_none else [_convert(entry.strip(), values.type) for entry in text.split(",")]
    return None if is_none else _convert(text, values.type)


def _convert(text: str, kind: type) -> Any:
    try:
        return kind(text)
    except ValueError:
        return text


@cache  # the method is asked for several times, and registers itself once
def _run_file(path: Path) -> None:
    spec = spec_from_file_location(path.stem, path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise ValueError(f"Expected a Python file in `--method FILE.py:NAME`, but there is no {path}.")
    module = module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)  # where its classes are looked for, should they be pickled
    spec.loader.exec_module(module)
