"""Settings and methods: plain data that everything else is derived from; neither torch nor Transformers is needed."""

from .registry import (
    Method,
    Published,
    find_published,
    get_method,
    get_preset,
    identify_method,
    method_names,
    preset_names,
    register_method,
)
from .settings import Settings, check_setting

__all__ = [
    "Method",
    "Published",
    "Settings",
    "check_setting",
    "find_published",
    "get_method",
    "get_preset",
    "identify_method",
    "method_names",
    "preset_names",
    "register_method",
]
