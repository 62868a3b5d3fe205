"""From the ids in a dataset's label files to class ids: which raw id is which class, and which pixels are not scored.

A raw id that a mapping does not know is an error of the file, never a silent guess.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..metrics.confusion_matrix import IGNORED

__all__ = ["LabelIdError", "LabelMapping"]

_UNKNOWN = -2
_TABLE_SIZE = 1 << 16


class LabelIdError(ValueError):
    """A label file holds ids that its dataset does not have."""


@dataclass(frozen=True)
class LabelMapping:
    """Raw label ids to class ids.

    Args:
        class_ids: Raw id → class id, from 0.
        ignored: Raw ids of pixels that are not scored.

    Example:
        >>> import numpy as np
        >>> LabelMapping.shifted(150, first=1, ignored=(0,)).apply(np.array([[0, 1, 150]]))
        array([[ -1,   0, 149]], dtype=int32)
    """

    class_ids: Mapping[int, int]
    ignored: frozenset[int] = frozenset()
    _table: NDArray[np.int32] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        raw_ids = [*self.class_ids, *self.ignored]
        if min(raw_ids) < 0 or max(raw_ids) >= _TABLE_SIZE:
            raise ValueError(
                f"Expected raw label ids in 0…{_TABLE_SIZE - 1}, but got {min(raw_ids)} to {max(raw_ids)}."
            )
        both = sorted(self.ignored & self.class_ids.keys())
        if both:
            raise ValueError(f"Expected a raw id to be a class or ignored, but {both} are both.")
        table = np.full(_TABLE_SIZE + 1, _UNKNOWN, dtype=np.int32)  # the last entry is for all other ids
        table[list(self.ignored)] = IGNORED
        table[list(self.class_ids.keys())] = list(self.class_ids.values())
        object.__setattr__(self, "_table", table)

    @classmethod
    def shifted(cls, num_classes: int, first: int = 0, ignored: Iterable[int] = (255,)) -> "LabelMapping":
        """Classes lie in a row from raw id `first` on."""
        return cls({first + index: index for index in range(num_classes)}, frozenset(ignored))

    @property
    def num_classes(self) -> int:
        """Number of classes that raw ids map to."""
        return max(self.class_ids.values()) + 1

    def check_classes(self, labels: Sequence[str]) -> None:
        """Makes sure that a vocabulary has a label for each class.

        Raises:
            ValueError: It has more or fewer.
        """
        if len(labels) != self.num_classes:
            raise ValueError(
                f"Expected as many classes in the vocabulary as in the dataset's labels ({self.num_classes}), but got "
                f"{len(labels)}. Check the vocabulary and its background."
            )

    def apply(self, raw: NDArray[Any]) -> NDArray[np.int32]:
        """Class ids of a raw label map.

        Args:
            raw: (height, width) raw ids.

        Returns:
            (height, width) class ids; `IGNORED` where pixels are not scored.

        Raises:
            LabelIdError: An id is neither a class nor ignored.
        """
        if raw.ndim != 2 or raw.dtype.kind not in "iub":
            raise LabelIdError(
                f"Expected a label map of one integer channel, but got shape {raw.shape} of {raw.dtype}. "
                "Save class ids as palette or greyscale PNG."
            )
        # What lies outside the table comes to its last entry, from both sides. As int64, because a boolean array would
        # select instead of look up, and the lookup is fastest so.
        mapped = self._table[np.clip(raw.astype(np.int64), -1, _TABLE_SIZE)]
        unknown = mapped == _UNKNOWN
        if unknown.any():
            raise LabelIdError(f"Expected {self._describe()}, but got {_shorten(np.unique(raw[unknown]).tolist())}.")
        return mapped

    def describe(self) -> dict[str, Any]:
        """The mapping as JSON values."""
        return {
            "class_ids": {str(raw): class_id for raw, class_id in sorted(self.class_ids.items())},
            "ignored": sorted(self.ignored),
        }

    def _describe(self) -> str:
        ids = sorted(self.class_ids)
        known = f"{ids[0]}…{ids[-1]}" if len(ids) == ids[-1] - ids[0] + 1 else _shorten(ids)
        ignored = f" or {_shorten(sorted(self.ignored))} (not scored)" if self.ignored else ""
        return f"label ids {known}{ignored}"


def _shorten(ids: list[int]) -> str:
    return ", ".join(map(str, ids)) if len(ids) <= 12 else f"{', '.join(map(str, ids[:10]))}, … {ids[-1]}"
