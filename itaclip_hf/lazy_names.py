"""Packages whose names are loaded when they are asked for, so that importing them costs nothing (PEP 562)."""

import ast
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

__all__ = ["load_lazily"]


def load_lazily(package: str, file: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Make the functions `__getattr__` and `__dir__` of a package, and its `__all__`.

    Its names stand in the `__init__.pyi` beside it alone, as imports, `from .vocabulary import Vocabulary as
    Vocabulary`: type checkers read them there, too. The modules that they come from are offered as well.

    Args:
        package: The package's `__name__`.
        file: Its `__file__`.

    Example:
    ```python
    __getattr__, __dir__, __all__ = load_lazily(__name__, __file__)
    ```
    """
    stub = Path(file).with_suffix(".pyi").read_text(encoding="utf-8")
    imports = [
        (node.module or alias.name, alias.name)
        for node in ast.parse(stub).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    ]
    modules = {module for module, _ in imports}
    homes = {name: module for module, name in imports if name != module}

    def get_attribute(name: str) -> Any:
        if name in modules:
            return import_module(f"{package}.{name}")
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(f"{package}.{homes[name]}"), name)
        setattr(sys.modules[package], name, value)  # from now on an ordinary attribute
        return value

    def list_attributes() -> list[str]:
        return sorted({*vars(sys.modules[package]), *modules, *homes})

    return get_attribute, list_attributes, [name for name in homes if not name.startswith("_")]
