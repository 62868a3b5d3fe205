"""`itaclip env`: what a bug report needs to say about the machine."""

from .terminal import say

__all__ = ["env"]

PACKAGES = ("torch", "transformers", "huggingface_hub", "safetensors", "tokenizers", "numpy", "pillow", "accelerate")
OF_EXTRAS = ("gradio", "rasterio", "av", "pycocotools", "onnxruntime", "pydensecrf2")


def env() -> None:
    """Print versions, devices and what the environment sets, for a bug report."""
    import os
    import platform

    import torch
    from huggingface_hub import constants

    from ..loading import choose_device, computes_fast_in_bfloat16
    from ..text_cache import CACHE_VARIABLE
    from ..version import __version__

    device = choose_device("auto")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    facts = {
        "itaclip_hf": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        **{package: _find_version(package) for package in (*PACKAGES, *OF_EXTRAS)},
        "device": f"{device} ({name}), {'fast' if computes_fast_in_bfloat16(device) else 'not fast'} in bfloat16",
        "threads": torch.get_num_threads(),
        "offline": constants.HF_HUB_OFFLINE,
        CACHE_VARIABLE: os.environ.get(CACHE_VARIABLE, "not set"),
    }
    for fact, value in facts.items():
        say(f"{fact}: {value}")


def _find_version(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
