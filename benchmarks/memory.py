"""How much memory an image takes over the loaded model, each case in a process of its own.

    python -m benchmarks.memory --model vit-b16
    python -m benchmarks.memory --cases "labels only, 24 megapixels"

A full result holds one map for every class; labels alone need one label and one score a pixel, whatever the number of
classes. Weights and libraries are in memory, and used once, before the measurement begins.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from .measuring import Stopwatch, measure_peak, median_seconds, run_in_own_process
from .output import describe_machine, format_bytes, format_seconds, format_table, print_machine, save_json
from .package_run import segment_with_package
from .workload import DTYPES, add_model_arguments, add_output_arguments, make_workload, read_device

__all__ = ["CASES", "Case", "main", "measure_case"]

FLOAT32_BYTES = 4


class Case(NamedTuple):
    """What is measured.

    Attributes:
        size: (height, width) of the picture.
        is_labels_only: Which path.
    """

    size: tuple[int, int]
    is_labels_only: bool


CASES = {
    "all class maps, 640x480": Case((480, 640), is_labels_only=False),
    "labels only, 640x480": Case((480, 640), is_labels_only=True),
    "labels only, 24 megapixels": Case((4000, 6000), is_labels_only=True),
}


def measure_case(case: Case, options: argparse.Namespace) -> dict[str, Any]:
    """Bytes and seconds of one case in this process."""
    options.size, options.image = case.size, None
    workload = make_workload(options, DTYPES[options.dtype])
    device = workload.model.device
    with measure_peak(device) as memory:
        seconds = median_seconds(
            lambda: segment_with_package(workload, case.is_labels_only, Stopwatch(device)), device, repeats=1, warmup=0
        )
    classes = 1 + int(workload.query_classes.max())
    pixels = case.size[0] * case.size[1]
    return {
        "workload": workload.describe(),
        "bytes_before": memory.before,
        "bytes_peak": memory.peak,
        "bytes_of_result": 0 if case.is_labels_only else classes * pixels * FLOAT32_BYTES,
        "seconds": seconds,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure peak memory over the loaded model."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=main.__doc__)
    add_model_arguments(parser)
    parser.add_argument("--benchmark", default="coco_stuff", help="whose queries and settings (%(default)s)")
    parser.add_argument("--stride", type=int, default=28, help="pixels between windows (%(default)s)")
    parser.add_argument("--dtype", choices=list(DTYPES), default="float32", help="number format (%(default)s)")
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES), help="which of them (all)")
    parser.add_argument("--in-this-process", choices=list(CASES), help=argparse.SUPPRESS)
    add_output_arguments(parser)
    options = parser.parse_args(arguments)
    if options.in_this_process:
        print(json.dumps(measure_case(CASES[options.in_this_process], options)))
        return
    machine = describe_machine(read_device(options))
    print_machine(machine)
    own = list(sys.argv[1:] if arguments is None else arguments)
    measured = {}
    for name in options.cases:
        measured[name] = run_in_own_process("benchmarks.memory", [*own, "--in-this-process", name])
        print(f"{name}: done in {format_seconds(measured[name]['seconds'])}", file=sys.stderr, flush=True)
    print(_format_cases(measured))
    save_json(options.json, {"machine": machine, "cases": measured})


def _format_cases(measured: dict[str, dict[str, Any]]) -> str:
    header = ["", "queries / classes", "loaded model", "peak", "result", "peak over model and result", "time"]
    rows = []
    for name, case in measured.items():
        before, peak, result = case["bytes_before"], case["bytes_peak"], case["bytes_of_result"]
        counts = f"{case['workload']['queries']} / {case['workload']['classes']}"
        sizes = (format_bytes(size) for size in (before, peak, result, peak - before - result))
        rows.append([name, counts, *sizes, format_seconds(case["seconds"])])
    return format_table(header, rows)


if __name__ == "__main__":
    main()
