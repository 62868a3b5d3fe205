"""Trains the embedded checkpoint on composed scenes; can be stopped at any moment and started again.

    python -m demo_world.train RUN_FOLDER --scenes 370000
    python -m demo_world.train RUN_FOLDER --minutes 90 --init CHECKPOINT_FOLDER --device cuda

The run folder holds `tokenizer/`, `state.pt` (weights, their average, optimizers, step, curve), `curve.json` and
`export/` (the averaged weights as a checkpoint to use). With `--scenes` everything follows from the seed; with
`--minutes` the schedule follows the clock, and the run ends on time however busy the machine is. Give a larger limit
to a finished or stopped run to plan it anew from where it is.
"""

import argparse
import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch.nn import Parameter
from torch.utils.data import DataLoader
from transformers import CLIPModel, CLIPTokenizer

from itaclip_hf.files import write_atomically, write_text

from .export import build_model, export_checkpoint, warm_start
from .losses import compute_losses
from .muon import Muon
from .quick_evaluation import compose_scenes, evaluate_quickly
from .sprites import TRAINING_STYLES, VALIDATION_STYLES
from .tokenizer import build_tokenizer
from .training_scenes import PHASES, TrainingBatch, TrainingScenes
from .vocabulary import WorldClasses, load_world_classes
from .weight_copies import AveragedWeights, LowPrecisionCopy

__all__ = ["Trainer", "TrainingSettings", "learning_rate_factor", "main"]

AVERAGING = 0.98


@dataclass(frozen=True)
class TrainingSettings:
    """What a run does; exactly one of `minutes` and `steps` is set.

    Attributes:
        steps: Planned number of batches; the run follows from the seed alone.
        minutes: Planned time; schedule and curriculum follow the clock.
        seed: Seed of scenes and of the initial weights.
        matrix_rate: Learning rate of Muon, for the matrices of the transformer blocks.
        rate: Learning rate of AdamW, for the rest.
        averaging: Window of the moving average of the weights that is evaluated and exported, a share of the steps.
        precision: Of forward and backward pass; the weights are kept in float32.
        warmup_steps: Batches over which the learning rates rise from 0.
        save_seconds: Time between two saved states.
        evaluate_seconds: Time between two looks at fresh scenes, each with an export.
        evaluation_scenes: Scenes to look at, of training and of validation styles each.
        workers: Processes that compose scenes.
    """

    steps: int | None = None
    minutes: float | None = None
    seed: int = 0
    matrix_rate: float = 2e-3
    rate: float = 1e-3
    averaging: float = 0.02
    precision: Literal["float32", "bfloat16"] = "float32"
    warmup_steps: int = 150
    save_seconds: float = 240
    evaluate_seconds: float = 480
    evaluation_scenes: int = 48
    workers: int = 1


@dataclass
class Progress:
    """How far a run is."""

    step: int = 0
    scenes: int = 0
    seconds: float = 0.0
    curve: list[dict[str, float]] = field(default_factory=list)


def learning_rate_factor(progress: float) -> float:
    """Constant for the first tenth of the run, then falling in a straight line to a hundredth."""
    return 1.0 if progress < 0.1 else max(0.01, (1 - progress) / 0.9)


