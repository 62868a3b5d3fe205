"""Helpers of the evaluation tests: tiny image folders and a method whose answer follows from the pixels alone.

Run as a script, it evaluates the folder given in the environment: the tests of many processes and of kills start it.
"""

import json
import multiprocessing
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.state import PartialState
from PIL import Image
from transformers import AutoTokenizer

from itaclip_hf import (
    ITACLIPConfig,
    ITACLIPForSemanticSegmentation,
    ITACLIPImageProcessor,
    ITACLIPProcessor,
    Vocabulary,
)
from itaclip_hf.evaluation.data.label_mapping import LabelMapping
from itaclip_hf.evaluation.data.segmentation_datasets import FolderDataset, load_folder_dataset
from itaclip_hf.evaluation.running.predictor import Prediction
from itaclip_hf.evaluation.running.runner import RunOptions, run_evaluation, run_family

# Fixed, so that random checkpoints are the same whatever vocabulary the embedded checkpoint has.
TOKENIZER = Path(__file__).parents[1] / "tokenizer"
NUM_CLASSES = 5


class PixelPredictor:
    """Predicts `red // 16 % classes`, so that the truth of a run can be worked out with NumPy."""

    def __init__(self, seconds_per_image: float = 0.0, num_classes: int = NUM_CLASSES) -> None:
        self.vocabulary = Vocabulary([f"class {index}" for index in range(num_classes)])
        self.prepare_images = prepare_images
        self.seconds_per_image = seconds_per_image
        self.batches: list[int] = []

    def predict(self, prepared: Mapping[str, Any]) -> list[Prediction]:
        self.batches.append(len(prepared["images"]))
        time.sleep(self.seconds_per_image * len(prepared["images"]))
        labels = [predict_pixels(image.numpy(), len(self.vocabulary.labels)) for image in prepared["images"]]
        return [Prediction(torch.from_numpy(map_), torch.full(map_.shape, 0.5)) for map_ in labels]

    def describe(self) -> dict[str, Any]:
        return {"method": "pixels", "classes": len(self.vocabulary.labels)}


class PixelFamily:
    """Several methods: number n predicts what `PixelPredictor` does, plus n. Keeps what was predicted for which."""

    def __init__(self, size: int, seconds_per_image: float = 0.0) -> None:
        self.predictor = PixelPredictor(seconds_per_image)
        self.vocabularies = (self.predictor.vocabulary,) * size
        self.prepare_images = prepare_images
        self.predicted: list[int] = []

    def predict_each(
        self, prepared: Mapping[str, Any], wanted: Sequence[int]
    ) -> Iterator[tuple[int, list[Prediction]]]:
        for position in wanted:
            predictions = self.predictor.predict(prepared)
            self.predicted.extend([position] * len(predictions))
            yield position, [Prediction((each.labels + position) % NUM_CLASSES) for each in predictions]

    def describe_each(self) -> list[dict[str, Any]]:
        return [{"method": "pixels", "number": number} for number in range(len(self.vocabularies))]


def prepare_images(images: Sequence[Image.Image]) -> dict[str, Any]:
    return {"images": [torch.from_numpy(np.array(image.convert("RGB"))) for image in images]}


