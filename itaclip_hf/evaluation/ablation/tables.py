"""Ablation tables as declared data: rows as changes of settings, with the published figures.

A row starts from the full method with a benchmark's settings, applies what its table changes in all rows (`base`),
then its own changes. Setting names are those of methods: fields of the configuration and of the processor, and besides
`method` (start from that method instead, or run that system of its own), `model` (another checkpoint), `proxy` (the
backbone whose patches the method compares), `second_checkpoint` (which a system may need beside it) and `background`
(other background words).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ...methods import check_setting
from ...methods.settings import SETTING_NAMES

__all__ = ["AblationRow", "AblationTable", "check_settings"]

OWN_KEYS = ("method", "model", "proxy", "second_checkpoint", "background")
"""What a row may change beside settings."""


@dataclass(frozen=True)
class AblationRow:
    """One row.

    Args:
        name: What the table calls it.
        settings: What it changes.
        published: By benchmark, the published mIoU in percent.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    published: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class AblationTable:
    """One table.

    Args:
        name: What the command line and files call it.
        title: Its heading.
        rows: Its rows.
        reference: Name of the row that all others are compared with; the first one if left out.
        base: Settings that all rows share, where they are not the full method's.
        number: Its number in the paper.
        note: What a reader must know.

    Raises:
        ValueError: If there are fewer than two rows, names are not unique, or a setting or the reference is unknown.
    """

    name: str
    title: str
    rows: tuple[AblationRow, ...]
    reference: str = ""
    base: Mapping[str, Any] = field(default_factory=dict)
    number: int | None = None
    note: str = ""

    def __post_init__(self) -> None:
        names = [row.name for row in self.rows]
        if len(names) < 2:
            raise ValueError(f"Expected at least two rows in the table {self.name!r}, but got {len(names)}.")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"Expected row names once in the table {self.name!r}, but got {', '.join(twice)} twice.")
        if not self.reference:
            object.__setattr__(self, "reference", names[0])
        if self.reference not in names:
            raise ValueError(
                f"Expected the reference of the table {self.name!r} to be one of its rows ({', '.join(names)}), but "
                f"got {self.reference!r}."
            )
        for place, settings in (("base", self.base), *((f"row {row.name!r}", row.settings) for row in self.rows)):
            try:
                check_settings(settings)
            except (TypeError, ValueError) as error:
                raise type(error)(f"In {place} of the table {self.name!r}: {error}") from None


def check_settings(settings: Mapping[str, Any]) -> None:
    """Make sure that settings are known, and of the right type and range.

    Raises:
        TypeError: If a value is of another type than its setting's.
        ValueError: If there is no setting of a name, or a value is out of its range.
    """
    for name, value in settings.items():
        if name in OWN_KEYS:
            expected = list | tuple if name == "background" else str
            if not isinstance(value, expected):
                kind = "a list of words" if name == "background" else "a name"
                raise TypeError(f"Expected `{name}` to be {kind}, but got {value!r}.")
        elif name not in SETTING_NAMES:
            known = ", ".join((*SETTING_NAMES, *OWN_KEYS))
            raise ValueError(f"Expected settings out of {known}, but got {name}.")
        else:
            check_setting(name, value)
