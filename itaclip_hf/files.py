"""Files that are whole or not there: written beside their place, flushed to the disk, then renamed."""

import contextlib
import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["TEMPORARY_SUFFIX", "is_own_png", "write_atomically", "write_json", "write_png", "write_text"]

TEMPORARY_SUFFIX = ".itaclip-tmp"
PNG_MARK = ("Software", "itaclip_hf")


@contextlib.contextmanager
def write_atomically(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A binary file that takes its place only if the block ends without an error."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{uuid.uuid4().hex[:8]}{TEMPORARY_SUFFIX}")  # short: names may be of full length
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # a rename may reach the disk before the content does
        os.replace(temporary, target)
    except OSError as error:
        if error.errno is not None and error.filename is None:  # as where the disk is full
            raise type(error)(error.errno, error.strerror, str(target)) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes a UTF-8 text file atomically; what UTF-8 lacks, such as a broken file name, is written as an escape."""
    with write_atomically(path) as file:
        file.write(text.encode("utf-8", "backslashreplace"))


def write_json(path: str | os.PathLike[str], content: Any) -> None:
    """Writes a JSON file atomically; nan, which JSON lacks, is refused."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_png(path: str | os.PathLike[str], image: "Image.Image") -> None:
    """Writes a picture atomically, with a mark that tells it from others' files."""
    from PIL.PngImagePlugin import PngInfo

    mark = PngInfo()
    mark.add_text(*PNG_MARK)
    with write_atomically(path) as file:
        image.save(file, "PNG", pnginfo=mark)


def is_own_png(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a picture that `write_png` wrote."""
    from PIL import Image

    try:
        with Image.open(path, formats=["PNG"]) as image:
            return image.info.get(PNG_MARK[0]) == PNG_MARK[1]
    except (OSError, SyntaxError, ValueError):
        return False
