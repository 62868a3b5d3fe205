"""How much a vision tower has to compute for an image: floating-point operations by formula.

A product of (n, k) and (k, m) counts 2 n k m. Softmaxes, norms and activations are left out: they cost time, but a
machine's matrix rate is measured in products alone.
"""

from typing import NamedTuple, cast

from itaclip_hf import ITACLIPConfig
from itaclip_hf.modeling.windows import plan_windows

__all__ = [
    "EncoderWork",
    "count_encoder_work",
    "count_last_attentions",
    "split_view_flops",
]


class EncoderWork(NamedTuple):
    """What the tower has to do for one image.

    Attributes:
        windows: Number of windows.
        views: Views of each.
        view_flops: Floating-point operations of one view of one window.
    """

    windows: int
    views: int
    view_flops: int

    @property
    def flops(self) -> int:
        """Floating-point operations of the image."""
        return self.windows * self.views * self.view_flops


def count_encoder_work(config: ITACLIPConfig, resized_size: tuple[int, int], views: int) -> EncoderWork:
    """Count windows and operations of an image.

    Args:
        config: Dimensions of the tower, last block and windows.
        resized_size: (height, width) of the resized image.
        views: Views of each window.
    """
    layout = plan_windows(resized_size, config.window_size, config.window_stride, config.window_multiple)
    flops = sum(split_view_flops(config, layout.padded_size).values())
    return EncoderWork(layout.num_windows, views, flops)


def split_view_flops(config: ITACLIPConfig, window: tuple[int, int]) -> dict[str, int]:
    """Floating-point operations of one view of one window, by part of the tower.

    Args:
        config: Dimensions of the tower and the method's last block.
        window: (height, width) in pixels.
    """
    vision = config.vision_config
    width, layers = vision.hidden_size, vision.num_hidden_layers
    patch_size = cast(int, vision.patch_size)
    patches = (window[0] // patch_size) * (window[1] // patch_size)
    tokens = 1 + patches
    attention = 4 * tokens * tokens * width  # scores, and their product with the values
    return {
        "patch embedding": 2 * patches * vision.num_channels * patch_size**2 * width,
        "linear layers of attention": layers * 8 * tokens * width * width,
        "attention": attention * (layers - 1 + count_last_attentions(config)),
        "feed-forward": (layers - 1 + config.last_feed_forward) * 4 * tokens * width * vision.intermediate_size,
        "projection": 2 * patches * width * config.projection_dim,
    }


def count_last_attentions(config: ITACLIPConfig) -> int:
    """Attentions of the last block: each kind of map in this block and in the intermediate ones; identity is none."""
    kinds = sum(kind != "identity" for kind in config.attention_maps)
    return kinds * (1 + len(config.intermediate_layers))
