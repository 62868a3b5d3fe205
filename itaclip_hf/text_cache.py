"""Keeps text embeddings on the disk, so that a vocabulary is encoded once for a checkpoint and not at every start.

A file holds the embeddings of all texts of one vocabulary by one text tower and is found by content: weights and
settings of the tower and the token ids name it, so whatever would change an embedding leads to another file.

The files lie in the folder `itaclip_hf/text_embeddings` of the Hugging Face cache (`HF_HOME`) and may be deleted at
any time. The environment variable `ITACLIP_TEXT_CACHE` names another folder or, as `off`, none. Nothing that goes
wrong with a file stops the work: it is said in the log, and the texts are encoded anew.
"""

import hashlib
import json
import logging
import os
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import constants
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from .files import write_atomically
from .modeling import ITACLIPForSemanticSegmentation

__all__ = ["CACHE_VARIABLE", "TextCache"]

logger = logging.getLogger(__name__)

CACHE_VARIABLE = "ITACLIP_TEXT_CACHE"
OFF = ("", "0", "off", "no", "false")
FORMAT = 3  # to be raised when texts are embedded in another way
UNRELATED_FIELDS = ("_name_or_path", "dtype", "transformers_version")
UNUSABLE = (OSError, SafetensorError, ValueError, KeyError, TypeError)


class TextCache:
    """A folder of text embeddings, for [`~ITACLIPForSemanticSegmentation.set_vocabulary`].

    Args:
        folder: Where the files lie; by default as the environment says.

    Example:
    ```python
    >>> from itaclip_hf import Vocabulary, load_demo
    >>> from itaclip_hf.text_cache import TextCache

    >>> model, processor = load_demo()
    >>> model.set_vocabulary(processor, Vocabulary(["cat", ["dog", "puppy"]]), TextCache())
    >>> model.config.id2label
    {0: 'cat', 1: 'dog'}

    ```
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        self.folder = _choose_folder() if folder is None else Path(folder)

    def encode_texts(
        self, model: ITACLIPForSemanticSegmentation, input_ids: torch.Tensor, attention_mask: torch.Tensor
    ) -> torch.Tensor:
        """Embed texts like [`~ITACLIPForSemanticSegmentation.encode_texts`], or read what was embedded before.

        Args:
            model: The model.
            input_ids: (texts, prompts, tokens)
            attention_mask: Same shape.

        Returns:
            (texts, projection_dim) float32, unit vectors.
        """
        if self.folder is None or model.device.type == "meta":  # what is offloaded cannot be told by its content
            return model.encode_texts(input_ids, attention_mask)
        path = self.folder / f"{_hash_tower(model)}-{_hash_tokens(input_ids, attention_mask)}.safetensors"
        embeddings = _read(path, (len(input_ids), model.config.projection_dim))
        if embeddings is None:
            embeddings = model.encode_texts(input_ids, attention_mask)
            _write(path, embeddings)
        return embeddings.to(input_ids.device)


def _choose_folder() -> Path | None:
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen is None:
        home = Path(constants.HF_HOME)
        # Of a user without a home it is "~/...", which would be a folder of that name wherever the program runs.
        return None if home.parts[:1] == ("~",) else home / "itaclip_hf" / "text_embeddings"
    if chosen.strip().lower() in OFF:
        return None
    try:
        return Path(chosen).expanduser()
    except RuntimeError as error:  # of a user that this machine does not know
        logger.warning("%s=%s names no folder (%s); text embeddings are not kept.", CACHE_VARIABLE, chosen, error)
        return None


def _read(path: Path, shape: tuple[int, int]) -> torch.Tensor | None:
    """The embeddings, or `None` if there are none that can be used."""
    try:
        if not path.is_file():  # which fails, too, where a name is too long
            return None
        with safe_open(path, framework="pt") as file:
            about, embeddings = file.metadata() or {}, file.get_tensor("embeddings")
        is_own = about["name"] == path.stem and about["sha256"] == _hash_tensor(embeddings)
        is_whole = tuple(embeddings.shape) == shape and embeddings.dtype == torch.float32
        if not (is_own and is_whole and _are_unit_vectors(embeddings)):
            raise ValueError("it does not hold what its name says")
    except UNUSABLE as error:
        logger.warning("%s is damaged or foreign (%s). The texts are encoded anew.", path, error)
        return None
    return embeddings


def _write(path: Path, embeddings: torch.Tensor) -> None:
    embeddings = embeddings.detach().cpu().contiguous()  # as safetensors takes them
    about = {"name": path.stem, "sha256": _hash_tensor(embeddings)}  # a copy under another name is told by it
    try:
        with write_atomically(path) as file:
            file.write(save({"embeddings": embeddings}, metadata=about))
    except OSError as error:
        logger.warning("Text embeddings cannot be kept in %s (%s); they will be encoded again.", path, error)


def _are_unit_vectors(embeddings: torch.Tensor) -> bool:
    return bool(((embeddings.norm(dim=-1) - 1).abs() < 1e-3).all())  # written so that NaN fails


def _hash_tokens(input_ids: torch.Tensor, attention_mask: torch.Tensor) -> str:
    """Hash of all prompts, whatever the padding: (texts, prompts, tokens)."""
    lengths = attention_mask.sum(-1).cpu()
    ids = input_ids.where(attention_mask.bool(), 0).cpu()[..., : int(lengths.max())]
    digest = hashlib.sha256(str(tuple(ids.shape)).encode("utf-8"))
    for part in (lengths, ids):
        digest.update(part.contiguous().numpy().tobytes())
    return digest.hexdigest()[:32]


def _hash_tower(model: ITACLIPForSemanticSegmentation) -> str:
    """Hash of all that an embedding depends on beside its text: weights, configuration, arithmetic, versions."""
    text_config: dict[str, Any] = model.config.text_config.to_dict()
    device = model.device
    facts = {
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
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode("utf-8"))
    for part in (model.text_model, model.text_projection):
        for name, weight in sorted(part.state_dict().items()):
            digest.update(name.encode("utf-8"))
            digest.update(_view_bytes(weight))
    return digest.hexdigest()[:32]


def _hash_tensor(tensor: torch.Tensor) -> str:
    return hashlib.sha256(_view_bytes(tensor)).hexdigest()


def _view_bytes(tensor: torch.Tensor) -> memoryview:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
