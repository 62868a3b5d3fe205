"""Packages whose names are loaded when they are asked for, so that importing them costs nothing (PEP 562)."""

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

__all__ = ["load_lazily"]


def load_lazily(
    package: str, names: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Make the functions `__getattr__` and `__dir__` of a package.

    Args:
        package: The package's `__name__`.
        names: For each of its modules, the names that the package offers from there. The modules are offered, too.

    Example:
    ```python
    __getattr__, __dir__ = load_lazily(__name__, {"vocabulary": ["Vocabulary"]})
    ```
    """
    homes = {name: module for module, offered in names.items() for name in offered}

    def get_attribute(name: str) -> Any:
        if name in names:
            return import_module(f"{package}.{name}")
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(f"{package}.{homes[name]}"), name)
        setattr(sys.modules[package], name, value)  # from now on an ordinary attribute
        return value

    def list_attributes() -> list[str]:
        return sorted({*vars(sys.modules[package]), *names, *homes})

    return get_attribute, list_attributes
