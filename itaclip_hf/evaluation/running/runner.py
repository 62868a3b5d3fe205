"""Runs one predictor or a family of them over a dataset, on one process or many, and counts.

The unit of work is a batch of neighbouring images whose make-up depends on the dataset alone, never on the number of
processes: every image is predicted in the same company however the work is dealt out. Each process counts its own
share in integers and the matrices are added once at the end, so N processes give the confusion matrix of one, bit for
bit.
"""

import contextlib
import itertools
import logging
import os
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from numpy.typing import NDArray
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.utils.data import DataLoader

from ...files import own_results
from ...image_errors import find_image_error
from ...plain_text import show_control_characters
from ..data.segmentation_datasets import SampleError, SegmentationDataset, StreamedDataset
from ..metrics.confusion_matrix import compute_segmentation_scores, decode_pair_counts, encode_pair_counts
from ..metrics.image_counts import ImageCounts
from .predictor import Prediction, Predictor
from .predictor_family import PredictorFamily, SinglePredictor
from .progress_folder import ProgressFolder
from .sample_batches import PreparedBatch, batch_source, be_quiet_when_left

__all__ = [
    "EvaluationResult",
    "Problem",
    "RunOptions",
    "check_process_count",
    "claim_results",
    "describe_run",
    "describe_runs",
    "make_accelerator",
    "run_evaluation",
    "run_family",
]

try:
    import resource
except ImportError:  # Windows has none
    resource = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

MOST_WORKERS = 256  # thousands of processes bring a machine down
_SECONDS_BETWEEN_LOG_LINES = 60.0

Found = TypeVar("Found")

_ScoredImage = tuple[int, str, NDArray[np.int64], NDArray[np.int64]]
"""Index, name, codes and counts of one image."""


@dataclass(frozen=True)
class RunOptions:
    """How a run goes about its work.

    Args:
        batch_size: Images that are predicted together; part of the result's description, since rounding depends on it.
        num_workers: Worker processes for decoding and resizing, per process; 0 does it in the process itself.
        limit: Only the first so many images.
        strict: Whether the first unusable sample stops the run.
        restart: Whether earlier progress is thrown away.
        save_interval: Seconds between two part files.
        show_progress: Whether the main process shows a progress bar.
    """

    batch_size: int = 1
    num_workers: int = 2
    limit: int | None = None
    strict: bool = False
    restart: bool = False
    save_interval: float = 10.0
    show_progress: bool = True

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("num_workers", 0), ("limit", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"Expected `{name}` >= {least}, but got {value}.")
        if self.num_workers > MOST_WORKERS:
            raise ValueError(
                f"Expected at most {MOST_WORKERS} worker processes, but got {self.num_workers}. Use fewer."
            )


@dataclass(frozen=True)
class Problem:
    """A sample that could not be scored."""

    index: int
    kind: str
    path: str
    message: str


@dataclass(frozen=True)
class EvaluationResult:
    """What a run found; the same on every process.

    Args:
        counts: Confusion counts of every image.
        confusion: (C, C) their sum, rows are labels.
        problems: Samples that could not be scored.
        resumed: Images that had been scored by an earlier run.
        seconds: Wall time of the slowest process for the others.
        num_processes: Processes that took part.
        peak_memory_bytes: Largest resident memory of a process, its workers not included.
        peak_device_memory_bytes: Largest memory on a CUDA device, None without.
    """

    counts: ImageCounts
    confusion: NDArray[np.int64]
    problems: tuple[Problem, ...]
    resumed: int
    seconds: float
    num_processes: int
    peak_memory_bytes: int
    peak_device_memory_bytes: int | None

    @property
    def images_per_second(self) -> float:
        """Newly scored images per second, all processes together."""
        return (len(self.counts) - self.resumed) / self.seconds if self.seconds > 0 else 0.0


def make_accelerator() -> Accelerator:
    """An `Accelerator` whose number of processes was checked; see `check_process_count`."""
    accelerator = Accelerator()
    check_process_count(accelerator)
    return accelerator


def check_process_count(accelerator: Accelerator) -> None:
    """Makes sure that the launched processes know of each other.

    Raises:
        ValueError: The launcher started several processes, but each would run the whole evaluation by itself.
    """
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if launched != accelerator.num_processes:
        raise ValueError(
            f"Expected the {launched} processes that were launched to work together, but Accelerate sees "
            f"{accelerator.num_processes}. On CPUs start with `OMP_NUM_THREADS=1 ACCELERATE_USE_CPU=1 torchrun "
            "--standalone --nproc_per_node N -m itaclip_hf.cli …`."
        )


