"""What each method takes for one image: the same image, words and weights for all, one after the other.

    python -m benchmarks.methods
    python -m benchmarks.methods --model demo --repeats 3
    python -m benchmarks.methods --methods itaclip tagclip --benchmark voc21 --size 500x375

By default a model of ViT-B/16's size with random weights, which CaR has as judge, too; GroupViT has one of its
published size, and methods that compare a proxy's patches have one of the size of DINO's ViT-B/8. The time is from the
picture to its label map; words are encoded beforehand. Seconds of the processor are what other programs on a busy
machine change least.
"""

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from transformers import GroupViTConfig, GroupViTModel, ViTConfig, ViTModel

from itaclip_hf import ITACLIPForSemanticSegmentation, Vocabulary, load_method
from itaclip_hf.evaluation import ITACLIPPredictor, Predictor, System
from itaclip_hf.evaluation.data.benchmarks import BENCHMARKS
from itaclip_hf.evaluation.running.baselines import SYSTEMS
from itaclip_hf.evaluation.running.baselines.dense_crf import has_dense_crf
from itaclip_hf.loading import DEMO_CHECKPOINT, load
from itaclip_hf.methods import get_method, method_names

from .measuring import synchronize
from .output import describe_machine, format_seconds, format_table, print_machine, save_json
from .workload import (
    RANDOM_MODELS,
    add_model_arguments,
    add_output_arguments,
    fill_weights,
    open_picture,
    parse_size,
    read_config,
    read_device,
)

__all__ = ["main", "make_checkpoint", "measure_method"]

TEXT_FILES = ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json")


class MethodTime(NamedTuple):
    """How long a method took for the image.

    Attributes:
        seconds: Median on the clock.
        cpu_seconds: Median of the processor's, over all its threads.
        labels: Number of classes in the label map.
    """

    seconds: float
    cpu_seconds: float
    labels: int


def make_checkpoint(name: str, folder: Path) -> Path:
    """A checkpoint of a known size with random weights and the embedded one's words, or of GroupViT's for "groupvit".

    The text tower has one block: words are not timed.
    """
    words = load("demo").model.config.text_config
    text = {key: getattr(words, key) for key in ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id")}
    text["num_hidden_layers"] = 1
    if name == "groupvit":
        model: Any = GroupViTModel(GroupViTConfig(text_config=text))
    else:
        config = read_config(name)
        for key, value in text.items():
            setattr(config.text_config, key, value)
        model = ITACLIPForSemanticSegmentation(config)
    fill_weights(model)
    model.save_pretrained(folder)
    for file in TEXT_FILES:
        shutil.copy(DEMO_CHECKPOINT / file, folder)
    return folder


def load_predictor(method: str, checkpoint: str, words: Vocabulary, benchmark: str, device: torch.device) -> Predictor:
    """A method with its words, as `itaclip evaluate` would have it."""
    is_ours = method in method_names()
    needs_proxy = is_ours and get_method(method).settings().uses_proxy
    proxy: dict[str, Any] = {"proxy": ViTModel(ViTConfig(patch_size=8))} if needs_proxy else {}
    loaded: Any = load_method(method, checkpoint, benchmark, device=device, **proxy)
    if isinstance(loaded, System):
        return loaded.set_vocabulary(words)
    return ITACLIPPredictor(loaded.model, loaded.processor, words)


def measure_method(predictor: Predictor, image: Image.Image, device: torch.device, repeats: int) -> MethodTime:
    """Time a predictor on an image, after once that is not counted where there are repeats."""
    seconds, cpu_seconds = [], []
    for _ in range(repeats + (repeats > 1)):
        synchronize(device)
        started, cpu_started = time.perf_counter(), time.process_time()
        (prediction,) = predictor.predict(predictor.prepare_images([image]))
        labels = len(prediction.labels.unique())
        synchronize(device)
        seconds.append(time.perf_counter() - started)
        cpu_seconds.append(time.process_time() - cpu_started)
    return MethodTime(statistics.median(seconds[-repeats:]), statistics.median(cpu_seconds[-repeats:]), labels)


def choose_methods() -> list[str]:
    """All that can run here."""
    return [*method_names(), *(name for name in SYSTEMS if has_dense_crf() or not SYSTEMS[name].has_crf)]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the seconds that each method takes for one image."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.methods", description=main.__doc__)
    add_model_arguments(parser)
    parser.add_argument("--methods", nargs="+", choices=choose_methods(), default=choose_methods(), help="(all)")
    parser.add_argument(
        "--benchmark", choices=list(BENCHMARKS), default="voc21", help="whose words and settings (%(default)s)"
    )
    parser.add_argument(
        "--size", type=parse_size, default="500x375", metavar="WxH", help="of the picture (%(default)s)"
    )
    parser.add_argument("--image", type=Path, help="a picture (a photograph that comes with the package)")
    parser.add_argument("--repeats", type=int, default=1, help="images that are timed; more than one warm up first")
    add_output_arguments(parser)
    options = parser.parse_args(arguments)
    device = read_device(options)
    machine = describe_machine(device)
    print_machine(machine)
    image, words = open_picture(options.image, options.size), BENCHMARKS[options.benchmark].vocabulary("none")
    results: dict[str, MethodTime] = {}
    with tempfile.TemporaryDirectory() as folder:
        places = {name: _place(name, options.model, Path(folder)) for name in options.methods}
        for name, place in places.items():
            predictor = load_predictor(name, place, words, options.benchmark, device)
            results[name] = measure_method(predictor, image, device, options.repeats)
            print(f"{_title(name)}: {format_seconds(results[name].seconds)}", flush=True)
            del predictor
    header = ("method", "seconds of an image", "of the processor", "labels in it")
    rows = [
        (_title(name), format_seconds(row[0]), format_seconds(row[1]), str(row[2])) for name, row in results.items()
    ]
    print(f"\n{format_table(header, rows)}")
    facts = {
        "model": f"{options.model}{' (random weights)' if options.model in RANDOM_MODELS else ''}",
        "image": f"{image.width}x{image.height}",
        "words": f"{len(words.query_names)} of {options.benchmark}",
        "repeats": options.repeats,
    }
    measured = {name: row._asdict() for name, row in results.items()}
    save_json(options.json, {"machine": machine, "workload": facts, "results": measured})


def _place(method: str, model: str, folder: Path) -> str:
    """The checkpoint to run a method on; random ones are made once."""
    kind = SYSTEMS[method].model_type if method in SYSTEMS else None
    if kind is None and model not in RANDOM_MODELS:
        return model
    place = folder / (kind or model)
    return str(place if place.exists() else make_checkpoint(kind or model, place))


def _title(method: str) -> str:
    return SYSTEMS[method].title if method in SYSTEMS else get_method(method).title


if __name__ == "__main__":
    main()
