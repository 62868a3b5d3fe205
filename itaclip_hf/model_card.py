"""Model cards: what a saved model is, how it is used, which settings, classes and scores it has, whom to cite.

A card is written where there is none, and anew while nobody has edited it, which its last line tells by a checksum.
The metadata make the Hub list the model under its task, base model, licence and scores.
"""

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .files import read_json, read_text, write_text
from .markdown import code, format_table, percent
from .methods import Settings, identify_method

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCard

__all__ = ["make_model_card", "push_model_card", "write_model_card"]

LICENCES = {"laion/CLIP-": "mit", "facebook/metaclip-": "cc-by-nc-4.0", "wkcn/TinyCLIP-": "mit"}
"""What the cards of well-known checkpoints say, by the start of their names. OpenAI's cards name none."""
SCORES = {"mean_iou": "mIoU", "overall_accuracy": "pixel accuracy"}
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")

CARD = """\
# {title}

Open-vocabulary semantic segmentation with {base} and no training: {method}. Made with `itaclip_hf`.

## Use

{how}
```python
{imports}from transformers import pipeline

segmenter = pipeline("{task}", model="{place}"{arguments})
segments = segmenter("photo.jpg"{words})  # a label and a mask for each class found
```

## Settings that are not the defaults

{settings}
{classes}{scores}## Citation

```bibtex
@inproceedings{{aydin2025itaclip,
  title = {{ITACLIP: Boosting Training-Free Semantic Segmentation with Image, Text, and Architectural Enhancements}},
  author = {{Ayd{{\\i}}n, M. Arda and {{\\c{{C}}}}{{\\i}}rpar, Efe Mert and Abdinli, Elvin and {{\\"U}}nal,
    G{{\\"o}}zde and Sahin, Yusuf H.}},
  booktitle = {{CVPR Workshops}},
  year = {{2025}}
}}
```
"""
SEAL = "<!-- Written by itaclip_hf, and anew while nothing above is edited: {checksum} -->\n"


def make_model_card(
    model: Any,
    processor: Any = None,
    place: str | os.PathLike[str] = "",
    reports: Iterable[str | os.PathLike[str]] = (),
    with_code: bool = False,
) -> "ModelCard":
    """Make the card of a model; it can be saved, or pushed to the Hub.

    Args:
        model: The model.
        processor: Its processor, whose settings are then listed, too.
        place: Folder or hub id of the model.
        reports: Folders of `itaclip evaluate`, whose scores become evaluation results.
        with_code: Whether the model's code lies beside it; see [`save_with_code`].

    Raises:
        OSError: If there is no such report.
        ValueError: If one is no report.

    Example:
    ```python
    >>> from itaclip_hf import load_demo, make_model_card

    >>> make_model_card(*load_demo(), "me/drawn-things").data.pipeline_tag
    'image-segmentation'

    ```
    """
    from huggingface_hub import ModelCard, ModelCardData

    base, licence = _find_origin(str(getattr(model, "name_or_path", "") or ""))
    name, results = Path(place).name or "itaclip", [result for report in reports for result in _read_report(report)]
    data = ModelCardData(
        base_model=base,
        library_name="transformers",
        license=licence,
        pipeline_tag="image-segmentation",  # by which Transformers infers the task
        tags=["itaclip", "clip", "open-vocabulary-segmentation", "training-free"],
        model_name=name if results else None,
        eval_results=results or None,
    )
    text = _write_text(model.config, processor, base, name, str(place or name), results, with_code)
    content = f"---\n{data.to_yaml()}\n---\n\n{text}"
    return ModelCard(content + SEAL.format(checksum=_sum(content)))


def write_model_card(
    folder: str | os.PathLike[str],
    model: Any,
    processor: Any = None,
    reports: Iterable[str | os.PathLike[str]] = (),
    with_code: bool = False,
) -> None:
    """Write a model's card into its folder, unless one is there that somebody has edited; see [`make_model_card`]."""
    path, place = Path(folder) / "README.md", os.path.basename(os.path.abspath(folder))
    if not os.path.lexists(path) or _is_own(read_text(path)):
        write_text(path, str(make_model_card(model, processor, place, reports, with_code)))


