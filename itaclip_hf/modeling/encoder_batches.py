"""What goes through an encoder together: as many tokens as a device does well with, prompts of similar length."""

from collections.abc import Iterator

import torch
from transformers.models.clip.configuration_clip import CLIPTextConfig, CLIPVisionConfig

__all__ = ["choose_tokens_per_batch", "choose_views_per_batch", "group_prompts"]

# The widest activation of a batch on a CPU. Allocators soon give large blocks back (glibc at once from 32 MiB on,
# smaller ones when a few lie free), and the next one is mapped anew, page by page: with activations of 75 MiB that
# took ViT-B/16 up to a third of its time. Products are as fast in small batches.
CPU_ACTIVATION_BYTES = 12 * 2**20
GPU_MEMORY_SHARE = 0.2  # of all there is, free or not: the same batches, and with them the same rounding, in every run
# Vectors of a token alive at once: the widened half of a feed-forward twice, projections of a block and of the
# intermediate ones, residuals and the float32 result.
VECTORS_PER_TOKEN = 40
MOST_WINDOW_VIEWS = 1024
MOST_PROMPTS = 1024


def choose_tokens_per_batch(
    config: CLIPVisionConfig | CLIPTextConfig, dtype: torch.dtype, device: torch.device
) -> int:
    """Number of tokens, of all window views or prompts, that go through a tower at once.

    Args:
        config: Dimensions of the tower.
        dtype: Its number format.
        device: Where it runs.
    """
    if device.type != "cuda":
        return CPU_ACTIVATION_BYTES // (config.intermediate_size * dtype.itemsize)
    _, total = torch.cuda.mem_get_info(device)
    return int(GPU_MEMORY_SHARE * total) // (config.hidden_size * dtype.itemsize * VECTORS_PER_TOKEN)


def choose_views_per_batch(
    config: CLIPVisionConfig, window_size: tuple[int, int], dtype: torch.dtype, device: torch.device
) -> int:
    """Number of window views, at least 1, that go through the vision tower at once.

    Args:
        config: Dimensions of the tower.
        window_size: (height, width) of a window in pixels.
        dtype: Its number format.
        device: Where it runs.
    """
    patch_size: int = config.patch_size  # type: ignore[assignment]
    tokens = 1 + (window_size[0] // patch_size) * (window_size[1] // patch_size)
    return max(1, min(choose_tokens_per_batch(config, dtype, device) // tokens, MOST_WINDOW_VIEWS))


def group_prompts(
    input_ids: torch.Tensor, attention_mask: torch.Tensor | None, tokens_per_batch: int
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Share out prompts among encoder batches: equal ones once, those of similar length together, padding cut off.

    CLIP's text tower is causal and reads its result at the end token, so what stands after that changes nothing.

    Args:
        input_ids: (prompts, tokens)
        attention_mask: Same shape, 1 for tokens and 0 for padding at the end; all tokens if `None`.
        tokens_per_batch: Largest batch in tokens, padding to its longest prompt counted; a longer prompt is alone.

    Returns:
        Token ids of each batch, (n, length of its longest prompt); and for each prompt its row in all batches one
        after the other.
    """
    lengths = torch.full_like(input_ids[:, 0], input_ids.shape[1]) if attention_mask is None else attention_mask.sum(1)
    # The length comes first, so that the sorted unique rows are sorted by length.
    rows, places = torch.cat([lengths[:, None].to(input_ids.dtype), input_ids], dim=1).unique(
        dim=0, return_inverse=True
    )
    counts = list(_count_rows_of_batches(rows[:, 0].tolist(), tokens_per_batch))
    return [batch[:, 1 : 1 + int(batch[-1, 0])] for batch in rows.split(counts)], places


def _count_rows_of_batches(lengths: list[int], tokens_per_batch: int) -> Iterator[int]:
    """Fill one batch after the other with rows of increasing length."""
    count = 0
    for length in lengths:
        if count == MOST_PROMPTS or (count and (count + 1) * length > tokens_per_batch):
            yield count
            count = 0
        count += 1
    yield count
