"""From the options about the model to a model and its processor, without Transformers' chatter."""

from enum import Enum
from typing import TYPE_CHECKING, Annotated

import typer

from ..dtypes import NumberFormat, choose_dtype
from .method_options import resolve_method

if TYPE_CHECKING:
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
    from ..loading import choose_device, load, load_demo_vocabulary

    quiet_libraries()
    place = choose_device(device)
    chosen_dtype = choose_dtype(dtype.value, place)
    typer.echo(f"Loading {model} in {str(chosen_dtype).removeprefix('torch.')} on {place} ...", err=True)
    if vocabulary is None and model == DEMO_MODEL:
        vocabulary = load_demo_vocabulary()
    loaded = load(
        model,
        vocabulary,
        method=None if method is None else resolve_method(method),
        preset=None if preset is None else preset.value,
        dtype=chosen_dtype,
        device=place,
    )
    if not loaded.model.config.query_classes:
        raise ValueError(
            f'Expected classes, as {model} has none of its own, but got none. Add --classes "cat; dog; sky".'
        )
    return loaded


def quiet_libraries() -> None:
    """Keep Transformers' loading bars and advice off the terminal; bars of downloads stay."""
    from huggingface_hub.utils.tqdm import enable_progress_bars
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    enable_progress_bars()