class Trainer:
    """Holds the state of one run and drives it to its end.

    Args:
        folder: The run folder; an existing `state.pt` in it is continued.
        model: The model to train, as it starts.
        tokenizer: Its tokenizer.
        world: The classes.
        settings: What the run does.
        device: Where the model is trained.
    """

    def __init__(
        self,
        folder: Path,
        model: CLIPModel,
        tokenizer: CLIPTokenizer,
        world: WorldClasses,
        settings: TrainingSettings,
        device: str = "cpu",
    ):
        if (settings.steps is None) == (settings.minutes is None):
            raise ValueError("Expected one of `steps` and `minutes`, but got both or none. Set exactly one.")
        self.folder, self.tokenizer, self.world, self.settings = folder, tokenizer, world, settings
        self.model = model
        torch.nn.Module.to(model, device)
        self.optimizers = _build_optimizers(self.model, settings)
        self.low_precision = LowPrecisionCopy(self.model, getattr(torch, settings.precision))
        self.averaged = AveragedWeights(self.model, settings.averaging)
        self.progress = Progress()
        self.averages: dict[str, float] = {}
        # In shared memory, as the processes that compose scenes choose the phase by it.
        self.clock = torch.zeros(1).share_memory_() if settings.minutes is not None else None
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / "state.pt").exists():
            self._load_state()

    @property
    def share_done(self) -> float:
        """How much of the planned run is over, 0…1."""
        if self.settings.minutes is not None:
            return self.progress.seconds / (60 * self.settings.minutes)
        return self.progress.step / (self.settings.steps or 1)

    def train(self) -> None:
        """Trains until the planned end; saves, evaluates and exports on the way."""
        began, seconds_before = time.monotonic(), self.progress.seconds
        saved = evaluated = began
        self._tick(began, seconds_before)
        for batch in self._load_batches():
            self._step(batch)
            now = self._tick(began, seconds_before)
            if now - evaluated > self.settings.evaluate_seconds:
                self._evaluate()
                evaluated = now
            if now - saved > self.settings.save_seconds:
                self._save_state()
                saved = now
            if self.share_done >= 1:
                break
        self._evaluate()
        self._save_state()

    def _tick(self, began: float, seconds_before: float) -> float:
        now = time.monotonic()
        self.progress.seconds = seconds_before + now - began
        if self.clock is not None:
            self.clock[0] = self.share_done
        return now

    def _load_batches(self) -> DataLoader[TrainingBatch]:
        endless = 10**9  # by the clock, nobody knows how many there will be
        total_steps = self.settings.steps or endless
        scenes = TrainingScenes(self.world, self.tokenizer, self.settings.seed, total_steps, self.clock)
        workers = self.settings.workers
        return DataLoader(
            scenes,
            batch_size=None,
            sampler=range(self.progress.step, total_steps),
            num_workers=workers,
            prefetch_factor=3 if workers else None,
            worker_init_fn=_use_one_thread,
        )

    def _step(self, batch: TrainingBatch) -> None:
        device = self.model.logit_scale.device
        batch = TrainingBatch(**{name: value.to(device) for name, value in vars(batch).items()})
        self._set_learning_rates()
        self.low_precision.refresh()
        losses = compute_losses(self.low_precision.model, batch)
        losses.total.backward()
        self.low_precision.hand_back_gradients()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.progress.step += 1
        self.averaged.update(self.model, self.progress.step)
        self.progress.scenes += len(batch.tags)
        for name, value in {"total": losses.total, **vars(losses)}.items():
            self.averages[name] = AVERAGING * self.averages.get(name, value.item()) + (1 - AVERAGING) * value.item()
        if self.progress.step % 100 == 0:
            self._report({"scenes_per_second": self.progress.scenes / max(self.progress.seconds, 1e-9)})

    def _set_learning_rates(self) -> None:
        factor = learning_rate_factor(self.share_done) * min(
            1.0, (self.progress.step + 1) / self.settings.warmup_steps
        )
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = factor * group["initial_lr"]

    def _report(self, more: dict[str, float]) -> None:
        where = {"step": self.progress.step, "scenes": self.progress.scenes, "minutes": self.progress.seconds / 60}
        entry = {**where, "done": self.share_done, **self.averages, **more}
        entry = {name: round(value, 3) for name, value in entry.items()}
        self.progress.curve.append(entry)
        write_text(self.folder / "curve.json", json.dumps(self.progress.curve))
        print(json.dumps(entry), flush=True)

    def _evaluate(self) -> None:
        """Looks at training and validation styles, and exports the averaged weights.

        The held-out family is never looked at here: who steers a run by this curve has not seen the test.
        """
        scores: dict[str, float] = {}
        count = self.settings.evaluation_scenes
        for family, styles in (("seen", TRAINING_STYLES), ("validation", VALIDATION_STYLES)) if count else ():
            scenes = compose_scenes(self.world, styles, count, seed=7)
            for name, score in evaluate_quickly(self.averaged.model, self.tokenizer, self.world, scenes).items():
                scores[f"{family}_{name}"] = score
        self._report(scores)
        export_checkpoint(self.averaged.model, self.tokenizer, self.world, self.folder / "export")

    def _save_state(self) -> None:
        state = {
            "model": self.model.state_dict(),
            "averaged": self.averaged.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "progress": asdict(self.progress),
            "averages": self.averages,
            "seed": self.settings.seed,
            "random_state": torch.get_rng_state(),
        }
        with write_atomically(self.folder / "state.pt") as file:
            torch.save(state, file)

    def _load_state(self) -> None:
        state: dict[str, Any] = torch.load(self.folder / "state.pt", map_location="cpu", weights_only=True)
        if state["seed"] != self.settings.seed:
            raise ValueError(
                f"Expected seed {state['seed']} of the run in {self.folder}, but got {self.settings.seed}. "
                "Use that seed or another folder."
            )
        self.model.load_state_dict(state["model"])
        self.averaged.model.load_state_dict(state["averaged"])
        for optimizer, optimizer_state in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(optimizer_state)
        self.progress, self.averages = Progress(**state["progress"]), state["averages"]
        torch.set_rng_state(state["random_state"])


