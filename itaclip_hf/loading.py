"""The loader: from the name of a checkpoint to a model and its processor, with settings, vocabulary, dtype and device.

Commands, evaluations, benchmarks and the demo all load here, so that what is wrong with a checkpoint is found here.
"""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from .methods import Settings, check_setting, get_method, get_preset, identify_method
from .methods.settings import setting_fields
from .modeling import ITACLIPForSemanticSegmentation
from .processing import ITACLIPProcessor, Vocabulary
from .text_cache import TextCache

__all__ = [
    "DEFAULT_CHECKPOINT",
    "DEMO_CHECKPOINT",
    "NUMBER_FORMATS",
    "Loaded",
    "choose_device",
    "choose_dtype",
    "computes_fast_in_bfloat16",
    "load",
    "load_demo",
    "load_demo_vocabulary",
    "load_method",
    "resolve_checkpoint",
]

DEFAULT_CHECKPOINT = "openai/clip-vit-base-patch16"
DEMO_CHECKPOINT = Path(__file__).parent / "assets" / "demo_checkpoint"
NUMBER_FORMATS = ("auto", "float32", "bfloat16", "float16")
FAST_CPU_FEATURES = ("amx_bf16", "avx512_bf16")

logger = logging.getLogger(__name__)

Checkpoint = str | os.PathLike[str]


class Loaded(NamedTuple):
    """What goes together.

    Attributes:
        model: The model, in evaluation mode.
        processor: Its processor.
    """

    model: ITACLIPForSemanticSegmentation
    processor: ITACLIPProcessor


def load(
    checkpoint: Checkpoint = DEFAULT_CHECKPOINT,
    vocabulary: Vocabulary | None = None,
    *,
    method: str | None = None,
    benchmark: str | None = None,
    preset: str | None = None,
    settings: Mapping[str, Any] | None = None,
    dtype: torch.dtype | str = "auto",
    device: torch.device | str = "auto",
) -> Loaded:
    """Load a checkpoint, ready to segment.

    Settings are the checkpoint's own, which of a stock CLIP checkpoint are the paper's. A method replaces them all; a
    benchmark decides what that method, or else the checkpoint's, changes from one benchmark to another; preset and
    settings win over both.

    Args:
        checkpoint: Folder or hub id of a CLIP or ITACLIP checkpoint, or "demo" for the embedded one.
        vocabulary: To be baked into the model; by default it keeps what it has.
        method: "clip", "maskclip", "sclip", "clearclip", "naclip", "itaclip", or what `register_method` made known.
        benchmark: Such as "voc21".
        preset: "paper", "balanced" or "fast".
        settings: Settings by name; see [`Settings`].
        dtype: "float32", "bfloat16", "float16", or "auto": bfloat16 where the device is fast in it, else float32.
        device: Where it shall run; "auto": the GPU if there is one.

    Raises:
        TypeError: If a setting is of another type than expected.
        ValueError: If the checkpoint lacks weights or does not fit its tokenizer, or a name or value is unknown.
        OSError: If the checkpoint cannot be loaded.

    Example:
    ```python
    >>> from itaclip_hf import Vocabulary
    >>> from itaclip_hf.loading import load

    >>> model, processor = load("demo", Vocabulary(["sky", "grass", "dog"]), method="naclip")
    >>> model.config.id2label
    {0: 'sky', 1: 'grass', 2: 'dog'}

    ```
    """
    place, changes = resolve_checkpoint(checkpoint), dict(settings or {})
    if preset is not None:
        changes = {**get_preset(preset), **changes}
    if method is not None:
        changes = {**get_method(method).settings(benchmark).to_json(), **changes}
    changes = {name: check_setting(name, value) for name, value in changes.items()}
    chosen_device = choose_device(device)
    # Already while loading: the default of a setting may not fit the tower, as when this has fewer blocks.
    of_config = {
        name: value for name, value in changes.items() if setting_fields()[name].metadata["holder"] == "config"
    }
    model = _load_model(place, choose_dtype(dtype, chosen_device), chosen_device, of_config)
    processor = ITACLIPProcessor.from_pretrained(place)
    _check_tokenizer(model, processor, checkpoint)
    own = Settings.of(model, processor)
    if method is None and benchmark is not None:
        known = identify_method(own) or get_method("itaclip")
        changes = {**known.benchmark_settings(benchmark), **changes}
    if changes:
        own.replace(**changes).apply(model, processor)
    if vocabulary is not None:
        model.set_vocabulary(processor, vocabulary, TextCache())
    return Loaded(model, processor)


def load_method(
    name: str,
    checkpoint: Checkpoint = DEFAULT_CHECKPOINT,
    benchmark: str | None = None,
    dtype: torch.dtype | str = "float32",
    device: torch.device | str = "cpu",
    **settings: Any,
) -> Loaded:
    """Load CLIP weights with the settings of a method.

    Model and processor go together; saved to one folder, they are that method for `from_pretrained` and for
    `pipeline("image-segmentation")`. Bake a vocabulary with `model.set_vocabulary(processor, vocabulary)`.

    Args:
        name: "clip", "maskclip", "sclip", "clearclip", "naclip", "itaclip", or what `register_method` made known.
        checkpoint: Folder or hub id of a CLIP checkpoint, or "demo" for the embedded one.
        benchmark: A benchmark whose settings to take, such as "voc21"; the method's general ones if left out.
        dtype: Number format.
        device: Where it shall run.
        **settings: Settings by name that win over the method's; see [`Settings`].

    Raises:
        TypeError: If a setting is of another type than expected.
        ValueError: If there is no such method, benchmark or setting, or the checkpoint lacks weights.
        OSError: If the checkpoint cannot be loaded.

    Example:
    ```python
    >>> from itaclip_hf import Vocabulary, load_method
    >>> from itaclip_hf.samples import load_demo_scene
    >>> from transformers import pipeline

    >>> model, processor = load_method("naclip", "demo")
    >>> model.set_vocabulary(processor, Vocabulary(["sky", "grass", "dog"]))
    >>> segment = pipeline("image-segmentation", model=model, image_processor=processor.image_processor)
    >>> sorted(result["label"] for result in segment(load_demo_scene(0)[0]))
    ['dog', 'grass', 'sky']

    ```
    """
    return load(checkpoint, method=name, benchmark=benchmark, settings=settings, dtype=dtype, device=device)