def predict_pixels(image: np.ndarray, num_classes: int = NUM_CLASSES) -> np.ndarray:
    return (image[..., 0] // 16 % num_classes).astype(np.int64)


def write_image(path: Path, seed: int, size: tuple[int, int] = (6, 8)) -> np.ndarray:
    """An image of random pixels; also returned, as it is read back."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, quality=95) if path.suffix == ".jpg" else Image.fromarray(pixels).save(path)
    with Image.open(path) as image:
        return np.array(image.convert("RGB"))


def write_labels(path: Path, ids: np.ndarray, palette: bool = True) -> None:
    """A label file; with a palette the stored index differs from the shown colour, as in the published datasets."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(ids.astype(np.uint8))
    if palette:
        image = image.convert("L")
        image.putpalette([(37 * value + 11) % 256 for value in range(768)])
    image.save(path)


def write_folders(root: Path, num_images: int) -> None:
    """`images/*.png` and `labels/*.png` with five classes and a border of 255."""
    for index in range(num_images):
        size = (6 + index % 3, 8)
        write_image(root / "images" / f"{index:03d}.png", seed=index, size=size)
        ids = np.random.default_rng(1000 + index).integers(0, NUM_CLASSES, size)
        ids[0] = 255
        write_labels(root / "labels" / f"{index:03d}.png", ids)


def save_tiny_checkpoint(folder: Path, num_layers: int = 3) -> Path:
    """A random ITACLIP checkpoint of a few small blocks, with a small tokenizer."""
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
    torch.manual_seed(0)
    config = ITACLIPConfig(
        projection_dim=24,
        text_config={
            **tower,
            "num_hidden_layers": 1,
            "vocab_size": len(tokenizer),
            "eos_token_id": tokenizer.eos_token_id,
        },
        vision_config={**tower, "num_hidden_layers": num_layers, "image_size": 32, "patch_size": 8},
        intermediate_layers=(1, 2),
        window_size=32,
        window_stride=16,
        pamr_steps=2,
        pamr_dilations=(1, 2),
    )
    model = ITACLIPForSemanticSegmentation(config)
    for parameter in model.vision_model.parameters():  # the default initialisation hardly tells patches apart
        parameter.data.mul_(5)
    model.save_pretrained(folder)
    image_processor = ITACLIPImageProcessor(size={"shortest_edge": 40})
    ITACLIPProcessor(image_processor, tokenizer, templates=["a photo of a {}.", "{}"]).save_pretrained(folder)
    return folder


def expected_confusion(root: Path, names: Sequence[str], number: int = 0) -> np.ndarray:
    """Confusion matrix by a plain loop over pixels, of the method of that number in a family."""
    matrix = np.zeros((NUM_CLASSES, NUM_CLASSES), dtype=np.int64)
    for name in names:
        image = np.array(Image.open(root / "images" / f"{name}.png"))
        labels = np.array(Image.open(root / "labels" / f"{name}.png"))
        for label, prediction in zip(labels.ravel(), predict_pixels(image).ravel(), strict=True):
            if label != 255:
                matrix[label, (prediction + number) % NUM_CLASSES] += 1
    return matrix


def load_folders(root: Path) -> FolderDataset:
    return load_folder_dataset(root / "images", root / "labels", LabelMapping.shifted(NUM_CLASSES), title="scripted")


def find_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


# Forking the test process itself would give each new one the locks and half-ended threads of all tests before it.
FORK_SERVER = multiprocessing.get_context("forkserver")
START_METHOD = multiprocessing.get_start_method()
FORK_SERVER.set_forkserver_preload(["itaclip_hf.cli.main", "transformers.models.clip.modeling_clip", "accelerate"])


def start_processes(
    root: Path, num_processes: int, seconds_per_image: float = 0.0, family_size: int = 1
) -> list[BaseProcess]:
    """Processes that evaluate together, like torchrun's, but without importing everything anew."""
    port = find_free_port()
    processes = []
    for rank in range(num_processes):
        environment = {
            "SCRIPTED_ROOT": str(root),
            "SCRIPTED_SECONDS": str(seconds_per_image),
            "SCRIPTED_FAMILY": str(family_size),
            "OMP_NUM_THREADS": "1",
            "ACCELERATE_USE_CPU": "1",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "WORLD_SIZE": str(num_processes),
            "LOCAL_WORLD_SIZE": str(num_processes),
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
        }
        process = FORK_SERVER.Process(target=_run, args=({**os.environ, **environment}, START_METHOD))
        process.start()
        processes.append(process)
    return processes


def _run(environment: dict[str, str], start_method: str) -> None:
    begin_program(environment, start_method)
    main()


def begin_program(environment: Mapping[str, str], start_method: str) -> None:
    """Makes a process of the server what one would be that the user starts."""
    os.environ.clear()
    os.environ.update(environment)
    torch.set_num_threads(1)
    multiprocessing.set_start_method(start_method, force=True)  # else it would start workers by a server, too


def main() -> None:
    root = Path(os.environ["SCRIPTED_ROOT"])
    seconds, size = float(os.environ.get("SCRIPTED_SECONDS", "0")), int(os.environ.get("SCRIPTED_FAMILY", "1"))
    options = RunOptions(batch_size=2, num_workers=0, save_interval=0.0, show_progress=False)
    predictor = PixelPredictor(seconds)
    if size == 1:
        results = [run_evaluation(load_folders(root), predictor, root / "progress", options)]
    else:
        family = PixelFamily(size, seconds)
        predictor = family.predictor
        results = run_family(load_folders(root), family, family_folders(root, size), options)
    rank = os.environ.get("RANK", "0")
    content = {
        "confusion": results[0].confusion.tolist(),
        "confusions": [result.confusion.tolist() for result in results],
        "num_processes": results[0].num_processes,
        "resumed": results[0].resumed,
        "images": len(results[0].counts),
        "predicted_here": sum(predictor.batches),
        "problems": len(results[0].problems),
    }
    (root / f"result-{rank}.json").write_text(json.dumps(content))


def family_folders(root: Path, size: int) -> list[Path]:
    return [root / "family" / str(number) for number in range(size)]


if __name__ == "__main__":
    main()
    PartialState().destroy_process_group()  # or the threads behind it may abort the interpreter at its end
