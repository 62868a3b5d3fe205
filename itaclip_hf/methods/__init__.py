"""Settings and methods: plain data that everything else is derived from; neither torch nor Transformers is needed."""

from .registry import (
    Method,
    Published,
    PublishedSystem,
    find_published,
    get_method,
    identify_method,
    method_names,
    published_systems,
    register_method,
)
from .settings import PRESETS, Settings, check_setting, get_preset

__all__ = [
    "PRESETS",
    "Method",
    "Published",
    "PublishedSystem",
    "Settings",
    "check_setting",
    "find_published",
    "get_method",
    "get_preset",
    "identify_method",
    "method_names",
    "published_systems",
    "register_method",
]
