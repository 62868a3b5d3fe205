"""Every import points down: the rooms of the package, in the order that CONTRIBUTING.md gives."""

import ast
import re
from pathlib import Path

import pytest
from transformers.dynamic_module_utils import get_imports, get_relative_imports

PACKAGE = "itaclip_hf"
ROOT = Path(__file__).parents[1]
EXPORTED = ("modeling", "processing")


def read_floors(root: Path) -> dict[str, int]:
    """Rooms with their floor, 0 at the bottom, from the list in CONTRIBUTING.md."""
    page = (root / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```rooms\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    return {room: floor for floor, line in enumerate(block.splitlines()) for room in line.split()}


def find_room(path: str, rooms: dict[str, int]) -> str | None:
    """The narrowest room of a file, such as "evaluation/data" for "evaluation/data/benchmarks.py"."""
    parts = path.rpartition(".")[0].split("/")
    candidates = ("/".join(parts[:count]) for count in range(len(parts), 0, -1))
    return next((candidate for candidate in candidates if candidate in rooms), None)


def list_imports(path: str, files: set[str], root: Path) -> list[tuple[int, str]]:
    """Lines and files of the package that a file imports, at its top, in functions and for type checkers alike."""
    found = set()
    for node in ast.walk(ast.parse((root / PACKAGE / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            targets = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            # One dot is the file's folder, each further one a folder up.
            folder = [PACKAGE, *path.split("/")[:-1]]
            base = folder[: len(folder) - node.level + 1] if node.level else []
            base = [*base, *(node.module.split(".") if node.module else [])]
            targets = [[*base, alias.name] for alias in node.names]
        else:
            continue
        found |= {(node.lineno, find_file(target[1:], files)) for target in targets if target[0] == PACKAGE}
    return sorted(found)


def find_file(target: list[str], files: set[str]) -> str:
    """The file that a dotted name stands in: a module, else a name of the module or package before it."""
    for count in range(len(target), -1, -1):
        name = "/".join(target[:count])
        for path in (f"{name}.py", f"{name}/__init__.py" if name else "__init__.py"):
            if path in files:
                return path
    raise AssertionError(f"no file for {target}")


def list_files(root: Path) -> list[str]:
    # A stub of a package, with the names that it loads when they are asked for, imports as its code would.
    paths = (path for suffix in ("py", "pyi") for path in (root / PACKAGE).rglob(f"*.{suffix}"))
    return sorted(path.relative_to(root / PACKAGE).as_posix() for path in paths)


def list_violations(root: Path) -> list[str]:
    """Imports that point up or sideways, files without a room and rooms without a file."""
    rooms, files = read_floors(root), list_files(root)
    found = [f"{room}: no such room" for room in rooms if not any(find_room(path, rooms) == room for path in files)]
    for path in files:
        room = find_room(path, rooms)
        if room is None:
            found.append(f"{path}: stands in no room")
            continue
        for line, target in list_imports(path, set(files), root):
            other = find_room(target, rooms)
            if other is not None and other != room and rooms[other] >= rooms[room]:
                found.append(f"{path}:{line}: {room} imports {target}, which is no lower")
    return found


def test_every_import_points_down():
    assert not (violations := list_violations(ROOT)), "\n".join(["", *violations])


def test_registration_imports_nothing_of_the_package():
    assert not list_imports("auto_registration.py", set(list_files(ROOT)), ROOT)


@pytest.mark.parametrize("part", EXPORTED)
def test_exported_files_import_siblings_by_name_alone(part):
    folder = ROOT / PACKAGE / part
    for path in {*folder.glob("*.py")} - {folder / "__init__.py"}:
        # As Transformers finds them when it copies and loads; imports of the package are left out inside `try` alone.
        assert PACKAGE not in get_imports(path), path
        assert all((folder / f"{name}.py").is_file() for name in get_relative_imports(path)), path
        assert not re.search(r"^\s*from\s+\.\s+import", path.read_text(encoding="utf-8"), re.MULTILINE), path


def test_imports_of_every_kind_are_found(tmp_path):
    package = tmp_path / PACKAGE
    for path in ("__init__.py", "low.py", "high/__init__.py", "high/part.py", "side.py", "side.pyi"):
        (package / path).parent.mkdir(parents=True, exist_ok=True)
        (package / path).touch()
    (tmp_path / "CONTRIBUTING.md").write_text("```rooms\nlow  side  absent\nhigh\n__init__\n```\n")
    (package / "high" / "part.py").write_text(
        "from .. import low\nfrom . import part\nfrom ..side import x\nimport os\n"
    )
    (package / "__init__.py").write_text("from .high import part\n")
    (package / "side.py").write_text("from .low import x\n")
    (package / "side.pyi").write_text("from .high import part as part\n")
    (package / "stray.py").touch()
    (package / "low.py").write_text(
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from .high.part import x\n"
        "def f():\n    import itaclip_hf.high\n"
        "    from . import name_of_the_package\n"
    )
    assert list_violations(tmp_path) == [
        "absent: no such room",
        "low.py:3: low imports high/part.py, which is no lower",
        "low.py:5: low imports high/__init__.py, which is no lower",
        "low.py:6: low imports __init__.py, which is no lower",
        "side.py:1: side imports low.py, which is no lower",
        "side.pyi:1: side imports high/part.py, which is no lower",
        "stray.py: stands in no room",
    ]
