"""What is measured: a model, an image and the queries of a benchmark, by command-line options.

Time and memory depend on sizes, not on weights. So the default is a model of ViT-B/16's size with random weights and
queries taken from the image's own features: nothing is downloaded, and still all classes win somewhere.
"""

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import nn
from transformers import CLIPTextConfig, CLIPVisionConfig
from transformers.utils import logging

from itaclip_hf import ITACLIPConfig, ITACLIPForSemanticSegmentation, ITACLIPImageProcessor
from itaclip_hf.evaluation.data.benchmarks import BENCHMARKS
from itaclip_hf.loading import load, resolve_checkpoint
from itaclip_hf.methods import get_method
from itaclip_hf.samples import SAMPLE_PHOTOS

from .arithmetic import EncoderWork, count_encoder_work

__all__ = [
    "DTYPES",
    "RANDOM_MODELS",
    "Workload",
    "add_model_arguments",
    "add_output_arguments",
    "add_size_arguments",
    "add_workload_arguments",
    "fill_weights",
    "load_model",
    "make_workload",
    "open_picture",
    "parse_size",
    "read_config",
    "read_device",
]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
RANDOM_MODELS = {  # (patch, width, layers, heads of the vision tower; width of the text tower and dimension)
    "vit-b32": (32, 768, 12, 12, 512),
    "vit-b16": (16, 768, 12, 12, 512),
    "vit-l14": (14, 1024, 24, 16, 768),
}
SHARPNESS = 3.0  # of random attention maps; with less, all patches look alike


class Workload(NamedTuple):
    """One image ready for the model, and what to compare it with.

    Attributes:
        name: What the model was called.
        model: In evaluation mode, on its device.
        image_processor: With the benchmark's settings.
        image: The picture.
        inputs: What the processor made of it, on the device.
        query_embeddings: (queries, dim) float32.
        query_classes: (queries,) class of each query.
        work: What the vision tower has to do.
    """

    name: str
    model: ITACLIPForSemanticSegmentation
    image_processor: ITACLIPImageProcessor
    image: Image.Image
    inputs: dict[str, torch.Tensor]
    query_embeddings: torch.Tensor
    query_classes: torch.Tensor
    work: EncoderWork

    @property
    def queries(self) -> dict[str, torch.Tensor]:
        """The queries as arguments of the model."""
        return {"query_embeddings": self.query_embeddings, "query_classes": self.query_classes}

    def describe(self) -> dict[str, Any]:
        """Sizes and counts, as JSON values."""
        height, width = self.inputs["image_sizes"][0].tolist()
        return {
            "model": f"{self.name}{' (random weights)' if self.name in RANDOM_MODELS else ''}",
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "device": str(self.model.device),
            "image": f"{self.image.width}x{self.image.height}, resized to {width}x{height}",
            "stride": self.model.config.window_stride,
            "windows": self.work.windows,
            "views of a window": self.work.views,
            "queries": len(self.query_classes),
            "classes": 1 + int(self.query_classes.max()),
            "TFLOP of the ViT": round(self.work.flops / 1e12, 3),
        }


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Options about the model and where it runs."""
    names = ", ".join(RANDOM_MODELS)
    parser.add_argument(
        "--model",
        default="vit-b16",
        help=f"{names} (that size, random weights), demo, or a folder or hub id of a CLIP checkpoint (%(default)s)",
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, … (%(default)s)")
    parser.add_argument("--threads", type=int, help="threads of torch on the CPU (its own choice)")


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
    """Options about results."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers there")


def add_size_arguments(parser: argparse.ArgumentParser, size: str = "640x586") -> None:
    """Options about the size of the work."""
    parser.add_argument(
        "--benchmark",
        choices=list(BENCHMARKS),
        default="voc21",
        help="whose number of queries and settings are taken (%(default)s)",
    )
    parser.add_argument("--size", type=parse_size, default=size, metavar="WxH", help="of the picture (%(default)s)")
    parser.add_argument("--stride", type=int, default=28, help="pixels between windows (%(default)s)")


def add_workload_arguments(parser: argparse.ArgumentParser, size: str = "640x586") -> None:
    """Options about model, picture and queries."""
    add_model_arguments(parser)
    add_size_arguments(parser, size)
    parser.add_argument("--image", type=Path, help="a picture (a photograph that comes with the package)")


def parse_size(text: str) -> tuple[int, int]:
    """Read "640x586" as (height, width) = (586, 640)."""
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f"Expected a size like 640x586, width before height, but got {text!r}.")
    return int(height), int(width)


