"""Number formats of the model by name, and the fastest one that a device computes in."""

import logging
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ["NumberFormat", "choose_dtype", "computes_fast_in_bfloat16"]

logger = logging.getLogger(__name__)

FAST_CPU_FEATURES = ("amx_bf16", "avx512_bf16")


class NumberFormat(str, Enum):
    """Number format of the model; `auto` leaves the choice to the device."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


def choose_dtype(name: "torch.dtype | str", device: "torch.device | str") -> "torch.dtype":
    """The number format of that name.

    Args:
        name: "float32", "bfloat16", "float16", or "auto": bfloat16 where the device is fast in it, else float32; or a
            number format of torch, which is taken as it is.
        device: Where the model shall run.

    Raises:
        ValueError: If there is no such format.
    """
    import torch

    if isinstance(name, torch.dtype):
        return name
    names = [number_format.value for number_format in NumberFormat]
    if name not in names:
        raise ValueError(f"Expected a dtype out of {', '.join(names)}, but got {name!r}. Use 'auto'.")
    if name != NumberFormat.auto.value:
        return getattr(torch, name)
    device = torch.device(device)
    dtype = torch.bfloat16 if computes_fast_in_bfloat16(device) else torch.float32
    logger.info("Number format %s, chosen for %s.", str(dtype).removeprefix("torch."), device)
    return dtype


def computes_fast_in_bfloat16(device: "torch.device") -> bool:
    """Whether bfloat16 is computed by the device itself: by GPUs with such units, by CPUs with AMX or AVX-512 BF16.

    Elsewhere it is emulated, often many times slower than float32.
    """
    import torch

    if device.type == "cuda":
        return torch.cuda.is_available() and _is_fast_gpu(device)
    return device.type == "cpu" and any(map(torch.cpu.get_capabilities().get, FAST_CPU_FEATURES))


def _is_fast_gpu(device: "torch.device") -> bool:
    import torch

    with torch.cuda.device(device):  # asks for the current one
        return torch.cuda.is_bf16_supported(including_emulation=False)
