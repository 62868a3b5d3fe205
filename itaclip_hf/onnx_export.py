"""The vision tower as an ONNX file: pixels of windows in, unit patch features and their cosines with the queries out.

The rebuilt last block, the projection and the baked queries are in the file, and the batch is free. A JSON file beside
it says what else it takes to segment with it. Nothing is written before ONNX Runtime gave what torch gives.
"""

import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn

from .files import own_results, write_atomically, write_json
from .methods import Settings
from .modeling import ITACLIPForSemanticSegmentation
from .modeling.data_contract import pack_inputs, read_images
from .modeling.windows import WindowLayout
from .processing import ITACLIPProcessor
from .version import __version__

__all__ = [
    "DEFAULT_SIZE",
    "LARGEST_DIFFERENCE",
    "TextTower",
    "VisionTower",
    "export_onnx",
    "refuse_idle_size",
    "trace_tower",
]

DEFAULT_SIZE = (224, 224)
LARGEST_DIFFERENCE = 1e-4  # of cosines and of unit features from torch's; rounding makes less than 1e-5 of it
LARGEST_FILE = 2**31 - 2**27  # bytes; protobuf ends at 2 GiB, larger weights go into a file of their own
MODEL_FILE, WEIGHTS_FILE, DESCRIPTION_FILE = "vision.onnx", "vision.onnx.data", "vision.json"


