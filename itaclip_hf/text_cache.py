"""Keeps text embeddings on the disk, so that a vocabulary is encoded once for a checkpoint and not at every start.

They are found by content: the weights and settings of the text tower name the file, the token ids of a text in all its
prompts name the embedding in it. So texts that an earlier vocabulary shares are not encoded again, and whatever would
change an embedding leads elsewhere. Texts are encoded one at a time, hence to the same bits whatever is in the cache.

The files lie in the folder `itaclip_hf/text_embeddings` of the Hugging Face cache (`HF_HOME`), one for each text
tower, and may be deleted at any time. The environment variable `ITACLIP_TEXT_CACHE` names another folder or, as `off`,
none.
"""

import hashlib
import json
import logging
import os
from pathlib import Path
from typing import Any

import torch
import transformers
from filelock import FileLock, Timeout
from huggingface_hub import constants
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from .files import write_atomically
from .modeling import ITACLIPForSemanticSegmentation
from .processing import ITACLIPProcessor, Vocabulary

__all__ = ["CACHE_VARIABLE", "TextCache", "bake_vocabulary", "find_cache_folder"]

logger = logging.getLogger(__name__)

CACHE_VARIABLE = "ITACLIP_TEXT_CACHE"
OFF = ("", "0", "off", "no", "false")
FORMAT = 1  # to be raised when texts are embedded in another way
MOST_TEXTS = 20_000  # in a file: 40 MiB at 512 dimensions; the oldest leave first
SECONDS_TO_WAIT = 30.0  # for another process that writes
UNRELATED_FIELDS = ("_name_or_path", "dtype", "transformers_version")


def bake_vocabulary(
    model: ITACLIPForSemanticSegmentation,
    processor: ITACLIPProcessor,
    vocabulary: Vocabulary,
    cache: str | os.PathLike[str] | bool = True,
) -> None:
    """Bake a vocabulary like [`~ITACLIPForSemanticSegmentation.set_vocabulary`], from the cache as far as it is there.

    Args:
        model: The model; another vocabulary may take the place of one baked before.
        processor: The processor that goes with it.
        vocabulary: The vocabulary to bake.
        cache: Folder of the cache; `True` for the usual one, `False` for none.

    Raises:
        TypeError: If `vocabulary` is not a [`Vocabulary`].

    Example:
    ```python
    >>> from itaclip_hf import Vocabulary, load_demo
    >>> from itaclip_hf.text_cache import bake_vocabulary

    >>> model, processor = load_demo()
    >>> bake_vocabulary(model, processor, Vocabulary(["cat", ["dog", "puppy"]]))
    >>> model.config.id2label
    {0: 'cat', 1: 'dog'}

    ```
    """
    if not isinstance(vocabulary, Vocabulary):
        raise TypeError(
            f"Expected a Vocabulary, but got {type(vocabulary).__name__}. Make one with `Vocabulary.from_dict(…)`."
        )
    is_offloaded = model.device.type == "meta"
    folder = None if is_offloaded else find_cache_folder(cache)  # what is elsewhere cannot be told by its content
    inputs = processor(vocabulary=vocabulary, return_tensors="pt").to("cpu" if is_offloaded else model.device)
    names = _name_texts(inputs["input_ids"], inputs["attention_mask"])
    store = None if folder is None else TextCache(folder, _name_text_tower(model))
    known = {} if store is None else store.load()
    new: dict[str, torch.Tensor] = {}
    for name, input_ids, attention_mask in zip(names, inputs["input_ids"], inputs["attention_mask"], strict=True):
        if name not in known and name not in new:
            with torch.no_grad():
                new[name] = model.encode_texts(input_ids[None], attention_mask[None])[0].cpu()
    if store is not None and new:
        store.add(new)
    embeddings = known | new
    unit_texts = torch.stack([embeddings[name] for name in names]).to(inputs["text_weight"].device)
    with torch.autocast(unit_texts.device.type, enabled=False):
        queries = inputs["text_weight"].to(unit_texts) @ unit_texts
    model.set_queries(queries, inputs["query_classes"].tolist(), vocabulary.labels)


