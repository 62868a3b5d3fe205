"""What goes through an encoder together: window views by the memory that is there, prompts by their length."""

import torch
from transformers.models.clip.configuration_clip import CLIPVisionConfig

__all__ = ["choose_window_batch_size", "group_prompts"]

PROMPTS_PER_BATCH = 256
CPU_WINDOW_VIEWS = 32  # beyond this products do not run faster on a CPU, and memory grows
MOST_WINDOW_VIEWS = 1024
MEMORY_SHARE = 0.2  # of a GPU's memory, free or not: the same batches, and with them the same rounding, in every run
# Vectors of a token alive at once: the widened half of a feed-forward twice, projections of a block and of the
# intermediate ones, residuals and the float32 result.
VECTORS_PER_TOKEN = 40


def choose_window_batch_size(
    vision_config: CLIPVisionConfig, window_size: tuple[int, int], dtype: torch.dtype, device: torch.device
) -> int:
    """Number of window views that go through the encoder at once.

    Args:
        vision_config: Dimensions of the tower.
        window_size: (height, width) of a window in pixels.
        dtype: Number format of the tower.
        device: Where it runs.
    """
    if device.type != "cuda":
        return CPU_WINDOW_VIEWS
    patch_size: int = vision_config.patch_size  # type: ignore[assignment]
    tokens = 1 + (window_size[0] // patch_size) * (window_size[1] // patch_size)
    bytes_per_view = tokens * vision_config.hidden_size * dtype.itemsize * VECTORS_PER_TOKEN
    _, total = torch.cuda.mem_get_info(device)
    return max(1, min(int(MEMORY_SHARE * total) // bytes_per_view, MOST_WINDOW_VIEWS))


def group_prompts(
    input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Share out prompts among encoder batches: equal ones once, those of similar length together, padding cut off.

    CLIP's text tower is causal and reads its result at the end token, so what stands after that changes nothing.

    Args:
        input_ids: (prompts, tokens)
        attention_mask: Same shape, 1 for tokens and 0 for padding at the end; all tokens if left out.

    Returns:
        Token ids of each batch, (n, length of its longest prompt); and for each prompt its row in all batches one
        after the other.
    """
    lengths = torch.full_like(input_ids[:, 0], input_ids.shape[1]) if attention_mask is None else attention_mask.sum(1)
    # The length comes first, so that the sorted unique rows are sorted by length.
    rows, places = torch.cat([lengths[:, None].to(input_ids.dtype), input_ids], dim=1).unique(
        dim=0, return_inverse=True
    )
    batches = rows.split(PROMPTS_PER_BATCH)
    return [batch[:, 1 : 1 + int(batch[-1, 0])] for batch in batches], places
