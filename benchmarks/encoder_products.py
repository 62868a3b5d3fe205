"""How much of the vision tower's time are its matrix products: the tower and its products alone, taking turns.

The rate of a shared machine wanders within minutes, so a rate measured before or after says little about what was
possible in between. Here one batch of window views goes through the tower, then the same products run by themselves
on the model's own weights, without softmaxes, norms, activations or additions, and so on in turns. The median of the
ratios counts.

    python -m benchmarks.encoder_products --model vit-b16
"""

import argparse
import statistics
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import torch

from itaclip_hf import ITACLIPForSemanticSegmentation
from itaclip_hf.modeling.windows import choose_views_per_batch

from .arithmetic import count_last_attentions, split_view_flops
from .measuring import median_seconds
from .output import describe_machine, format_seconds, format_table, print_machine, save_json
from .workload import DTYPES, add_model_arguments, add_output_arguments, load_model, read_device

__all__ = ["ProductShare", "main", "make_products", "measure_product_share"]


class ProductShare(NamedTuple):
    """What the turns gave.

    Attributes:
        views: Window views of a batch.
        flops: Floating-point operations of a batch.
        encoder_seconds: Of each turn, for the tower.
        product_seconds: Of each turn, for its products alone.
    """

    views: int
    flops: int
    encoder_seconds: list[float]
    product_seconds: list[float]

    @property
    def median(self) -> float:
        """Share of the tower's time that its products would take alone."""
        turns = zip(self.product_seconds, self.encoder_seconds, strict=True)
        return statistics.median(products / encoder for products, encoder in turns)


def make_products(model: ITACLIPForSemanticSegmentation, views: int) -> Callable[[], None]:
    """All matrix products of the tower for a batch of window views, as one call; results go into buffers made here.

    Args:
        model: Its weights are multiplied with, and its method says what the last block does.
        views: Number of views of whole windows.
    """
    config, vision = model.config, model.config.vision_config
    tower: Any = model.vision_model
    patch_size = cast(int, vision.patch_size)
    patches = (config.window_size // patch_size) ** 2
    heads, head_width = views * vision.num_attention_heads, vision.hidden_size // vision.num_attention_heads
    tokens = 1 + patches

    def make(*size: int) -> torch.Tensor:
        return torch.randn(size, device=model.device).to(model.dtype)

    cut_out = make(views * patches, vision.num_channels * patch_size**2)
    embedded = make(views * patches, vision.hidden_size)
    hidden, result = make(views * tokens, vision.hidden_size), make(views * tokens, vision.hidden_size)
    widened = make(views * tokens, vision.intermediate_size)
    query, key = make(heads, tokens, head_width), make(heads, head_width, tokens)
    scores, attended = make(heads, tokens, tokens), make(heads, tokens, head_width)
    projected = make(views * patches, config.projection_dim)
    last_attentions = count_last_attentions(config)

    def multiply() -> None:
        layers = tower.encoder.layers
        torch.mm(cut_out, tower.embeddings.patch_embedding.weight.flatten(1).T, out=embedded)
        for number, block in enumerate(layers, start=1):
            attention, is_last = block.self_attn, number == len(layers)
            for layer in (attention.q_proj, attention.k_proj, attention.v_proj, attention.out_proj):
                torch.mm(hidden, layer.weight.T, out=result)
            for _ in range(last_attentions if is_last else 1):
                torch.bmm(query, key, out=scores)
                torch.bmm(scores, query, out=attended)
            if not is_last or config.last_feed_forward:
                torch.mm(hidden, block.mlp.fc1.weight.T, out=widened)
                torch.mm(widened, block.mlp.fc2.weight.T, out=result)
        torch.mm(embedded, model.visual_projection.weight.T, out=projected)

    return multiply


@torch.inference_mode()
def measure_product_share(model: ITACLIPForSemanticSegmentation, turns: int, views: int | None = None) -> ProductShare:
    """Let the tower and its products take turns on one batch.

    Args:
        model: The model, where it shall run.
        turns: Number of times that each of the two runs, after one of each to warm up.
        views: Window views of a batch; as many as the model would choose if left out.
    """
    config, device = model.config, model.device
    window = (config.window_size, config.window_size)
    views = views or choose_views_per_batch(config.vision_config, window, model.dtype, device)
    pixels = torch.randn(views, config.vision_config.num_channels, *window, device=device).to(model.dtype)
    calls: tuple[Callable[[], Any], ...] = (lambda: model.encode_patches(pixels), make_products(model, views))
    seconds: tuple[list[float], list[float]] = ([], [])
    for turn in range(turns + 1):
        for call, own in zip(calls, seconds, strict=True):
            measured = median_seconds(call, device, repeats=1, warmup=0)
            if turn:
                own.append(measured)
    return ProductShare(views, views * sum(split_view_flops(config, window).values()), *seconds)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what share of the vision tower's time its matrix products take."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.encoder_products", description=main.__doc__)
    add_model_arguments(parser)
    parser.add_argument("--dtype", choices=list(DTYPES), default="float32", help="number format (%(default)s)")
    parser.add_argument("--turns", type=int, default=20, help="turns of each (%(default)s)")
    add_output_arguments(parser)
    options = parser.parse_args(arguments)
    device = read_device(options)
    machine = describe_machine(device)
    print_machine(machine)
    model, _ = load_model(options.model, DTYPES[options.dtype], device)
    share = measure_product_share(model, options.turns)
    print(_format_share(share))
    save_json(options.json, {"machine": machine, **share._asdict(), "share": share.median})


def _format_share(share: ProductShare) -> str:
    rows = []
    for name, seconds in (("the tower", share.encoder_seconds), ("its products alone", share.product_seconds)):
        median = statistics.median(seconds)
        slowest, fastest = (share.flops / extreme(seconds) / 1e12 for extreme in (max, min))
        rows.append(
            (name, format_seconds(median), f"{share.flops / median / 1e12:.3f}", f"{slowest:.3f} to {fastest:.3f}")
        )
    table = format_table(
        (f"{share.views} window views, {len(share.encoder_seconds)} turns", "median", "TFLOP/s", "over the turns"),
        rows,
    )
    return f"{table}\n\nThe products take {100 * share.median:.0f} % of the tower's time (median of the turns)."


if __name__ == "__main__":
    main()
