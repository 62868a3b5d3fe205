"""Options that name a checkpoint, and loading it with what other options say."""

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Annotated

import typer

from ...auto_registration import DEFAULT_CHECKPOINT
from .settings import SettingOptions, name_option

if TYPE_CHECKING:
    import torch

    from ...evaluation.running.baselines import System
    from ...evaluation.running.predictor import Predictor
    from ...loading import Loaded
    from ...processing import Vocabulary

__all__ = ["DEMO_MODEL", "ModelOptions", "NumberFormat", "SystemOptions", "quiet_libraries"]

DEMO_MODEL = "demo"


class NumberFormat(str, Enum):
    """Number format of the model; `auto` leaves the choice to the device. As in `loading`, which needs torch."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


@dataclass(frozen=True)
class ModelOptions:
    """The checkpoint and its number format."""

    panel = "Model"

    model: Annotated[
        str, typer.Option(help=f"CLIP checkpoint: a folder, a hub id, or '{DEMO_MODEL}' for the embedded one.")
    ] = DEFAULT_CHECKPOINT
    dtype: Annotated[
        NumberFormat,
        typer.Option(help="Number format; auto: bfloat16 where the device is fast in it, else float32."),
    ] = NumberFormat.auto
    proxy: Annotated[
        str | None,
        typer.Option(
            help="Backbone whose patches the method compares, as proxyclip and corrclip do: a folder or hub id of a "
            "ViT, DINOv2 or the like, such as facebook/dino-vitb8."
        ),
    ] = None

    def own_vocabulary(self) -> "Vocabulary | None":
        """What the embedded checkpoint is for; others bring their vocabulary along, if they have one."""
        from ...loading import load_demo_vocabulary

        return load_demo_vocabulary() if self.model == DEMO_MODEL else None

    def load(
        self,
        settings: SettingOptions,
        device: "torch.device | str",
        vocabulary: "Vocabulary | None" = None,
        benchmark: str | None = None,
    ) -> "Loaded":
        """Load the checkpoint and say so, without Transformers' chatter; see [`itaclip_hf.loading.load`]."""
        from ...loading import choose_device, choose_dtype, load, name_dtype
        from ...methods import Settings, get_method

        quiet_libraries()
        method = settings.resolve_method()
        if method is not None:
            get_method(method)  # a system of its own is refused at once
        place = choose_device(device)
        dtype = name_dtype(choose_dtype(self.dtype.value, place))
        typer.echo(f"Loading {self.model} in {dtype} on {place} ...", err=True)
        loaded = load(
            self.model,
            vocabulary,
            method=method,
            benchmark=benchmark,
            preset=settings.preset,
            settings=settings.changes(),
            proxy=self.proxy,
            dtype=dtype,
            device=place,
        )
        settings.refuse_idle(Settings.of(*loaded))
        return loaded


@dataclass(frozen=True)
class SystemOptions(ModelOptions):
    """The same for commands that run systems beside our model, too."""

    second_checkpoint: Annotated[
        str | None,
        typer.Option(
            help="What a method needs beside the model: CaR's judge, a CLIP checkpoint (default: the model); "
            "CLIP-DIY's saliency, FOUND's decoder_weights.pt or a folder with it and its DINO (default: none)."
        ),
    ] = None

    def find_baseline(self, method: str | None) -> "type[System] | None":
        """The system beside our model that the method or the checkpoint names, if any.

        Raises:
            ValueError: If there is none for a second checkpoint.
        """
        from ...evaluation.running.baselines import find_baseline

        quiet_libraries()
        baseline = find_baseline(self.model, method)
        if baseline is None and self.second_checkpoint is not None:
            raise ValueError("Expected no --second-checkpoint with one model, but got one. Leave it out.")
        return baseline

    def load_baseline(
        self,
        baseline: "type[System]",
        settings: SettingOptions,
        device: "torch.device | str",
        vocabulary: "Vocabulary",
        benchmark: str | None,
    ) -> "Predictor":
        """Load a checkpoint for another system.

        Raises:
            ValueError: If options mean nothing to it, and would be ignored in silence.
            OSError: If the checkpoint cannot be loaded.
        """
        from ...methods import published_systems

        known = [*baseline.accepted, *(["method"] if settings.method in published_systems() else [])]
        second = {} if self.second_checkpoint is None else {"second_checkpoint": self.second_checkpoint}
        others = {**second, **({} if self.proxy is None else {"proxy": self.proxy})}
        refused = [name_option(name) for name in {**settings.given(), **others} if name not in known]
        if refused:
            raise ValueError(
                f"Expected no {', '.join(refused)} with {baseline.title}, which has no such settings, but got them."
                f" Leave them out; it has {' and '.join(map(name_option, baseline.accepted))}."
            )
        return baseline(self.model, vocabulary, benchmark, {**settings.changes(), **second}, self.dtype.value, device)


def quiet_libraries() -> None:
    """Keep Transformers' loading bars and advice off the terminal; bars of downloads stay."""
    from huggingface_hub.utils.tqdm import enable_progress_bars
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    enable_progress_bars()
