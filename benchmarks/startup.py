"""How long it takes to begin: imports in fresh processes, and encoding a vocabulary the first and the second time.

    python -m benchmarks.startup
    python -m benchmarks.startup --model openai/clip-vit-base-patch16 --device cuda

The vocabulary is COCO-Stuff's 171 class names in CLIP's 80 prompt templates. Its cache lies in a folder of its own, so
that the first time is the first.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

from itaclip_hf import Vocabulary
from itaclip_hf.evaluation.data.benchmarks import BENCHMARKS
from itaclip_hf.loading import NUMBER_FORMATS, choose_dtype, load
from itaclip_hf.text_cache import TextCache

from .measuring import PROJECT
from .output import describe_machine, format_seconds, format_table, print_machine, save_json
from .workload import add_output_arguments

__all__ = ["main", "measure_processes", "measure_vocabulary"]

STARTS: dict[str, list[str]] = {
    "python": ["-c", "pass"],
    "import transformers": ["-c", "import transformers"],
    "import transformers, itaclip_hf": ["-c", "import transformers, itaclip_hf"],
    "import itaclip_hf": ["-c", "import itaclip_hf"],
    "from itaclip_hf import Vocabulary": ["-c", "from itaclip_hf import Vocabulary"],
    "from transformers import AutoModel": ["-c", "from transformers import AutoModel"],
    "import itaclip_hf; from transformers import AutoModel": [
        "-c", "import itaclip_hf; from transformers import AutoModel",
    ],
    "itaclip --version": ["-m", "itaclip_hf.cli", "--version"],
    "itaclip --help": ["-m", "itaclip_hf.cli", "--help"],
    "itaclip segment --wrong-option": ["-m", "itaclip_hf.cli", "segment", "--wrong-option"],
}  # fmt: skip
BAKINGS = ("without cache", "first time, with cache", "second time, with cache", "of which tokenizing")


class StartTime(NamedTuple):
    """How long something took.

    Attributes:
        seconds: On the clock.
        cpu_seconds: Of the processor, which other programs on the machine change less; 0 where nobody counts them.
    """

    seconds: float
    cpu_seconds: float


def measure_processes(starts: Mapping[str, Sequence[str]], repeats: int) -> dict[str, StartTime]:
    """Medians over fresh processes, from start to end; the first of each kind is not counted."""
    runs: dict[str, list[StartTime]] = {name: [] for name in starts}
    for _ in range(1 + repeats):  # in turns, so that a change of the machine's load meets all of them
        for name, arguments in starts.items():
            start, cpu_start = time.perf_counter(), _read_cpu_seconds()
            subprocess.run([sys.executable, *arguments], cwd=PROJECT, capture_output=True, check=False)
            runs[name].append(StartTime(time.perf_counter() - start, _read_cpu_seconds() - cpu_start))
    return {name: StartTime(*map(statistics.median, zip(*each[1:], strict=True))) for name, each in runs.items()}


def _read_cpu_seconds() -> float:
    """Of all processes that this one started and that have ended."""
    times = os.times()
    return times.children_user + times.children_system


def measure_vocabulary(model_name: str, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """Seconds to bake a vocabulary: without cache, into a new one and from it; and whether the results are the same.

    Args:
        model_name: Folder, hub id, or "demo".
        device: Where the texts are encoded.
        dtype: Number format.
    """
    model, processor = load(model_name, dtype=dtype, device=device)
    vocabulary = Vocabulary([entry.label for entry in BENCHMARKS["coco_stuff"].vocabulary().classes])
    model.set_vocabulary(processor, Vocabulary(["warm-up"]))
    seconds, embeddings = [], []
    with tempfile.TemporaryDirectory() as folder:
        for cache in (None, TextCache(folder), TextCache(folder)):
            start, cpu_start = time.perf_counter(), time.process_time()
            model.set_vocabulary(processor, vocabulary, cache)
            embeddings.append(model.query_embeddings.cpu())
            seconds.append(StartTime(time.perf_counter() - start, time.process_time() - cpu_start))
    start, cpu_start = time.perf_counter(), time.process_time()
    processor(vocabulary=vocabulary)
    seconds.append(StartTime(time.perf_counter() - start, time.process_time() - cpu_start))
    return {
        "classes": len(vocabulary.classes),
        "templates": len(processor.templates),
        "dtype": str(dtype).removeprefix("torch."),
        "times": {name: each._asdict() for name, each in zip(BAKINGS, seconds, strict=True)},
        "results_are_equal": all(torch.equal(embeddings[0], other) for other in embeddings[1:]),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure imports, commands and a vocabulary."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.startup", description=main.__doc__)
    parser.add_argument("--model", default="demo", help="CLIP checkpoint whose texts are encoded (%(default)s)")
    parser.add_argument("--device", default="cpu", help="where (%(default)s)")
    parser.add_argument("--dtype", choices=NUMBER_FORMATS, default="float32", help="format (%(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="processes of each kind (%(default)s)")
    add_output_arguments(parser)
    options = parser.parse_args(arguments)
    device = torch.device(options.device)
    machine = describe_machine(device)
    print_machine(machine)
    starts = measure_processes(STARTS, options.repeats)
    rows = [(name, *map(format_seconds, each)) for name, each in starts.items()]
    print(format_table(("process", "time", "CPU time"), rows))
    both, alone = starts["import transformers, itaclip_hf"], starts["import transformers"]
    added = StartTime(both.seconds - alone.seconds, both.cpu_seconds - alone.cpu_seconds)
    print(
        f"\n`import itaclip_hf` adds {format_seconds(added.seconds)} to `import transformers` "
        f"({format_seconds(added.cpu_seconds)} of CPU time).\n",
        flush=True,
    )
    vocabulary = measure_vocabulary(options.model, device, choose_dtype(options.dtype, device))
    print(_format_vocabulary(options.model, vocabulary))
    processes = {name: each._asdict() for name, each in starts.items()}
    save_json(
        options.json,
        {"machine": machine, "processes": processes, "import_adds": added._asdict(), "vocabulary": vocabulary},
    )


def _format_vocabulary(model_name: str, measured: Mapping[str, Any]) -> str:
    title = f"{measured['classes']} classes x {measured['templates']} templates, {model_name}, {measured['dtype']}"
    rows = [(name, *map(format_seconds, each.values())) for name, each in measured["times"].items()]
    same = "the same bits" if measured["results_are_equal"] else "NOT the same bits"
    return f"{format_table((title, 'time', 'CPU time'), rows)}\n\nThe three results are {same}."


if __name__ == "__main__":
    main()