@contextlib.contextmanager
def claim_results(accelerator: Accelerator, folder: str | os.PathLike[str], names: Sequence[str]) -> Iterator[None]:
    """Lets the main process own the files of a folder, see `own_results`; every process raises what is wrong."""
    with contextlib.ExitStack() as stack:
        _do_on_main_process(accelerator, lambda: stack.enter_context(own_results(folder, names)))
        yield


def _do_on_main_process(accelerator: Accelerator, work: Callable[[], Found]) -> Found:
    """What the main process finds, on every process, or its error."""
    outcome: list[Any] = [None, None]
    if accelerator.is_main_process:
        try:
            outcome[0] = work()
        except (OSError, ValueError) as error:
            outcome[1] = error
    # The error, too: the others would wait for a main process that has ended.
    broadcast_object_list(outcome)
    if outcome[1] is not None:
        raise outcome[1]
    found: Found = outcome[0]
    return found


def run_evaluation(
    dataset: SegmentationDataset | StreamedDataset,
    predictor: Predictor,
    progress_folder: str | os.PathLike[str],
    options: RunOptions | None = None,
    accelerator: Accelerator | None = None,
) -> EvaluationResult:
    """Scores a predictor on a dataset; every process calls it with the same arguments.

    Args:
        dataset: Images and labels.
        predictor: The method.
        progress_folder: Progress lies there; a run that was stopped goes on where it was.
        options: How to go about it.
        accelerator: The processes; made here if not given.

    Returns:
        The result, on every process.

    Raises:
        ValueError: Classes and labels do not match, progress was made with other settings, or the processes do not
            work together.
        OSError: Another run uses the folder, or not all processes see it.
        SampleError: A sample is unusable and `strict` is on.
    """
    return run_family(dataset, SinglePredictor(predictor), [progress_folder], options, accelerator)[0]


def run_family(
    dataset: SegmentationDataset | StreamedDataset,
    family: PredictorFamily,
    progress_folders: Sequence[str | os.PathLike[str]],
    options: RunOptions | None = None,
    accelerator: Accelerator | None = None,
) -> list[EvaluationResult]:
    """Scores a family of predictors on a dataset in one go, as `run_evaluation` does one.

    There is a progress folder for each method. They may have come to different points; each image is predicted for
    those methods that lack it. Times and memory of the results are those of all methods together.
    """
    options = options or RunOptions()
    accelerator = accelerator or Accelerator()
    check_process_count(accelerator)
    num_classes = _check_classes(dataset, family)
    folders = [ProgressFolder(folder) for folder in progress_folders]
    try:
        before = _start_progress(accelerator, folders, describe_runs(dataset, family, options), options, num_classes)
        share = _Share(dataset, family, options, accelerator, before)
        started = time.perf_counter()
        share.run(folders)
        seconds = time.perf_counter() - started
        return _collect(accelerator, folders, before, share, seconds)
    except KeyboardInterrupt as stop:
        if stop.args:
            raise
        # Before this process scores its first image, another one may have kept some.
        where = f"Scored images are kept in {folders[0].folder}"
        raise type(stop)(f"{where}. To go on, run the same command again.") from None
    finally:
        for folder in folders:
            folder.finish()


def describe_run(
    dataset: SegmentationDataset | StreamedDataset, predictor: Predictor, options: RunOptions
) -> dict[str, Any]:
    """Everything that determines the counts; the number of processes does not."""
    return describe_runs(dataset, SinglePredictor(predictor), options)[0]


def describe_runs(
    dataset: SegmentationDataset | StreamedDataset, family: PredictorFamily, options: RunOptions
) -> list[dict[str, Any]]:
    """`describe_run` of each method of a family."""
    dataset_description = dataset.describe()
    return [
        {
            "dataset": dataset_description,
            "predictor": description,
            "vocabulary_sha256": vocabulary.fingerprint,
            "batch_size": options.batch_size,
            "limit": options.limit,
        }
        for description, vocabulary in zip(family.describe_each(), family.vocabularies, strict=True)
    ]


def _check_classes(dataset: SegmentationDataset | StreamedDataset, family: PredictorFamily) -> int:
    for vocabulary in family.vocabularies:
        dataset.mapping.check_classes(vocabulary.labels)
    return dataset.mapping.num_classes


