"""Progress of an evaluation on disk: kill it at any moment, start it again, and no image is lost or counted twice.

Every process writes the images it has scored as a part file of its own, atomically. Done is what lies in parts; the
rest is dealt out anew at the next start, to however many processes there are then. The settings lie beside the parts,
and other settings are refused.
"""

import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ...files import read_json, refuse_others, remove_leftovers, write_json
from ..metrics.image_counts import ImageCounts

__all__ = ["ProgressFolder"]

_ABSENT = object()  # equals no JSON value


class ProgressFolder:
    """The progress files of one evaluation.

    Args:
        folder: Where they lie; with several machines a folder that all of them share.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self._settings_path = self.folder / "settings.json"
        # A folder itself, as `locked_folder` locks it, cannot be locked on network file systems nor on Windows.
        self._lock = FileLock(str(self.folder / "lock"), timeout=0)

    def start(self, settings: Mapping[str, Any], restart: bool = False) -> None:
        """Prepares the folder for a run with these settings; the main process alone calls it.

        Args:
            settings: Everything that changes the result, as JSON values.
            restart: Whether earlier progress is thrown away.

        Raises:
            BlockingIOError: Another run is at work in this folder.
            FileExistsError: It holds parts of something else.
            ValueError: Earlier progress was made with other settings; the message lists the differences.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire()  # the system lets go of it when the process ends, however it ends
        except Timeout:
            raise BlockingIOError(
                f"Expected {self.folder} for this run alone, but another evaluation is at work there. "
                "Wait for it, or choose another `--out`."
            ) from None
        remove_leftovers(self.folder)
        for leftover in self.folder.glob(".run-*"):
            leftover.unlink()
        if restart:
            self._clear()
        if self._settings_path.exists():
            self._check_settings(settings)
        else:
            refuse_others(self.folder.glob("part-*.npz"))  # ours are never without settings
            write_json(self._settings_path, settings)

    def finish(self) -> None:
        """Lets other runs into the folder; the progress stays."""
        self._lock.release()

    def read(self, num_classes: int) -> ImageCounts:
        """Everything scored so far, in the dataset's order.

        Raises:
            ValueError: A part cannot be read, or two differ about an image.
        """
        parts = (ImageCounts.load(path) for path in sorted(self.folder.glob("part-*.npz")))
        return ImageCounts.merge(num_classes, parts)

    def write_part(self, counts: ImageCounts) -> None:
        """Adds scored images; they count as done from the moment the file has its name."""
        if len(counts):
            counts.save(self.folder / f"part-{int(counts.indices[0]):08d}-{uuid.uuid4().hex[:12]}.npz")

    def _clear(self) -> None:
        for path in self.folder.glob("part-*.npz"):  # before the settings: parts must never meet other settings
            path.unlink()
        self._settings_path.unlink(missing_ok=True)

    def _check_settings(self, settings: Mapping[str, Any]) -> None:
        before = _flatten(read_json(self._settings_path))
        now = _flatten(json.loads(json.dumps(settings)))
        changes = [
            f"  {key}: {before.get(key, '(absent)')} → {now.get(key, '(absent)')}"
            for key in sorted(before.keys() | now.keys())
            if before.get(key, _ABSENT) != now.get(key, _ABSENT)
        ]
        if changes:
            listed = "\n".join(changes[:20])
            raise ValueError(
                f"Expected the settings with which {self.folder} was begun, but {len(changes)} changed:\n{listed}\n"
                "Choose another `--out`, use the former settings to resume, or `--restart` to throw the progress away."
            )


def _flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one mapping with dotted keys."""
    if not isinstance(value, Mapping):
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, item in value.items():
        flat.update(_flatten(item, f"{prefix}.{key}" if prefix else str(key)))
    return flat
