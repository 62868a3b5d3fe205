"""What the machine can do at best, and the least time that an image's vision tower takes on it.

First the machine's own matrix rate, in the shapes of the tower and in a large square, in every number format that it
is fast in; then its memory bandwidth; then the tower's operations by formula.

    python -m benchmarks.roofline --model vit-b16 --size 640x586 --stride 28
"""

import argparse
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from transformers.image_utils import SizeDict

from itaclip_hf import ITACLIPConfig
from itaclip_hf.methods import get_method
from itaclip_hf.modeling.windows import choose_views_per_batch
from itaclip_hf.processing.pixels import compute_resized_size

from .arithmetic import count_encoder_work, split_view_flops
from .measuring import median_seconds
from .output import describe_machine, format_seconds, format_table, print_machine, save_json
from .workload import (
    DTYPES,
    add_model_arguments,
    add_output_arguments,
    add_size_arguments,
    read_config,
    read_device,
)

__all__ = ["MatrixRates", "choose_dtypes", "is_fast", "main", "measure_bandwidth", "measure_matrix_rates"]

SQUARE_SIDES = {"cpu": 2048, "cuda": 8192}
PROBE_SIDES = {"cpu": 256, "cuda": 4096}
COPIED_BYTES = {"cpu": 2**28, "cuda": 2**32}
FAST_SHARE = 1.2  # a short format counts as fast if its products run that much faster than those of float32


class MatrixRates(NamedTuple):
    """Operations a second in matrix products of one number format.

    Attributes:
        dtype: The format.
        shapes: Rate in each shape, by name.
    """

    dtype: torch.dtype
    shapes: dict[str, float]

    @property
    def best(self) -> float:
        """The machine's matrix rate: the highest in any shape."""
        return max(self.shapes.values())


def measure_matrix_rates(
    config: ITACLIPConfig, dtype: torch.dtype, device: torch.device, repeats: int = 5
) -> MatrixRates:
    """Rates in the shapes of a vision tower and in a large square.

    Args:
        config: Dimensions of the tower.
        dtype: Number format.
        device: Where to measure.
        repeats: Measurements of each shape; the median counts.
    """
    vision = config.vision_config
    width, side = vision.hidden_size, cast(int, vision.image_size)
    views = choose_views_per_batch(vision, (side, side), dtype, device)
    tokens = 1 + (side // cast(int, vision.patch_size)) ** 2
    heads, head_width = views * vision.num_attention_heads, width // vision.num_attention_heads
    square = (SQUARE_SIDES[device.type],) * 2
    shapes = {
        "square": (square, square),
        "attention's linear layers": ((views * tokens, width), (width, width)),
        "feed-forward, widening": ((views * tokens, width), (width, vision.intermediate_size)),
        "feed-forward, narrowing": ((views * tokens, vision.intermediate_size), (vision.intermediate_size, width)),
        "attention scores": ((heads, tokens, head_width), (heads, head_width, tokens)),
        "attention times values": ((heads, tokens, tokens), (heads, tokens, head_width)),
    }
    return MatrixRates(
        dtype, {name: _measure_product(*sizes, dtype, device, repeats) for name, sizes in shapes.items()}
    )


def is_fast(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether products in a format run clearly faster than in float32, by a quick trial of small ones."""
    size = (PROBE_SIDES[device.type],) * 2
    rate, reference = (_measure_product(size, size, each, device, repeats=3) for each in (dtype, torch.float32))
    return rate > FAST_SHARE * reference


def measure_bandwidth(device: torch.device) -> float:
    """Bytes a second that a copy reads and writes."""
    source = torch.ones(COPIED_BYTES[device.type] // 4, device=device)
    target = torch.empty_like(source)
    return 2 * COPIED_BYTES[device.type] / median_seconds(lambda: target.copy_(source), device, repeats=5)


def _measure_product(
    left: tuple[int, ...], right: tuple[int, ...], dtype: torch.dtype, device: torch.device, repeats: int
) -> float:
    """Operations a second of `left @ right` for matrices or batches of matrices of these sizes."""
    first, second = (torch.randn(size, device=device).to(dtype) for size in (left, right))
    result = first @ second
    seconds = median_seconds(lambda: torch.matmul(first, second, out=result), device, repeats)
    return 2 * result.numel() * left[-1] / seconds


def choose_dtypes(names: Sequence[str] | None, device: torch.device) -> list[torch.dtype]:
    """The formats named; float32 and bfloat16 where it is fast if none is."""
    if names:
        return [DTYPES[name] for name in names]
    return [torch.float32, *([torch.bfloat16] if is_fast(torch.bfloat16, device) else [])]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure matrix rates and bandwidth, and compute the least time of an image's vision tower."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.roofline", description=main.__doc__)
    add_model_arguments(parser)
    add_size_arguments(parser)
    parser.add_argument(
        "--dtypes", nargs="+", choices=list(DTYPES), help="number formats (float32, and bfloat16 where it is fast)"
    )
    parser.add_argument("--views", type=int, default=5, help="views of each window (%(default)s)")
    add_output_arguments(parser)
    options = parser.parse_args(arguments)
    device = read_device(options)
    machine = describe_machine(device)
    print_machine(machine)
    config = read_config(options.model, window_stride=options.stride)
    all_rates = [measure_matrix_rates(config, dtype, device) for dtype in choose_dtypes(options.dtypes, device)]
    print(_format_rates(all_rates), flush=True)
    bandwidth = measure_bandwidth(device)
    print(f"\nMemory bandwidth (copy, read and written): {bandwidth / 1e9:.1f} GB/s\n")
    shortest_edge = get_method("itaclip").settings(options.benchmark).shortest_edge
    resized_size = compute_resized_size(options.size[0], options.size[1], SizeDict(shortest_edge=shortest_edge))
    work = count_encoder_work(config, resized_size, options.views)
    print(_format_work(config, work.flops, work.windows * work.views))
    print()
    print(_format_floors(all_rates, work.flops))
    measured: dict[str, Any] = {
        "machine": machine,
        "rates": {_name(rates): rates.shapes for rates in all_rates},
        "bandwidth": bandwidth,
        "window_views": work.windows * work.views,
        "flops": work.flops,
    }
    save_json(options.json, measured)


def _format_rates(all_rates: Sequence[MatrixRates]) -> str:
    header = ["TFLOP/s in products", *(_name(rates) for rates in all_rates)]
    rows = [[shape, *(f"{rates.shapes[shape] / 1e12:.3f}" for rates in all_rates)] for shape in all_rates[0].shapes]
    return format_table(header, [*rows, ["**best**", *(f"**{rates.best / 1e12:.3f}**" for rates in all_rates)]])


def _format_work(config: ITACLIPConfig, flops: int, window_views: int) -> str:
    parts = split_view_flops(config, (config.window_size,) * 2)
    rows = [[name, f"{count / 1e9:.3f}"] for name, count in parts.items()]
    total = f"**{sum(parts.values()) / 1e9:.3f}**"
    rows += [["**one window view**", total], [f"**all {window_views} of the image**", f"**{flops / 1e9:,.0f}**"]]
    return format_table(["the ViT's work", "GFLOP"], rows)


def _format_floors(all_rates: Sequence[MatrixRates], flops: int) -> str:
    rows = [[_name(rates), format_seconds(flops / rates.best)] for rates in all_rates]
    return format_table(["number format", "least time of the ViT for the image"], rows)


def _name(rates: MatrixRates) -> str:
    return str(rates.dtype).removeprefix("torch.")


if __name__ == "__main__":
    main()