def read_device(options: argparse.Namespace) -> torch.device:
    """The device of the options; sets the number of threads."""
    if options.threads:
        torch.set_num_threads(options.threads)
    return torch.device(options.device)


def read_config(name: str, **fields: Any) -> ITACLIPConfig:
    """The configuration of a checkpoint or of a model of a known size."""
    if name in RANDOM_MODELS:
        return _make_config(*RANDOM_MODELS[name], name_or_path=name, **fields)
    config: ITACLIPConfig = ITACLIPConfig.from_pretrained(resolve_checkpoint(name), **fields)
    return config


def load_model(
    name: str, dtype: torch.dtype, device: torch.device, **fields: Any
) -> tuple[ITACLIPForSemanticSegmentation, ITACLIPImageProcessor]:
    """Load a checkpoint, or make a model of a known size with random weights, equal ones every time."""
    logging.disable_progress_bar()
    if name not in RANDOM_MODELS:
        model, processor = load(name, settings=fields, dtype=dtype, device=device)
        return model, processor.image_processor
    model = ITACLIPForSemanticSegmentation(read_config(name, **fields)).eval()
    fill_weights(model)
    return model.to(device, dtype), ITACLIPImageProcessor()


def make_workload(options: argparse.Namespace, dtype: torch.dtype) -> Workload:
    """Everything that the options of `add_workload_arguments` ask for."""
    device = read_device(options)
    settings = get_method("itaclip").settings(options.benchmark)
    model, processor = load_model(
        options.model,
        dtype,
        device,
        window_stride=options.stride,
        similarity_scale=settings.similarity_scale,
    )
    fields = {
        "size": {**dict(processor.size), "shortest_edge": settings.shortest_edge},
        "photometric_weight": settings.photometric_weight,
        "score_threshold": settings.score_threshold,
        "area_threshold": settings.area_threshold,
    }
    processor = ITACLIPImageProcessor.from_dict({**processor.to_dict(), **fields})
    image = open_picture(options.image, options.size)
    inputs = {key: value.to(device) for key, value in processor(image, return_tensors="pt").items()}
    query_classes = torch.tensor(BENCHMARKS[options.benchmark].vocabulary().query_classes)
    height, width = inputs["image_sizes"][0].tolist()
    views = inputs["augmentation_weight"].shape[1]
    return Workload(
        options.model,
        model,
        processor,
        image,
        inputs,
        _choose_queries(model, inputs["pixel_values"], len(query_classes)),
        query_classes.to(device),
        count_encoder_work(model.config, (height, width), views),
    )


def _make_config(patch: int, width: int, layers: int, heads: int, text_width: int, **fields: Any) -> ITACLIPConfig:
    return ITACLIPConfig(
        projection_dim=text_width,
        text_config=CLIPTextConfig(
            hidden_size=text_width, intermediate_size=4 * text_width, num_attention_heads=text_width // 64
        ),
        vision_config=CLIPVisionConfig(
            hidden_size=width,
            intermediate_size=4 * width,
            num_attention_heads=heads,
            num_hidden_layers=layers,
            patch_size=patch,
        ),
        **fields,
    )


@torch.no_grad()
def fill_weights(model: nn.Module) -> None:
    """Give it random weights under which patches differ, as the default initialisation hardly tells them apart."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if "norm" in name and name.endswith("weight"):
            parameter.copy_(1 + 0.1 * noise)
        elif parameter.ndim < 2:
            parameter.copy_(0.02 * noise)
        elif "embedding.weight" in name:
            parameter.copy_(0.3 * noise)
        else:
            gain = SHARPNESS if ".q_proj." in name or ".k_proj." in name else 1.0
            parameter.copy_(gain * parameter[0].numel() ** -0.5 * noise)


def open_picture(path: Path | None, size: tuple[int, int]) -> Image.Image:
    """A picture, or a photograph that comes with the package, at (height, width)."""
    with Image.open(path or SAMPLE_PHOTOS["coffee"]) as image:
        return image.convert("RGB").resize((size[1], size[0]), Image.Resampling.BICUBIC)


@torch.inference_mode()
def _choose_queries(model: ITACLIPForSemanticSegmentation, pixel_values: torch.Tensor, count: int) -> torch.Tensor:
    """Unit embeddings that the image's patches resemble, each in another way: (count, dim) float32."""
    size = min(model.config.window_size, *pixel_values.shape[-2:])
    corners = [pixel_values[..., :size, :size], pixel_values[..., -size:, -size:]]
    patches = model.encode_patches(torch.cat(corners)).flatten(0, 2)
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randperm(len(patches), generator=generator)[:count].to(patches.device)
    return nn.functional.normalize(patches[chosen] - patches.mean(0), dim=-1)
