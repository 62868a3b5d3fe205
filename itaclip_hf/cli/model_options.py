"""From the options about the model to a model and its processor, without Transformers' chatter."""

from enum import Enum
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import torch

    from ..modeling import ITACLIPForSemanticSegmentation
    from ..processing import ITACLIPProcessor, Vocabulary

__all__ = [
    "DEFAULT_MODEL",
    "DEMO_MODEL",
    "DeviceOption",
    "Dtype",
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


class Dtype(str, Enum):
    """Number format of the model."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


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
DtypeOption = Annotated[Dtype, typer.Option("--dtype", help="Number format; half precision is for GPUs.")]


def load_model(
    model: str, vocabulary: "Vocabulary | None", preset: Preset | None, device: str, dtype: Dtype
) -> tuple["ITACLIPForSemanticSegmentation", "ITACLIPProcessor"]:
    """Load a model with a vocabulary baked in, on its device.

    Args:
        model: Folder, hub id, or "demo".
        vocabulary: What to segment; by default what the checkpoint brings along.
        preset: Window stride; by default the checkpoint's.
        device: "auto" or a device of torch.
        dtype: Number format.

    Raises:
        ValueError: If the checkpoint lacks weights, or there is no vocabulary, or the device is unknown.
        OSError: If the checkpoint cannot be loaded.
    """
    from ..checkpoints import load_complete_model, resolve_checkpoint
    from ..demo import DEMO_CHECKPOINT
    from ..processing import ITACLIPProcessor, Vocabulary

    quiet_libraries()
    typer.echo(f"Loading {model} ...", err=True)
    place = _choose_device(device)
    if vocabulary is None and model == DEMO_MODEL:
        vocabulary = Vocabulary.from_json_file(DEMO_CHECKPOINT / "vocabulary.json")
    loaded = load_complete_model(model, dtype.value, place)
    processor = ITACLIPProcessor.from_pretrained(resolve_checkpoint(model))
    if vocabulary is not None:
        loaded.set_vocabulary(processor, vocabulary)
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
