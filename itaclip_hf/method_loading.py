"""Methods by name, whatever they are: settings of our model, or systems of their own."""

from typing import Any, Literal, overload

import torch

from .evaluation.running.baselines import SYSTEMS, System
from .loading import DEFAULT_CHECKPOINT, Checkpoint, Loaded, choose_device, load

__all__ = ["load_method"]

SystemName = Literal["groupvit", "car", "clip-diy", "tagclip", "tagclip-crf"]


@overload
def load_method(
    name: SystemName,
    checkpoint: Checkpoint = ...,
    benchmark: str | None = ...,
    dtype: torch.dtype | str = ...,
    device: torch.device | str = ...,
    **settings: Any,
) -> System: ...
@overload
def load_method(
    name: str,
    checkpoint: Checkpoint = ...,
    benchmark: str | None = ...,
    dtype: torch.dtype | str = ...,
    device: torch.device | str = ...,
    **settings: Any,
) -> Loaded: ...
def load_method(
    name: str,
    checkpoint: Checkpoint = DEFAULT_CHECKPOINT,
    benchmark: str | None = None,
    dtype: torch.dtype | str = "float32",
    device: torch.device | str = "cpu",
    **settings: Any,
) -> Loaded | System:
    """Load weights as a method.

    For a method that is settings of our model: model and processor, which go together; saved to one folder, they are
    that method for `from_pretrained` and for `pipeline("image-segmentation")`. Bake a vocabulary with
    `model.set_vocabulary(processor, vocabulary)`.

    For a published system that is more than settings: a [`Predictor`], which has neither model nor processor to take
    apart. Give it words with `set_vocabulary`; `predict(prepare_images(images))` then has label maps and confidences.

    Args:
        name: "itaclip", "sclip", "corrclip" or another of `method_names()`, what `register_method` made known; or
            "tagclip", "tagclip-crf", "car", "clip-diy", "groupvit".
        checkpoint: Folder or hub id of a CLIP checkpoint (of GroupViT for that), or "demo" for the embedded one.
        benchmark: A benchmark whose settings to take, such as "voc21"; the method's general ones if left out.
        dtype: Number format.
        device: Where it shall run.
        **settings: Settings by name that win over the method's; see [`Settings`]; and the `proxy` that "proxyclip" and
            "corrclip" need, see [`load`]. A system has few of them, and it may take a `second_checkpoint`.

    Raises:
        TypeError: If a setting is of another type than expected.
        ValueError: If there is no such method, benchmark or setting, the checkpoint lacks weights, or a package that
            the system needs is not installed.
        OSError: If the checkpoint cannot be loaded.

    Example:
    ```python
    >>> from itaclip_hf import Vocabulary, load_method
    >>> from itaclip_hf.samples import load_demo_scene
    >>> from transformers import pipeline

    >>> words = Vocabulary(["sky", "grass", "dog"])
    >>> image = load_demo_scene(0)[0]
    >>> model, processor = load_method("naclip", "demo")
    >>> model.set_vocabulary(processor, words)
    >>> segment = pipeline("image-segmentation", model=model, image_processor=processor.image_processor)
    >>> sorted(result["label"] for result in segment(image))
    ['dog', 'grass', 'sky']

    >>> predictor = load_method("clip-diy", "demo").set_vocabulary(words)
    >>> (prediction,) = predictor.predict(predictor.prepare_images([image]))
    >>> prediction.labels.shape == prediction.confidence.shape == (image.height, image.width)
    True

    ```
    """
    if name in SYSTEMS:
        return SYSTEMS[name](checkpoint, None, benchmark, settings, dtype, choose_device(device))
    proxy = settings.pop("proxy", None)
    return load(
        checkpoint, method=name, benchmark=benchmark, settings=settings, proxy=proxy, dtype=dtype, device=device
    )
