"""The paper's tables: those in `paper/`, and the two that follow from the registered methods and from checkpoints."""

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from ...methods import get_method, method_names, published_systems
from ..running.baselines import SYSTEMS
from ..running.baselines.dense_crf import has_dense_crf
from .table_files import load_table_file
from .tables import AblationRow, AblationTable

__all__ = ["get_table", "make_backbone_table", "table_names"]

_BACKBONES = {
    "openai/clip-vit-base-patch16": {"voc21": 67.9},
    "openai/clip-vit-base-patch32": {"voc21": 56.7},
    "openai/clip-vit-large-patch14": {"voc21": 53.3},
}


def table_names() -> tuple[str, ...]:
    """Names of the paper's tables; that of parts beyond it is not among them."""
    return tuple(name for name, table in _load_tables().items() if table.number)


def get_table(name: str) -> AblationTable:
    """A table of the paper by its name or its number there, or that of the parts "beyond" it.

    Raises:
        ValueError: If there is none; the message lists those that there are.
    """
    tables = _load_tables()
    numbers = {str(table.number): table for table in tables.values()}
    table = tables.get(name) or numbers.get(name)
    if table is None:
        known = ", ".join(
            f"{table.name} ({table.number})" if table.number else table.name for table in tables.values()
        )
        raise ValueError(f"Expected a table out of {known}, 'all', or a YAML file, but got {name!r}.")
    return table


def make_backbone_table(models: Sequence[str]) -> AblationTable:
    """The table of backbones for these checkpoints; the paper's figures stand beside those that it has."""
    rows = tuple(AblationRow(model, {"model": model}, _BACKBONES.get(model, {})) for model in models)
    return AblationTable("backbones", "Backbones", rows, number=10)


def _load_tables() -> dict[str, AblationTable]:
    tables = (*_load_files(), _make_method_table(), make_backbone_table(tuple(_BACKBONES)))
    return {table.name: table for table in tables}


@cache  # files alone: methods may be registered at any time
def _load_files() -> tuple[AblationTable, ...]:
    found = [load_table_file(file) for file in (Path(__file__).parent / "paper").glob("*.yaml")]
    return tuple(sorted(found, key=lambda table: table.number or math.inf))


def _make_method_table() -> AblationTable:
    """All methods that run on CLIP checkpoints, each as its figures were published: with refinement or without."""
    rows, left_out = [], []
    for name in method_names(beyond=False):
        method = get_method(name)
        title = f"{method.title} + PAMR" if method.published_with else method.title
        rows.append(AblationRow(title, {"method": name, **method.published_with}, method.published))
    for name, row in published_systems().items():
        if SYSTEMS[name].has_crf and not has_dense_crf():
            left_out.append(row.title)
        elif SYSTEMS[name].model_type is None:
            rows.append(AblationRow(row.title, {"method": name}, row.published))
    missing = f" Without pydensecrf2, {' and '.join(left_out)} cannot run and are left out." if left_out else ""
    return AblationTable(
        "methods",
        "Training-free methods that need only CLIP",
        tuple(rows),
        reference=get_method("itaclip").title,
        number=1,
        note="Each method has its own published settings of windows, image size, scale and thresholds. CaR has the "
        f"checkpoint itself as judge here, and CLIP-DIY no saliency, which the published ones have.{missing}",
    )