def push_model_card(repo_id: str, model: Any, private: bool | None = None, token: Any = None) -> None:
    """Push the card of a model to the Hub, where it is made if missing, unless a card is there that is not ours."""
    from huggingface_hub import HfApi, ModelCard
    from huggingface_hub.errors import EntryNotFoundError

    repo_id = HfApi().create_repo(repo_id, private=private, token=token, exist_ok=True).repo_id
    try:
        is_own = _is_own(str(ModelCard.load(repo_id, token=token)))
    except EntryNotFoundError:
        is_own = True
    if is_own:
        # Not `ModelCard.push_to_hub`, which older releases check at a fixed address, whatever the endpoint.
        card = str(make_model_card(model, place=repo_id)).encode("utf-8")
        HfApi().upload_file(
            path_or_fileobj=card,
            path_in_repo="README.md",
            repo_id=repo_id,
            token=token,
            commit_message="Upload model card",
        )


def _find_origin(name: str) -> tuple[str | None, str | None]:
    """Hub id and licence of the weights, as far as they are known; a folder's own card may tell."""
    from huggingface_hub import metadata_load

    if os.path.isdir(name):
        card = Path(name) / "README.md"
        about = (metadata_load(card) if card.is_file() else None) or {}
        return about.get("base_model"), about.get("license")
    if not HUB_ID.fullmatch(name):
        return None, None
    return name, next((licence for start, licence in LICENCES.items() if name.startswith(start)), None)


def _read_report(place: str | os.PathLike[str]) -> Iterator["EvalResult"]:
    from huggingface_hub import EvalResult

    path = Path(place) / "report.json" if os.path.isdir(place) else Path(place)
    report = read_json(path)
    try:
        dataset, benchmark = str(report["settings"]["dataset"]["title"]), report["benchmark"]
        scores = {name: report["scores"][name] for name in SCORES}
    except (KeyError, TypeError) as error:
        raise ValueError(f"Expected a report of `itaclip evaluate`, but {path} is none. Name its folder.") from error
    for name, score in scores.items():
        if score is not None:
            yield EvalResult(
                task_type="image-segmentation",
                dataset_type=benchmark or dataset,
                dataset_name=dataset,
                metric_type=name,
                metric_name=SCORES[name],
                metric_value=round(score, 6),
            )


def _write_text(
    config: Any, processor: Any, base: str | None, title: str, place: str, results: list["EvalResult"], with_code: bool
) -> str:
    settings = _list_settings(config, processor)
    method = identify_method(Settings().replace(**settings))
    is_baked = bool(config.query_classes)
    how = (
        "The code lies beside the weights, for places where the package is missing:\n"
        if with_code
        else "Transformers knows this type of model once the package `itaclip_hf` is installed and imported:\n"
    )
    defaults = Settings().to_json()
    rows = [(name, _show(value), _show(defaults[name])) for name, value in settings.items() if value != defaults[name]]
    labels = config.class_names
    scores = [(result.dataset_name, result.metric_name, percent(result.metric_value)) for result in results]
    return CARD.format(
        title=code(title),
        base=f"the weights of [{base}](https://huggingface.co/{base})" if base else "CLIP weights",
        method=f"the method {method.title} ({method.source})" if method else "a method of one's own",
        how=how,
        imports="" if with_code else "import itaclip_hf  # makes the model known\n",
        task="image-segmentation" if is_baked else "zero-shot-image-segmentation",
        place=place,
        arguments=", trust_remote_code=True" if with_code else "",
        words="" if is_baked else ', candidate_labels=["cat", ["dog", "puppy"]], background=["sky", "wall"]',
        settings=format_table(("setting", "here", "default"), rows) if rows else "All are those of the paper.\n",
        classes=f"## Classes\n\n{format_table(('id', 'class'), enumerate(labels))}\n" if is_baked else "",
        scores=f"## Scores\n\n{format_table(('data', 'metric', '%'), scores)}\n" if scores else "",
    )


def _list_settings(config: Any, processor: Any) -> dict[str, Any]:
    """Settings that results depend on; those of the configuration alone where there is no processor."""
    if processor is not None:
        return Settings.of(config, processor).to_json()
    held = {name: getattr(config, name) for name in Settings().held_by("config")}
    return Settings(**held).to_json("config")


def _show(value: Any) -> str:
    return ", ".join(map(str, value)) or "none" if isinstance(value, list | tuple) else str(value)


def _sum(text: str) -> str:
    return hashlib.sha256(text.strip().encode()).hexdigest()[:16]


def _is_own(text: str) -> bool:
    """Whether a card is as it was written."""
    content, _, last = text.strip().rpartition("\n")
    return last.strip() == SEAL.format(checksum=_sum(content)).strip()