def _start_progress(
    accelerator: Accelerator,
    folders: Sequence[ProgressFolder],
    descriptions: Sequence[Mapping[str, Any]],
    options: RunOptions,
    num_classes: int,
) -> list[ImageCounts]:
    """Opens the folders on the main process; all processes get what is done, or its error."""

    def start() -> tuple[str, list[ImageCounts]]:
        for folder, description in zip(folders, descriptions, strict=True):
            folder.start(description, restart=options.restart)
        done = [folder.read(num_classes) for folder in folders]
        token = f".run-{uuid.uuid4().hex[:8]}"  # by which the others see whether their folder is this one
        (folders[0].folder / token).touch()
        return token, done

    token, done = _do_on_main_process(accelerator, start)
    token_path = folders[0].folder / token
    sees_token = token_path.exists()
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        token_path.unlink()
    if not sees_token:
        raise OSError(
            f"Expected {folders[0].folder} to be one folder for all processes, but process "
            f"{accelerator.process_index} does not see what the main process writes there. "
            "Choose an `--out` on a file system that all machines share."
        )
    return done


class _UnsavedImages:
    """Scored images of each method that are not on disk yet."""

    def __init__(self, folders: Sequence[ProgressFolder], num_classes: int, save_interval: float) -> None:
        self._folders = folders
        self._num_classes = num_classes
        self._save_interval = save_interval
        self._images: list[list[_ScoredImage]] = [[] for _ in folders]
        self._saved_at = time.monotonic()

    def add(self, position: int, images: Sequence[_ScoredImage]) -> None:
        """Adds images of one method, and saves all if it is time."""
        self._images[position].extend(images)
        if time.monotonic() - self._saved_at >= self._save_interval:
            self.save()

    def save(self) -> None:
        """Writes a part of each method that has something new."""
        for folder, images in zip(self._folders, self._images, strict=True):
            folder.write_part(ImageCounts.from_images(self._num_classes, images))
            images.clear()
        self._saved_at = time.monotonic()


class _Share:
    """The part of the work that one process does, and what came of it."""

    def __init__(
        self,
        dataset: SegmentationDataset | StreamedDataset,
        family: PredictorFamily,
        options: RunOptions,
        accelerator: Accelerator,
        before: Sequence[ImageCounts],
    ) -> None:
        self.num_classes = dataset.mapping.num_classes
        self.confusion = np.zeros((len(before), self.num_classes, self.num_classes), dtype=np.int64)
        self.problems: list[Problem] = []
        self._family = family
        self._options = options
        self._accelerator = accelerator
        self._done = [frozenset(counts.indices.tolist()) for counts in before]
        source, self._num_images = batch_source(
            dataset,
            family.prepare_images,
            batch_size=options.batch_size,
            limit=options.limit,
            done=frozenset.intersection(*self._done),
            process_index=accelerator.process_index,
            num_processes=accelerator.num_processes,
        )
        self._batches: DataLoader[PreparedBatch] = DataLoader(
            source,
            batch_size=None,  # the source gives whole batches: their make-up must not depend on the loader
            num_workers=options.num_workers,
            worker_init_fn=be_quiet_when_left,
            pin_memory=accelerator.device.type == "cuda",
        )

    def run(self, folders: Sequence[ProgressFolder]) -> None:
        """Predicts, counts and saves; a kill loses at most what was scored since the last parts."""
        unsaved = _UnsavedImages(folders, self.num_classes, self._options.save_interval)
        bar = _ProgressBar(self._num_images, len(folders), self._accelerator, self._options.show_progress)
        with bar:
            try:
                for batch in self._batches:
                    self._note_problems(batch.errors)
                    for position, images in self._score(batch):
                        unsaved.add(position, images)
                    bar.advance(len(batch.names) + len(batch.errors), self.confusion[0])
            except KeyboardInterrupt as stop:
                where = f"{bar.done} images are scored and kept in {folders[0].folder}"
                # SIGTERM has a type of its own.
                raise type(stop)(f"{where}. To go on, run the same command again.") from None
            finally:  # an error or Ctrl-C loses nothing
                unsaved.save()

    def _score(self, batch: PreparedBatch) -> Iterator[tuple[int, list[_ScoredImage]]]:
        """Counts of a batch for each method that lacks any of its images."""
        if batch.inputs is None:
            return
        wanted = [position for position, done in enumerate(self._done) if not done.issuperset(batch.indices)]
        predicted = self._family.predict_each(batch.inputs, wanted)
        try:
            first = list(itertools.islice(predicted, 1))  # what is wrong with an image, the first method meets
        except Exception as error:
            reason = find_image_error(error)
            if reason is None:
                raise
        else:
            for position, predictions in itertools.chain(first, predicted):
                yield position, self._count(position, batch, predictions)
            return
        # Here the error is gone, and with it the memory that it held.
        if len(batch.indices) == 1:
            self._note_problems([(batch.indices[0], SampleError("unusable image", batch.names[0], reason))])
            return
        for single in batch.split():  # one of them may be at fault, or memory has room for one
            yield from self._score(single)

    def _count(self, position: int, batch: PreparedBatch, predictions: Sequence[Prediction]) -> list[_ScoredImage]:
        scored = []
        for index, name, labels, prediction in zip(batch.indices, batch.names, batch.labels, predictions, strict=True):
            if index in self._done[position]:
                continue
            predicted = prediction.labels.cpu().numpy()
            try:
                codes, counts = encode_pair_counts(labels, predicted, self.num_classes)
            except ValueError as error:
                raise ValueError(f"The predictor's result for {name} does not fit: {error}") from error
            scored.append((index, name, codes, counts))
            self.confusion[position] += decode_pair_counts(codes, counts, self.num_classes)
        return scored

    def _note_problems(self, errors: Sequence[tuple[int, SampleError]]) -> None:
        for index, error in errors:
            if self._options.strict:
                raise error
            logger.warning("%s", show_control_characters(str(error)))
            self.problems.append(Problem(index, error.kind, error.path, error.message))