def find_cache_folder(cache: str | os.PathLike[str] | bool = True) -> Path | None:
    """The folder of the cache, or `None` if there shall be none.

    Args:
        cache: A folder; `True` for the one of the environment or else the usual one, `False` for none.
    """
    if cache is False:
        return None
    if cache is not True:
        return Path(cache)
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen is None:
        return Path(constants.HF_HOME) / "itaclip_hf" / "text_embeddings"
    return None if chosen.strip().lower() in OFF else Path(chosen).expanduser()


class TextCache:
    """The embeddings of one text tower, in one file that is replaced as a whole.

    Nothing that goes wrong with the file stops the work: it is said in the log, and texts are encoded anew.

    Args:
        folder: Folder of the cache.
        tower: Name of the text tower.
    """

    def __init__(self, folder: Path, tower: str) -> None:
        self.path = folder / f"{tower}.safetensors"

    def load(self) -> dict[str, torch.Tensor]:
        """Embeddings (dim,) float32 by name, the oldest first; none if the file is missing or damaged."""
        try:
            return _read(self.path)
        except FileNotFoundError:
            return {}
        except (OSError, SafetensorError, ValueError, KeyError) as error:
            logger.warning(
                "Text embeddings in %s are damaged or foreign (%s). The texts are encoded anew, and the file is "
                "replaced.", self.path, error,
            )  # fmt: skip
            return {}

    def add(self, embeddings: dict[str, torch.Tensor]) -> None:
        """Add embeddings to what the file holds by now; other processes may do the same at the same time."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(self.path.with_suffix(".lock"), timeout=SECONDS_TO_WAIT):
                try:
                    there = _read(self.path)
                except (OSError, SafetensorError, ValueError, KeyError):
                    there = {}
                _write(self.path, dict(list((there | embeddings).items())[-MOST_TEXTS:]))
        except (OSError, Timeout) as error:
            logger.warning("Text embeddings cannot be kept in %s (%s); they will be encoded again.", self.path, error)


def _read(path: Path) -> dict[str, torch.Tensor]:
    if not path.exists():
        raise FileNotFoundError(path)
    with safe_open(path, framework="pt") as file:
        about, stacked = file.metadata() or {}, file.get_tensor("embeddings")
    names = json.loads(about["names"])
    if about["sha256"] != _hash_tensor(stacked) or stacked.dtype != torch.float32 or len(names) != len(stacked):
        raise ValueError("the content does not fit its checksum")
    return dict(zip(names, stacked, strict=True))


def _write(path: Path, embeddings: dict[str, torch.Tensor]) -> None:
    stacked = torch.stack(list(embeddings.values()))
    about = {"names": json.dumps(list(embeddings)), "sha256": _hash_tensor(stacked)}
    with write_atomically(path) as file:
        file.write(save({"embeddings": stacked}, metadata=about))


def _name_texts(input_ids: torch.Tensor, attention_mask: torch.Tensor) -> list[str]:
    """Hash of each text's prompts, (texts, prompts, tokens), whatever the padding."""
    is_token = attention_mask.bool()
    lengths = attention_mask.sum(-1)
    ids = input_ids.where(is_token, 0).cpu()
    return [
        hashlib.sha256(own.numpy().tobytes() + row[:, : int(own.max())].contiguous().numpy().tobytes()).hexdigest()
        for own, row in zip(lengths.cpu(), ids, strict=True)
    ]


def _name_text_tower(model: ITACLIPForSemanticSegmentation) -> str:
    """Hash of all that an embedding depends on beside its text: weights, configuration, arithmetic, versions."""
    text_config: dict[str, Any] = model.config.text_config.to_dict()
    device = model.device
    settings = {
        "format": FORMAT,
        "text_config": {name: value for name, value in text_config.items() if name not in UNRELATED_FIELDS},
        "attention": model.config.text_config._attn_implementation,
        "dtype": str(model.dtype),
        "autocast": str(torch.get_autocast_dtype(device.type)) if torch.is_autocast_enabled(device.type) else None,
        "matmul_precision": torch.get_float32_matmul_precision(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode("utf-8"))
    for part in (model.text_model, model.text_projection):
        for name, weight in sorted(part.state_dict().items()):
            digest.update(name.encode("utf-8"))
            digest.update(_view_bytes(weight))
    return digest.hexdigest()


def _hash_tensor(tensor: torch.Tensor) -> str:
    return hashlib.sha256(str(tuple(tensor.shape)).encode("utf-8") + _view_bytes(tensor)).hexdigest()


def _view_bytes(tensor: torch.Tensor) -> memoryview:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