def load_demo() -> Loaded:
    """Load the embedded checkpoint with its own vocabulary baked in; nothing is downloaded.

    It is a small CLIP for drawn pictures of its 42 classes, not for photographs; its model card says what it was
    trained on.

    Returns:
        The model, in float32 on the CPU, and its processor.

    Example:
    ```python
    >>> from itaclip_hf import load_demo

    >>> model, processor = load_demo()
    >>> model.config.id2label[0]
    'sky'

    ```
    """
    return load("demo", load_demo_vocabulary(), dtype="float32", device="cpu")


def load_demo_vocabulary() -> Vocabulary:
    """The classes of the embedded checkpoint, with synonyms and definitions."""
    return Vocabulary.from_json_file(DEMO_CHECKPOINT / "vocabulary.json")


def resolve_checkpoint(name: Checkpoint) -> Checkpoint:
    """Where the checkpoint of that name is: the embedded one for "demo", else the name itself."""
    return DEMO_CHECKPOINT if name == "demo" else name


def choose_device(name: torch.device | str) -> torch.device:
    """The device of that name, if this machine has it; "auto" is the GPU if there is one, else the CPU.

    Raises:
        ValueError: If there is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type != "cpu":  # the way to find out that works for every kind of device
            torch.empty(1, device=device).cpu()
    except (AssertionError, NotImplementedError, RuntimeError) as error:
        raise ValueError(
            f"Expected a device of this machine, such as 'cpu'{_name_gpus()}, but got {str(name)!r}. Use 'auto'."
        ) from error
    return device


def _name_gpus() -> str:
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return "".join(f" or 'cuda:{index}'" for index in range(count))


def choose_dtype(name: torch.dtype | str, device: torch.device | str) -> torch.dtype:
    """The number format of that name.

    Args:
        name: "float32", "bfloat16", "float16", or "auto": bfloat16 where the device is fast in it, else float32; or a
            number format of torch, which is taken as it is.
        device: Where the model shall run.

    Raises:
        ValueError: If there is no such format.
    """
    if isinstance(name, torch.dtype):
        return name
    if name not in NUMBER_FORMATS:
        raise ValueError(f"Expected a dtype out of {', '.join(NUMBER_FORMATS)}, but got {name!r}. Use 'auto'.")
    if name != "auto":
        return getattr(torch, name)
    device = torch.device(device)
    dtype = torch.bfloat16 if computes_fast_in_bfloat16(device) else torch.float32
    logger.info("Number format %s, chosen for %s.", str(dtype).removeprefix("torch."), device)
    return dtype


def computes_fast_in_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is computed by the device itself: by GPUs with such units, by CPUs with AMX or AVX-512 BF16.

    Elsewhere it is emulated, often many times slower than float32.
    """
    if device.type == "cuda":
        return torch.cuda.is_available() and _is_fast_gpu(device)
    return device.type == "cpu" and any(map(torch.cpu.get_capabilities().get, FAST_CPU_FEATURES))


def _is_fast_gpu(device: torch.device) -> bool:
    with torch.cuda.device(device):  # asks for the current one
        return torch.cuda.is_bf16_supported(including_emulation=False)


def _load_model(
    place: Checkpoint, dtype: torch.dtype, device: torch.device, fields: Mapping[str, Any]
) -> ITACLIPForSemanticSegmentation:
    """The model, if no weight is missing: Transformers only warns of these, and commands keep its warnings quiet."""
    loaded: Any = ITACLIPForSemanticSegmentation.from_pretrained(
        place, dtype=dtype, output_loading_info=True, **fields
    )
    model, report = loaded
    lacking = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
    if lacking:
        raise ValueError(
            f"Expected a CLIP ViT checkpoint, but {place} lacks {len(lacking)} weights, among them {lacking[0]}. "
            "Name another checkpoint."
        )
    return model.to(device).eval()


def _check_tokenizer(
    model: ITACLIPForSemanticSegmentation, processor: ITACLIPProcessor, checkpoint: Checkpoint
) -> None:
    """Make sure that the tokenizer is the text tower's: a foreign or empty one gives every name the wrong tokens."""
    config = model.config.text_config
    first, second = processor.tokenizer(["sky", "a dog"]).input_ids
    # OpenAI's configurations say 2 and mean the largest id; see CLIPTextModel.
    end = max(first) if config.eos_token_id == 2 else config.eos_token_id
    if first == second or max(*first, *second) >= config.vocab_size or first[-1] != end:
        raise ValueError(
            f"Expected the tokenizer that goes with the text tower in {checkpoint} ({config.vocab_size} tokens, the "
            f"end token {config.eos_token_id}), but got one of {len(processor.tokenizer)} tokens that ends texts with "
            f"{first[-1]}. Put its tokenizer.json (or vocab.json and merges.txt) into the folder."
        )