def _build_optimizers(model: CLIPModel, settings: TrainingSettings) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of both towers' blocks; AdamW for the rest, with decay for nothing but matrices."""
    matrices: list[Parameter] = []
    decayed: list[Parameter] = []
    free: list[Parameter] = []
    for name, parameter in model.named_parameters():
        is_matrix = parameter.ndim >= 2
        group = (
            matrices
            if is_matrix and ".layers." in name
            else decayed
            if is_matrix and "embedding" not in name
            else free
        )
        group.append(parameter)
    groups = [{"params": decayed, "weight_decay": 0.05}, {"params": free, "weight_decay": 0.0}]
    optimizers: list[torch.optim.Optimizer] = [
        Muon(matrices, lr=settings.matrix_rate, dtype=getattr(torch, settings.precision)),
        torch.optim.AdamW(groups, lr=settings.rate, betas=(0.9, 0.98)),
    ]
    for optimizer in optimizers:
        for param_group in optimizer.param_groups:
            param_group["initial_lr"] = param_group["lr"]
    return optimizers


def _find_tokenizer(folder: Path) -> CLIPTokenizer:
    """The run's own tokenizer, if it has begun: words may have been added to the world since."""
    own = folder / "tokenizer"
    if not own.exists():
        build_tokenizer().save_pretrained(own)
    return CLIPTokenizer.from_pretrained(own)


def _use_one_thread(_: int) -> None:
    torch.set_num_threads(1)


def main() -> None:
    """Trains the embedded checkpoint, or goes on where a run stopped."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("folder", type=Path, help="run folder; a run found there is continued")
    limit = parser.add_mutually_exclusive_group(required=True)
    limit.add_argument("--scenes", type=int, help="planned number of scenes, all sessions together")
    limit.add_argument("--minutes", type=float, help="planned time, all sessions together")
    parser.add_argument("--init", type=Path, help="checkpoint folder to start from")
    parser.add_argument("--all-nouns", action="store_true", help="100 nouns, not 32")
    parser.add_argument("--rate-factor", type=float, default=1.0, help="scales both learning rates")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()

    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    world, tokenizer = load_world_classes(small=not arguments.all_nouns), _find_tokenizer(arguments.folder)
    model = build_model(tokenizer)
    if arguments.init:
        warm_start(model, tokenizer, arguments.init)
    steps = arguments.scenes and -(-arguments.scenes // PHASES[0][1].batch_size)
    settings = TrainingSettings(
        steps,
        arguments.minutes,
        arguments.seed,
        matrix_rate=arguments.rate_factor * TrainingSettings.matrix_rate,
        rate=arguments.rate_factor * TrainingSettings.rate,
        precision=arguments.precision,
        workers=arguments.workers,
    )
    Trainer(arguments.folder, model, tokenizer, world, settings, arguments.device).train()


if __name__ == "__main__":
    main()