class VisionTower(nn.Module):
    """Windows to unit patch features, and to their cosines with the baked queries.

    Args:
        model: The model, with a baked vocabulary.
    """

    queries: torch.Tensor

    def __init__(self, model: ITACLIPForSemanticSegmentation) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("queries", model.query_embeddings.float().T.contiguous())

    def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(batch, 3, height, width) -> (batch, grid_h, grid_w, queries) and (batch, grid_h, grid_w, dim)."""
        features = self.model.encode_patches(pixel_values)
        return features @ self.queries, features


class TextTower(nn.Module):
    """Prompts to text embeddings, not at unit length.

    Args:
        model: The model.
    """

    def __init__(self, model: ITACLIPForSemanticSegmentation) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """(batch, tokens) and the same -> (batch, dim)."""
        return self.model.get_text_features(input_ids, attention_mask, return_dict=True).pooler_output


@torch.no_grad()
def trace_tower(tower: nn.Module, *inputs: torch.Tensor) -> torch.export.ExportedProgram:
    """`torch.export` of a tower, for batches of any size and all else as in the example.

    Args:
        tower: A [`VisionTower`] or [`TextTower`].
        *inputs: An example batch, of two or more.

    Raises:
        ValueError: If what the model's settings ask for cannot be traced.

    Example:
    ```python
    >>> import torch
    >>> from itaclip_hf import load_demo
    >>> from itaclip_hf.onnx_export import VisionTower, trace_tower

    >>> model, _ = load_demo()
    >>> program = trace_tower(VisionTower(model), torch.zeros(2, 3, 224, 224))
    >>> cosines, features = program.module()(torch.zeros(5, 3, 224, 224))
    >>> features.shape
    torch.Size([5, 14, 14, 128])

    ```
    """
    free_batch = ({0: torch.export.Dim("batch")},) * len(inputs)
    try:
        return torch.export.export(tower.eval(), inputs, dynamic_shapes=free_batch)
    except Exception as error:  # tracing fails in many ways, most of which do not say whose fault it is
        raise ValueError(
            f"Expected settings that torch can trace, but got {type(error).__name__}: {str(error).splitlines()[0]}. "
            "Choose a method that weighs maps among queries, keys and values, such as `--method itaclip`."
        ) from error


def export_onnx(
    folder: str | os.PathLike[str],
    model: ITACLIPForSemanticSegmentation,
    processor: ITACLIPProcessor,
    image_size: tuple[int, int] = DEFAULT_SIZE,
) -> dict[str, Any]:
    """Write `vision.onnx` and `vision.json`, checked against torch.

    Args:
        folder: Where to write; made if missing.
        model: The model, in float32 on the CPU, with a baked vocabulary.
        processor: Its processor.
        image_size: (height, width) of an image to segment. Where the model looks at images in one piece, the file
            takes the size alone that this one is resized to; windows have one size, unless an image is smaller.

    Returns:
        What stands in the JSON file.

    Raises:
        ImportError: If an optional package is missing.
        ValueError: If there is no vocabulary, the model is not in float32, its settings cannot be traced, or ONNX
            Runtime gives something else than torch.
        OSError: If the files cannot be written.

    Example:
    ```python
    >>> from itaclip_hf import load_demo
    >>> from itaclip_hf.onnx_export import export_onnx

    >>> description = export_onnx("demo-onnx", *load_demo())
    >>> description["input"]["shape"]
    ['batch', 3, 224, 224]

    ```
    """
    _expect_packages()
    if len(model.query_embeddings) == 0:
        raise ValueError("Expected a model with a vocabulary, but it has none. Name the classes to look for.")
    if (model.dtype, model.device.type) != (torch.float32, "cpu"):
        raise ValueError(
            f"Expected a model in float32 on the CPU, but it is in {model.dtype} on {model.device}. Convert the ONNX "
            "file afterwards, if you need another format."
        )
    layout = _lay_out(model, processor, image_size)
    if layout.padded_size != layout.size:
        raise ValueError(
            f"Expected windows that need no padding, but those of {layout.size} pixels are padded to "
            f"{layout.padded_size}. Export for larger images, or set `window_multiple=1`."
        )
    height, width = layout.size
    tower = VisionTower(model)
    program = trace_tower(tower, torch.zeros(2, 3, height, width))  # torch takes a batch of one for a fixed size
    with own_results(folder, (MODEL_FILE, WEIGHTS_FILE, DESCRIPTION_FILE)):
        with tempfile.TemporaryDirectory() as place:
            path = Path(place) / MODEL_FILE
            _write_onnx(program, path, is_large=_count_bytes(model) > LARGEST_FILE)
            difference = _compare(path, tower, (height, width))
            for written in Path(place).iterdir():
                with written.open("rb") as source, write_atomically(Path(folder) / written.name) as target:
                    shutil.copyfileobj(source, target)
        description = _describe(model, processor, (height, width), difference)
        write_json(Path(folder) / DESCRIPTION_FILE, description)
    return description


def refuse_idle_size(
    model: ITACLIPForSemanticSegmentation, processor: ITACLIPProcessor, image_size: tuple[int, int]
) -> None:
    """Refuse a size of images that gives the windows that there are without one.

    Raises:
        ValueError: If images of that size fill the windows as those of the default size do.
    """
    given, default = (_lay_out(model, processor, size).size for size in (image_size, DEFAULT_SIZE))
    if given == default and image_size != DEFAULT_SIZE:
        sizes = ("x".join(map(str, size)) for size in (image_size, DEFAULT_SIZE))
        raise ValueError(
            "Expected an --image-size that changes something, but got {}, of which the model sees windows as of {}. "
            "Leave it out, or change --window-size.".format(*sizes)
        )


def _lay_out(
    model: ITACLIPForSemanticSegmentation, processor: ITACLIPProcessor, image_size: tuple[int, int]
) -> WindowLayout:
    image = Image.new("RGB", image_size[::-1])
    images, _ = pack_inputs(dict(processor.image_processor(images=image, return_tensors="pt")))
    return read_images(images, model.config)[0].layout


def _expect_packages() -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        try:
            __import__(name)
        except ImportError as error:
            raise ImportError(
                f"Expected {name} for the export, but it is not installed. Run `pip install 'itaclip_hf[onnx]'`."
            ) from error


def _count_bytes(model: ITACLIPForSemanticSegmentation) -> int:
    parts = (model.vision_model, model.visual_projection)
    return sum(weight.numel() * weight.itemsize for part in parts for weight in part.parameters())


@torch.no_grad()
def _write_onnx(program: torch.export.ExportedProgram, path: Path, is_large: bool) -> None:
    with _quiet_exporter():
        exported = torch.onnx.export(
            program,
            dynamo=True,
            input_names=["pixel_values"],
            output_names=["cosines", "features"],
            dynamic_shapes=({0: "batch"},),
            verbose=False,
        )
    assert exported is not None
    exported.save(path, external_data=is_large)


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Without what torch says of packages that it does without, and of its own past."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


@torch.no_grad()
def _compare(path: Path, tower: VisionTower, size: tuple[int, int]) -> float:
    """Largest difference between what ONNX Runtime and torch make of noise, one image and a batch."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(0)
    difference = torch.zeros(())  # a tensor: Python's `max` may lose NaN
    for batch in (1, 3):  # neither is that of the trace
        pixels = torch.randn(batch, 3, *size, generator=generator)
        found = session.run(["cosines", "features"], {"pixel_values": pixels.numpy()})
        for array, expected in zip(found, tower(pixels), strict=True):
            difference = torch.maximum(difference, (torch.from_numpy(array) - expected).abs().max())
    if not difference <= LARGEST_DIFFERENCE:  # written so that NaN is refused
        raise ValueError(
            f"Expected ONNX Runtime to give what torch gives, within {LARGEST_DIFFERENCE:g}, but the largest "
            f"difference is {difference:.2g}. Try other versions of onnxscript and onnxruntime."
        )
    return float(difference)


def _describe(
    model: ITACLIPForSemanticSegmentation, processor: ITACLIPProcessor, size: tuple[int, int], difference: float
) -> dict[str, Any]:
    image_processor, config = processor.image_processor, model.config
    grid = model.vision_model.compute_grid(*size)
    return {
        "itaclip_hf": __version__,
        "file": MODEL_FILE,
        "input": {"name": "pixel_values", "shape": ["batch", 3, *size]},
        "outputs": {
            "cosines": ["batch", *grid, len(config.query_classes)],
            "features": ["batch", *grid, config.projection_dim],
        },
        "rescale_factor": image_processor.rescale_factor,
        "image_mean": list(image_processor.image_mean),
        "image_std": list(image_processor.image_std),
        "labels": config.class_names,
        "query_classes": list(config.query_classes),
        "settings": Settings.of(model, processor).to_json(),
        "largest_difference_from_torch": difference,
    }
