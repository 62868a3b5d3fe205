"""From the options about the model to a model and its processor, without Transformers' chatter."""

from enum import Enum
from typing import TYPE_CHECKING, Annotated

import typer

from ..dtypes import NumberFormat, choose_dtype
from .method_options import resolve_method

if TYPE_CHECKING:
    import torch

    from ..modeling import ITACLIPForSemanticSegmentation
    from ..processing import ITACLIPProcessor, Vocabulary

__all__ = [
    "DEFAULT_MODEL",
    "DEMO_MODEL",
    "DeviceOption",
    "DtypeOption",
    "ModelOption",
    "Preset",
    "PresetOption",
    "load_model",
    "quiet_libraries",
]

DEFAULT_MODEL = "openai/clip-vit-base-patch16"
DEMO_MODEL = "demo"


class Preset(str, Enum):
    """How finely windows are moved over the image."""

    paper = "paper"
    balanced = "balanced"
    fast = "fast"

    @property
    def window_stride(self) -> int:
        """Pixels from one window to the next."""
        return {"paper": 28, "balanced": 56, "fast": 112}[self.value]


ModelOption = Annotated[
    str, typer.Option("--model", help=f"CLIP checkpoint: a folder, a hub id, or '{DEMO_MODEL}' for the embedded one.")
]
PresetOption = Annotated[
    Preset | None,
    typer.Option(
        "--preset", help="Window stride of 28, 56 or 112 pixels; by default the model's own (28, the paper's)."
    ),
]
DeviceOption = Annotated[
    str, typer.Option("--device", help="'auto', 'cpu', 'cuda', 'cuda:1', …; auto: the GPU if any.")
]
DtypeOption = Annotated[
    NumberFormat,
    typer.Option("--dtype", help="Number format; auto: bfloat16 where the device is fast in it, else float32."),
]


def load_model(
    model: str,
    vocabulary: "Vocabulary | None",
    preset: Preset | None,
    device: str,
    dtype: NumberFormat,
    method: str | None = None,
) -> tuple["ITACLIPForSemanticSegmentation", "ITACLIPProcessor"]:
    """Load a model with a vocabulary baked in, on its device.

    Args:
        model: Folder, hub id, or "demo".
        vocabulary: What to segment; by default what the checkpoint brings along.
        preset: Window stride; by default the method's.
        device: "auto" or a device of torch.
        dtype: Number format.
        method: As the user names it, see `resolve_method`; by default what the checkpoint says.

    Raises:
        ValueError: If the checkpoint lacks weights, or there is no vocabulary, or the device or method is unknown.
        OSError: If the checkpoint cannot be loaded.
    """
    from ..checkpoints import load_complete_model, resolve_checkpoint
    from ..demo import DEMO_CHECKPOINT
    from ..method_loading import set_processor_fields
    from ..modeling import get_method
    from ..processing import ITACLIPProcessor, Vocabulary
    from ..text_cache import bake_vocabulary

    quiet_libraries()
    entry = None if method is None else get_method(resolve_method(method))
    place = _choose_device(device)
    chosen_dtype = choose_dtype(dtype.value, place)
    typer.echo(f"Loading {model} in {str(chosen_dtype).removeprefix('torch.')} on {place} ...", err=True)
    if vocabulary is None and model == DEMO_MODEL:
        vocabulary = Vocabulary.from_json_file(DEMO_CHECKPOINT / "vocabulary.json")
    loaded = load_complete_model(model, chosen_dtype, place, **({} if entry is None else entry.config_fields()))
    processor = ITACLIPProcessor.from_pretrained(resolve_checkpoint(model))
    if entry is not None:
        set_processor_fields(processor, entry.processor_fields())
    if vocabulary is not None:
        bake_vocabulary(loaded, processor, vocabulary)
    elif not loaded.config.query_classes:
        raise ValueError(
            f'Expected classes, as {model} has none of its own, but got none. Add --classes "cat; dog; sky".'
        )
    if preset is not None:
        loaded.config.window_stride = preset.window_stride
    return loaded, processor


def quiet_libraries() -> None:
    """Keep Transformers' loading bars and advice off the terminal; bars of downloads stay."""
    from huggingface_hub.utils.tqdm import enable_progress_bars
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    enable_progress_bars()


def _choose_device(name: str) -> "torch.device":
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"Expected a device like 'cpu' or 'cuda:0', but got {name!r}. Use 'auto'.") from error
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        raise ValueError(
            f"Expected a device of this machine, but got {name!r} and {torch.cuda.device_count()} GPUs. Use 'auto'."
        )
    return device
