"""Training-free methods by name: what each one changes of the settings, on which benchmark, and what was published.

The package's own are rows of `published.yaml`; `register_method` adds one from anywhere.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

from .settings import Settings

__all__ = [
    "Method",
    "Published",
    "PublishedSystem",
    "find_published",
    "get_method",
    "identify_method",
    "method_names",
    "published_systems",
    "register_method",
]

PUBLISHED_BACKBONE = "12 blocks of width 768, patches of 16 pixels"
"""CLIP ViT-B/16, with which all figures were published."""

Changes = Mapping[str, Any]


@dataclass(frozen=True)
class Method:
    """One method: changes of the default settings, on top of CLIP's weights.

    Args:
        name: What commands and [`load_method`] call it.
        title: What tables call it.
        source: The publication.
        changes: Settings that are not ITACLIP's; to start from another method, use [`~Method.derive`].
        benchmarks: By benchmark, what differs there on top of `changes`.
        published: By benchmark, the published mIoU in percent (CLIP ViT-B/16).
        published_with: What those runs had beside the method's own settings, such as pixel refinement.
        published_queries: By benchmark, the number of names and background words of those runs, where it is known.
        towers: By number of the vision tower's blocks, what differs from `changes` there, where it was published for
            other towers than the usual one, too.

    Raises:
        TypeError: If a value is of another type than its setting's.
        ValueError: If there is no setting of a name, or a value is out of its range.
    """

    name: str
    title: str
    source: str
    changes: Changes = field(default_factory=dict)
    benchmarks: Mapping[str, Changes] = field(default_factory=dict)
    published: Mapping[str, float] = field(default_factory=dict)
    published_with: Changes = field(default_factory=dict)
    published_queries: Mapping[str, int] = field(default_factory=dict)
    towers: Mapping[int, Changes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # Made and thrown away, so that a mistake shows where the method is written and not where it is used.
        places: dict[str, Changes] = {f", on {benchmark}": row for benchmark, row in self.benchmarks.items()}
        places |= {f", with {blocks} blocks": row for blocks, row in self.towers.items()}
        for place, row in {"": {}, **places}.items():
            try:
                Settings().replace(**{**self.changes, **row, **self.published_with})
            except (TypeError, ValueError) as error:
                raise type(error)(f"In the method {self.name!r}{place}: {error}") from None

    def settings(self, benchmark: str | None = None, blocks: int | None = None) -> Settings:
        """Settings of the method.

        Args:
            benchmark: Name of a benchmark; the method's general ones if left out.
            blocks: Of the vision tower; those of the usual tower if left out.

        Raises:
            ValueError: If no method knows a benchmark of that name.
        """
        of_tower = {} if blocks is None else self.towers.get(blocks, {})
        return Settings().replace(**{**self.changes, **of_tower, **self._changes_on(benchmark)})

    def published_settings(self, benchmark: str | None = None) -> Settings:
        """Settings of the run whose figure was published."""
        return self.settings(benchmark).replace(**self.published_with)

    def benchmark_settings(self, benchmark: str) -> dict[str, Any]:
        """What a benchmark decides: every setting that this method changes on some benchmark, as it is on this one."""
        chosen, names = self.settings(benchmark), {name for changes in self.benchmarks.values() for name in changes}
        return {name: getattr(chosen, name) for name in sorted(names)}

    def derive(
        self,
        name: str,
        title: str,
        source: str,
        changes: Changes | None = None,
        benchmarks: Mapping[str, Changes] | None = None,
    ) -> "Method":
        """A new method: this one with some settings changed.

        What this one changes on a benchmark holds there for the new one, too. Published figures are not taken along.
        """
        names = dict.fromkeys([*self.benchmarks, *(benchmarks or {})])
        return Method(
            name,
            title,
            source,
            {**self.changes, **(changes or {})},
            {key: {**self.benchmarks.get(key, {}), **(benchmarks or {}).get(key, {})} for key in names},
            towers={blocks: {**row, **(changes or {})} for blocks, row in self.towers.items()},
        )

    def _changes_on(self, benchmark: str | None) -> Changes:
        if benchmark is None or (isinstance(benchmark, str) and benchmark in self.benchmarks):
            return self.benchmarks.get(benchmark or "", {})
        # A benchmark that only other methods have settings for leaves this one as it is.
        known = dict.fromkeys(
            name for row in _read_published()["methods"].values() for name in row.get("benchmarks", ())
        )
        if not isinstance(benchmark, str) or benchmark not in known:
            raise ValueError(f"Expected a benchmark out of {', '.join(known)}, but got {benchmark!r}.")
        return {}


def register_method(method: Method, exist_ok: bool = False) -> None:
    """Make a method known by its name, everywhere a method is named.

    Args:
        method: The entry.
        exist_ok: Whether to replace a method that was registered before, as when the cell of a notebook runs again.

    Raises:
        ValueError: If the name is one of this package's methods, or is taken and `exist_ok` is off.
    """
    is_built_in = any(method.name in rows for rows in _read_published().values())
    if is_built_in or (method.name in _methods() and not exist_ok):
        advice = "Choose another name." if is_built_in else "Choose another, or pass `exist_ok=True`."
        raise ValueError(f"Expected a new name for the method, but {method.name!r} is taken. {advice}")
    _methods()[method.name] = method


def get_method(name: str) -> Method:
    """A method by name.

    Raises:
        ValueError: If there is none of that name; the message lists those that there are.
    """
    if not isinstance(name, str) or name not in _methods():
        if isinstance(name, str) and name in published_systems():
            raise ValueError(
                f"Expected a method that is settings of our model ({', '.join(_methods())}), but {name} is a system "
                f"of its own. Use `load_method({name!r}, …)`, or `itaclip evaluate --method {name}`."
            )
        raise ValueError(
            f"Expected a method out of {', '.join(_methods())}, or for `load_method` and `itaclip evaluate` also "
            f"{', '.join(published_systems())}, but got {name!r}. docs/methods.md tells of them, and of systems that "
            "are left out; make a new one known by `register_method`."
        )
    return _methods()[name]


def method_names(beyond: bool = True) -> tuple[str, ...]:
    """Names of all methods, this package's first.

    Args:
        beyond: Whether those beyond the paper's Table 1 are among them.
    """
    return tuple(name for name in _methods() if beyond or name not in _read_published()["beyond"])


class PublishedSystem(NamedTuple):
    """A published system that is more than settings of our model.

    Attributes:
        title: What tables call it.
        source: The publication.
        published: By benchmark, the published mIoU in percent.
    """

    title: str
    source: str
    published: Mapping[str, float]


@cache
def published_systems() -> dict[str, PublishedSystem]:
    """All such systems by name, which commands and [`load_method`] call them."""
    return {name: PublishedSystem(**row) for name, row in _read_published()["systems"].items()}


def identify_method(settings: Settings) -> Method | None:
    """The method whose last block these settings have, or `None` if there is no such.

    Of several, the one that has most of the other settings in common. Windows, refinement and scale are settings that
    users change; they do not make another method.
    """
    wanted = settings.last_block()
    candidates = [
        method
        for method in _methods().values()
        if any(method.settings(blocks=blocks).last_block() == wanted for blocks in (None, *method.towers))
    ]
    return min(candidates, key=lambda method: len(method.settings().differences(settings)), default=None)


class Published(NamedTuple):
    """A published figure, and what keeps a run from being compared with it.

    Attributes:
        miou: In percent (CLIP ViT-B/16).
        title: Of the method.
        differences: By setting, the run's value and that of the published run; none where both are alike.
        queries: Number of names and background words of the published run, where it is known.
        uses_texts: Whether the published run had texts about every class.
    """

    miou: float
    title: str
    differences: Mapping[str, tuple[Any, Any]]
    queries: int | None = None
    uses_texts: bool = False


def find_published(settings: Settings, benchmark: str, backbone: str = PUBLISHED_BACKBONE) -> Published | None:
    """The figure that was published for the method with these settings on a benchmark, `None` if there is none.

    Args:
        settings: Of the run.
        benchmark: Name of the benchmark.
        backbone: Of the run, as in `PUBLISHED_BACKBONE`.
    """
    method = identify_method(settings)
    if method is None or benchmark not in method.published:
        return None
    theirs = method.published_settings(benchmark)
    differences = settings.differences(theirs)
    if backbone != PUBLISHED_BACKBONE:  # no setting, but it keeps figures apart as one does
        differences["backbone"] = (backbone, PUBLISHED_BACKBONE)
    words = method.published_queries.get(benchmark), theirs.uses_texts
    return Published(method.published[benchmark], method.title, differences, *words)


@cache
def _read_published() -> dict[str, Any]:
    import yaml  # not before: a command's help does without

    text = (resources.files(__package__) / "published.yaml").read_text(encoding="utf-8")
    content: dict[str, Any] = yaml.safe_load(text)
    return content


@cache
def _methods() -> dict[str, Method]:
    """All methods by name: the one dictionary that `register_method` writes to, read from the file at first use."""
    content = _read_published()
    return {name: Method(name, **row) for name, row in {**content["methods"], **content["beyond"]}.items()}