class _ProgressBar:
    """Images, speed and mIoU so far, on the main process alone; of its own share where there are many.

    Of several methods the mIoU of the first is shown.
    """

    def __init__(self, total: int | None, num_methods: int, accelerator: Accelerator, is_wanted: bool) -> None:
        processes = accelerator.num_processes
        self._score_name = "mIoU so far" if num_methods == 1 else f"mIoU of the first of {num_methods} so far"
        self._bar = Progress(
            TextColumn("evaluate" if processes == 1 else f"evaluate (1 of {processes} processes)"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]:.2f} images/s"),
            TextColumn(f"{self._score_name} {{task.fields[score]:.1f}} %"),
            TimeRemainingColumn(),
            disable=not (is_wanted and accelerator.is_main_process),
        )
        self._task = self._bar.add_task("", total=total, speed=0.0, score=float("nan"))
        self._total = total
        self.done = 0
        self._started = self._printed = time.perf_counter()

    def __enter__(self) -> "_ProgressBar":
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def advance(self, num_images: int, confusion: NDArray[np.int64]) -> None:
        """Shows so many more images and the scores of all so far."""
        self.done += num_images
        if self._bar.disable:
            return
        now = time.perf_counter()
        score = 100 * compute_segmentation_scores(confusion)["mean_iou"]
        speed = self.done / (now - self._started)
        self._bar.update(self._task, advance=num_images, speed=speed, score=score)
        # In a log file a bar shows nothing before its end.
        if not self._bar.console.is_terminal and now - self._printed >= _SECONDS_BETWEEN_LOG_LINES:
            self._printed = now
            of_all = "" if self._total is None else f" of {self._total}"
            self._bar.console.print(
                f"{self.done}{of_all} images, {speed:.2f} images/s, {self._score_name} {score:.1f} %"
            )


def _collect(
    accelerator: Accelerator,
    folders: Sequence[ProgressFolder],
    before: Sequence[ImageCounts],
    share: _Share,
    seconds: float,
) -> list[EvaluationResult]:
    """Adds the matrices of all processes and holds them against what lies on disk."""
    new = accelerator.reduce(torch.from_numpy(share.confusion).to(accelerator.device), "sum").cpu().numpy()
    accelerator.wait_for_everyone()  # all parts are on disk now
    reports = gather_object([(share.problems, seconds, _peak_memory_bytes(), _peak_device_memory_bytes(accelerator))])
    problems = sorted((problem for found, *_ in reports for problem in found), key=lambda problem: problem.index)
    device_peaks = [peak for *_, peak in reports if peak is not None]
    results = []
    for folder, done, matrix in zip(folders, before, new, strict=True):
        # The same sum by two ways, over files and over processes.
        counts, confusion = folder.read(share.num_classes), done.confusion() + matrix
        if not np.array_equal(counts.confusion(), confusion):
            raise RuntimeError(
                f"Expected the counts in {folder.folder} to add up to those of the processes, but they do not. "
                "Run again with `--restart`, and report this."
            )
        result = EvaluationResult(
            counts=counts,
            confusion=confusion,
            problems=tuple(problems),
            resumed=len(done),
            seconds=max(took for _, took, *_ in reports),
            num_processes=accelerator.num_processes,
            peak_memory_bytes=max(peak for _, _, peak, _ in reports),
            peak_device_memory_bytes=max(device_peaks) if device_peaks else None,
        )
        results.append(result)
    return results


def _peak_memory_bytes() -> int:
    if resource is None:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in bytes on macOS, in kibibytes elsewhere
    return peak if sys.platform == "darwin" else 1024 * peak


def _peak_device_memory_bytes(accelerator: Accelerator) -> int | None:
    return torch.cuda.max_memory_allocated(accelerator.device) if accelerator.device.type == "cuda" else None
