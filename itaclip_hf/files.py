"""Files that are whole or not there, and that take nobody's place.

Written beside their place, flushed to the disk, then renamed. Folders of results remember what is in them, so that
another file of such a name is never overwritten.
"""

import contextlib
import functools
import hashlib
import json
import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from PIL import Image

try:
    import fcntl
except ImportError:  # Windows has none
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "LONGEST_NAME",
    "TEMPORARY_SUFFIX",
    "is_own_png",
    "locked_folder",
    "own_results",
    "read_json",
    "read_text",
    "reading_input",
    "refuse_foreign_results",
    "refuse_inputs",
    "refuse_long_names",
    "refuse_others",
    "remove_leftovers",
    "remove_unfinished",
    "run_uninterrupted",
    "write_atomically",
    "write_json",
    "write_png",
    "write_text",
]

T = TypeVar("T")

TEMPORARY_SUFFIX = ".itaclip-tmp"
LONGEST_NAME = 255  # bytes, of a file in a folder, on nearly every file system
PNG_MARK = ("Software", "itaclip_hf")
RECORD = Path("progress", "results.json")
"""What a folder of results has in it, with a hash of what is finished; in the folder that runs keep progress in."""


@contextlib.contextmanager
def write_atomically(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A binary file that takes its place only if the block ends without an error."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    _tidy_once(target.parent)
    try:
        with _open_temporary(target.parent) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # a rename may reach the disk before the content does
            if fcntl is None:
                file.close()  # Windows renames no open file
            os.replace(file.name, target)  # still locked: others take what nobody has locked for a leftover
    except OSError as error:
        if error.errno is not None and (error.filename is None or str(error.filename).endswith(TEMPORARY_SUFFIX)):
            raise type(error)(error.errno, error.strerror, str(target)) from error  # as where the disk is full
        raise


def run_uninterrupted(make: Callable[[], T]) -> T:
    """What a short function gives, which Ctrl-C and signals do not cut off: only main threads see them.

    An archive that is left half made would complain when it is let go, or end with an error of its own.
    """
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(make).result()


_unfinished: set[Path] = set()


def remove_unfinished() -> None:
    """Removes what this process was writing; a signal may come between any two steps, also on the way out."""
    for path in tuple(_unfinished):
        path.unlink(missing_ok=True)
        _unfinished.discard(path)


def remove_leftovers(folder: str | os.PathLike[str]) -> None:
    """Removes what killed processes have left half written; files that are being written stay."""
    for path in Path(folder).glob(f".*{TEMPORARY_SUFFIX}"):
        with contextlib.suppress(OSError), path.open("rb") as file:  # Windows keeps open files by itself
            if fcntl is None or _lock(file.fileno()):
                path.unlink()


_tidy_once = functools.cache(remove_leftovers)  # a folder may have many files, and this looks at all of them


@contextlib.contextmanager
def _open_temporary(folder: Path) -> Iterator[IO[bytes]]:
    """A new file, locked to tell that it is being written; what is not renamed in the block goes with it."""
    while True:
        path = folder / f".{uuid.uuid4().hex[:8]}{TEMPORARY_SUFFIX}"  # short: names may be of full length
        _unfinished.add(path)
        try:
            with path.open("wb") as file:
                if _lock(file.fileno()) is not False and path.exists():
                    yield file
                    return
                # Another process took it for a leftover, before it was locked.
        finally:
            path.unlink(missing_ok=True)
            _unfinished.discard(path)


def _lock(descriptor: int) -> bool | None:
    """Whether this process alone has the file or folder now; `None` if the system cannot tell."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the system lets go of it however the process ends
    except BlockingIOError:
        return False
    except OSError:  # some network file systems
        return None
    return True


_held: set[int] = set()


def _let_go_after_fork() -> None:
    """Worker processes outlive a killed parent by seconds, and would keep its folders; its files are not theirs."""
    _unfinished.clear()
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go_after_fork)


@contextlib.contextmanager
def locked_folder(folder: str | os.PathLike[str]) -> Iterator[None]:
    """A folder that no other command writes into during the block; it is made if it is missing.

    Raises:
        BlockingIOError: If another one is at work there.
    """
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    if fcntl is None:
        yield
        return
    descriptor = os.open(place, os.O_RDONLY)
    _held.add(descriptor)
    try:
        if _lock(descriptor) is False:
            raise BlockingIOError(
                f"Expected {place} for this run alone, but another one is at work there. Wait for it, or choose "
                "another `--out`."
            )
        yield
    finally:
        _held.discard(descriptor)
        os.close(descriptor)


@contextlib.contextmanager
def own_results(folder: str | os.PathLike[str], names: Iterable[str]) -> Iterator[None]:
    """A folder that is locked and may get files of these names, which from then on are known to be results.

    Args:
        folder: Where they will be written; made if missing.
        names: Files and folders below it, but for that of the progress.

    Raises:
        FileExistsError: If one of them is there and is no earlier result, or was changed since.
        BlockingIOError: If another command is at work there.
    """
    place, wanted = Path(folder), set(names)
    with locked_folder(place):
        known = refuse_foreign_results(place, wanted)
        # Without a hash until the end: a run that is killed leaves files of any content, and they are its own.
        write_json(place / RECORD, {**known, **dict.fromkeys(sorted(wanted))})
        is_finished = False
        try:
            yield
            is_finished = True
        finally:
            there = {name: _hash_content(place / name) for name in sorted(wanted) if os.path.lexists(place / name)}
            if not is_finished:  # what it has not touched stays protected
                there = {name: value if value == known.get(name) else None for name, value in there.items()}
            others = {name: value for name, value in known.items() if name not in wanted}
            with contextlib.nullcontext() if is_finished else contextlib.suppress(OSError):
                write_json(place / RECORD, {**others, **there})


def refuse_foreign_results(folder: str | os.PathLike[str], names: Iterable[str]) -> dict[str, str | None]:
    """Makes sure that whatever has these names in a folder is an earlier result as it was.

    Args:
        folder: Where results will be written.
        names: Files and folders below it.

    Returns:
        The results that are known there, with the hash of each that is finished.

    Raises:
        FileExistsError: If one of them is there and is no earlier result, or was changed since.
        ValueError: If what the folder remembers cannot be read.
    """
    place = Path(folder)
    known = _read_record(place)
    refuse_others(
        [place / name for name in sorted(names)],
        lambda path: path.name in known and known[path.name] in (None, _hash_content(path)),
    )
    return known


def refuse_others(paths: Iterable[Path], is_own: Callable[[Path], bool] = lambda path: False) -> None:
    """Makes sure that nobody's files are where results will be.

    Args:
        paths: Files that will be written.
        is_own: Tells an earlier result from another file; by default every file is another one.

    Raises:
        FileExistsError: If one of them is another file.
    """
    for path in paths:
        if os.path.lexists(path) and not is_own(path):
            raise FileExistsError(
                f"Expected {path} to be an earlier result, but it is another file, or was changed since. Use another "
                "--out, or move it away."
            )


def refuse_long_names(paths: Iterable[Path]) -> None:
    """Makes sure that the file system takes the names of an image's results.

    Args:
        paths: Files that will be written.

    Raises:
        ValueError: If one is too long.
    """
    # In bytes, as file systems count; which end is the longest depends on the kind of input.
    longest = max((path.name for path in paths), key=lambda name: len(os.fsencode(name)))
    if len(os.fsencode(longest)) > LONGEST_NAME:
        raise ValueError(
            f"Expected a name that leaves room for its results' names, but {longest} has more than {LONGEST_NAME} "
            "bytes. Rename the image."
        )


def refuse_inputs(folder: str | os.PathLike[str], inputs: Iterable[Path | None]) -> None:
    """Makes sure that no input is a result that would be written again.

    Args:
        folder: Where results will be written.
        inputs: Files that will be read.

    Raises:
        ValueError: If one is.
    """
    place = Path(os.path.realpath(folder))
    for path in filter(None, inputs):
        if Path(os.path.realpath(path)).parent == place and path.name in _read_record(place):
            raise ValueError(f"Expected inputs that stay, but {path} is a result to be replaced. Use another --out.")


def _read_record(folder: Path) -> dict[str, str | None]:
    """The results in a folder by name, with the hash of each that is finished."""
    record = folder / RECORD
    if record.is_file():
        known = read_json(record)
        if isinstance(known, list) and all(isinstance(name, str) for name in known):
            return dict.fromkeys(known)  # of runs that kept no hashes
        if not (isinstance(known, dict) and all(isinstance(value, str | None) for value in known.values())):
            raise ValueError(
                f"Expected the names of results in {record}, but got something else. Use another --out, or remove it "
                "if all results beside it may be replaced."
            )
        return known
    if record.parent.is_dir():
        refuse_others(path for path in record.parent.iterdir() if path.suffix != TEMPORARY_SUFFIX)
    return {}


def _is_content(path: Path) -> bool:
    """Whether a file in a folder of results is one: other programs leave files of their own there."""
    is_foreign = path.name.startswith(".") or path.suffix == ".cache" or path.name in ("Thumbs.db", "desktop.ini")
    is_ours = path.is_symlink() or path.is_file()
    return is_ours and not is_foreign and RECORD.parent.name not in path.parts


def _hash_content(path: Path) -> str | None:
    """A hash of a file, or of all files in a folder with their names; none of what is not there."""
    files = sorted(filter(_is_content, path.rglob("*"))) if path.is_dir() else [path]
    digest = hashlib.sha256()
    for each in files:
        if each.is_symlink():  # to an original, which may change
            digest.update(os.fsencode(os.readlink(each)))
            continue
        if not each.is_file():
            return None
        digest.update(f"{each.relative_to(path).as_posix()}\n".encode("utf-8", "surrogateescape"))
        with each.open("rb") as file:
            for block in iter(lambda: file.read(2**20), b""):
                digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def reading_input() -> Iterator[None]:
    """While an input is opened: what the system says against it is no fault of writing, which would end a command.

    Raises:
        ValueError: Instead of any OSError.
    """
    try:
        yield
    except OSError as error:
        raise ValueError(str(error)) from error


def read_text(path: str | os.PathLike[str]) -> str:
    """Reads a UTF-8 text file.

    Raises:
        OSError: If there is none, or it is a folder, a pipe or a device, which may never end.
        ValueError: If it is not UTF-8.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        raise OSError(f"Expected a file, but {path} is a folder, a pipe or a device. Name a file.")
    try:
        return Path(path).read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise FileNotFoundError(f"Expected a file, but there is no {path}. Correct the path.") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"Expected UTF-8 text in {path}, but got other bytes ({error}). Convert the file.") from error


def read_json(path: str | os.PathLike[str]) -> Any:
    """Reads a JSON file.

    Raises:
        OSError: See `read_text`.
        ValueError: If it is no JSON.
    """
    try:
        return json.loads(read_text(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"Expected JSON in {path}, but got something else ({error}). Correct the file.") from error


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
