"""The package against the naive loop, side by side in one run: same picture, same weights, taking turns.

    python -m benchmarks.ratios --model vit-b16 --size 640x586 --stride 28
    python -m benchmarks.ratios --share 0.1

From the normalised picture to the label map; texts are encoded beforehand. The naive loop takes minutes: `--share`
runs that share of its windows and refinement steps, evenly spread, and scales their seconds up. Peak memory is
measured in processes apart, where the naive loop runs a few windows and one step, as more of either take no more.
"""

import argparse
import copy
import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

from itaclip_hf.methods import get_preset

from .measuring import Stopwatch, measure_peak, run_in_own_process
from .naive_itaclip import NaiveITACLIP, refine, resize, weigh_neighbours
from .output import describe_machine, format_bytes, format_seconds, format_table, print_machine, save_json
from .package_run import PAMR_STAGES, PREPROCESSING, segment_with_package, watch_stages
from .roofline import choose_dtypes
from .workload import DTYPES, Workload, add_output_arguments, add_workload_arguments, make_workload, read_device

__all__ = ["main"]

NAIVE = "naive loop, float32"
PAMR, WHOLE = "PAMR", "whole image"  # what is compared
WINDOWS, PAMR_WEIGHTS, PAMR_STEPS, REST = "windows", "PAMR weights", "PAMR steps", "rest"  # stages of the naive loop


class Contestant(NamedTuple):
    """One way to run the package.

    Attributes:
        dtype: Number format of the model.
        stride: Pixels between windows.
        name: What the tables call it.
    """

    dtype: torch.dtype
    stride: int
    name: str


class Turn(NamedTuple):
    """One run of one contestant.

    Attributes:
        seconds: Of the refinement and of the whole image.
        labels: The label map; `None` if only a share was run.
    """

    seconds: dict[str, float]
    labels: torch.Tensor | None


@torch.inference_mode()
def run_naive(workload: Workload, share: float) -> Turn:
    """The naive loop, or a share of its windows and refinement steps, their seconds scaled up.

    Args:
        workload: In float32.
        share: 1 for all of it.
    """
    naive, stopwatch = NaiveITACLIP.for_workload(workload), Stopwatch(workload.model.device)
    image = workload.inputs["pixel_values"][0]
    output_size = (workload.image.height, workload.image.width)
    all_boxes = list(naive.boxes(image))
    boxes = _spread(all_boxes, share)
    all_steps = naive.method.pamr_steps
    steps = min(all_steps, max(1, round(share * all_steps))) if all_steps else 0
    with stopwatch.stage(REST), stopwatch.watch([(WINDOWS, NaiveITACLIP, "compare_window")]):
        maps = naive.compute_maps(image, output_size, workload.query_embeddings, boxes)
        with stopwatch.stage(PAMR_WEIGHTS):
            weights = weigh_neighbours(resize(image, output_size), naive.method.pamr_dilations)
        with stopwatch.stage(PAMR_STEPS):
            maps = refine(maps, weights, steps, naive.method.pamr_dilations)
        labels = naive.label(naive.score(maps, workload.query_classes.tolist()))
    seconds = stopwatch.seconds
    pamr = seconds[PAMR_WEIGHTS] + seconds[PAMR_STEPS] * (all_steps / steps if steps else 1)
    whole = seconds[WINDOWS] * len(all_boxes) / len(boxes) + pamr + seconds[REST]
    return Turn({PAMR: pamr, WHOLE: whole}, labels if share == 1 else None)


def run_package(workload: Workload, contestant: Contestant, is_labels_only: bool) -> Turn:
    """The package in one of its ways; the model, of that number format, is left with that stride."""
    workload.model.config.window_stride = contestant.stride
    stopwatch = Stopwatch(workload.model.device)
    with watch_stages(stopwatch):
        labels = segment_with_package(workload, is_labels_only, stopwatch)
    seconds = {stage: value for stage, value in stopwatch.seconds.items() if stage != PREPROCESSING}
    pamr = sum(seconds[stage] for stage in PAMR_STAGES)
    return Turn({PAMR: pamr, WHOLE: sum(seconds.values())}, labels)


def choose_contestants(options: argparse.Namespace, device: torch.device) -> list[Contestant]:
    """Every number format at the paper's stride and at that of the `balanced` preset."""
    return [
        Contestant(dtype, stride, f"{str(dtype).removeprefix('torch.')}, stride {stride}")
        for dtype in choose_dtypes(options.dtypes, device)
        for stride in dict.fromkeys((options.stride, get_preset("balanced")["window_stride"]))
    ]


def measure_memory(options: argparse.Namespace, name: str) -> dict[str, int]:
    """Bytes before and at the peak of one contestant, in this process."""
    is_naive = name == NAIVE
    contestants = {} if is_naive else {each.name: each for each in choose_contestants(options, read_device(options))}
    dtype = torch.float32 if is_naive else contestants[name].dtype
    workload = make_workload(options, dtype)
    with measure_peak(workload.model.device) as memory:
        if is_naive:
            run_naive(workload, share=0.01)
        else:
            run_package(workload, contestants[name], options.labels_only)
    return {"before": memory.before, "peak": memory.peak}


def take_turns(
    options: argparse.Namespace, workload: Workload, contestants: Sequence[Contestant]
) -> dict[str, list[Turn]]:
    """Run all contestants, then again, so that none has a quieter hour than the others."""
    turns: dict[str, list[Turn]] = defaultdict(list)
    of_dtype = {each.dtype: _convert(workload, each.dtype) for each in contestants}
    for number in range(1, options.rounds + 1):
        turns[NAIVE].append(run_naive(workload, options.share))
        for contestant in contestants:
            turns[contestant.name].append(run_package(of_dtype[contestant.dtype], contestant, options.labels_only))
        print(f"round {number} of {options.rounds} done", file=sys.stderr, flush=True)
    return turns


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare times, peak memory and labels of the package with those of the naive loop."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ratios", description=main.__doc__)
    add_workload_arguments(parser)
    parser.add_argument(
        "--dtypes", nargs="+", choices=list(DTYPES), help="number formats (float32, and bfloat16 where it is fast)"
    )
    parser.add_argument("--share", type=float, default=1.0, help="share of the naive loop to run (%(default)s)")
    parser.add_argument("--rounds", type=int, default=1, help="turns of each; the median counts (%(default)s)")
    parser.add_argument("--labels-only", action="store_true", help="take the path that never holds a map per class")
    parser.add_argument("--no-memory", action="store_true", help="leave out the measurements of memory")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    add_output_arguments(parser)
    options = parser.parse_args(arguments)
    if not 0 < options.share <= 1:
        parser.error(f"Expected --share above 0 and at most 1, but got {options.share}.")
    if options.memory_of:
        print(json.dumps(measure_memory(options, options.memory_of)))
        return
    workload = make_workload(options, torch.float32)
    machine = describe_machine(workload.model.device)
    print_machine(machine)
    described = workload.describe()
    print(format_table(("measured", ""), [(name, str(value)) for name, value in described.items()]))
    contestants = choose_contestants(options, workload.model.device)
    turns = take_turns(options, workload, contestants)
    rows = {name: _summarise(name, turns) for name in turns}
    if not options.no_memory:
        del workload
        dtypes = sorted({str(each.dtype).removeprefix("torch.") for each in contestants})
        own = [*(sys.argv[1:] if arguments is None else arguments), "--dtypes", *dtypes]
        for name, row in rows.items():
            row["memory"] = run_in_own_process("benchmarks.ratios", [*own, "--memory-of", name])
    _print_results(rows, options.share)
    save_json(options.json, {"machine": machine, "workload": described, "share": options.share, "results": rows})


def _summarise(name: str, turns: Mapping[str, Sequence[Turn]]) -> dict[str, Any]:
    """Median seconds of a contestant, and how far its labels are those of the naive loop."""
    row: dict[str, Any] = {
        part: statistics.median(turn.seconds[part] for turn in turns[name]) for part in (WHOLE, PAMR)
    }
    expected, found = turns[NAIVE][0].labels, turns[name][0].labels
    if expected is not None and found is not None:
        row["equal labels"] = float((expected == found).double().mean())
    return row


def _print_results(rows: Mapping[str, Mapping[str, Any]], share: float) -> None:
    if share < 1:
        print(
            f"\nOnly {100 * share:g} % of the naive loop's windows and PAMR steps were run; its times are scaled up "
            "from these, and there are no labels to compare with."
        )
    naive = rows[NAIVE]
    header = ["", WHOLE, "ratio", "PAMR alone", "ratio", "equal labels", "peak over the model", "share"]
    lines = []
    for name, row in rows.items():
        times = [
            text for part in (WHOLE, PAMR) for text in (format_seconds(row[part]), f"{naive[part] / row[part]:.1f}×")
        ]
        equal = f"{100 * row['equal labels']:.3f} %" if "equal labels" in row else "–"
        lines.append([name, *times, equal, *_format_memory(row, naive)])
    print(f"\n{format_table(header, lines)}")


def _format_memory(row: Mapping[str, Any], naive: Mapping[str, Any]) -> tuple[str, str]:
    if "memory" not in row:
        return "–", "–"
    above, reference = (each["memory"]["peak"] - each["memory"]["before"] for each in (row, naive))
    return format_bytes(above), f"{100 * above / reference:.0f} %"


def _convert(workload: Workload, dtype: torch.dtype) -> Workload:
    """The workload with a copy of its model in another number format."""
    model: Any = copy.deepcopy(workload.model)  # whose `to` is typed for other arguments
    return workload._replace(model=model.to(dtype))


def _spread(boxes: Sequence[Any], share: float) -> list[Any]:
    """That share of the entries, evenly spread, at least one."""
    count = max(1, round(share * len(boxes)))
    return [boxes[index * len(boxes) // count] for index in range(count)]


if __name__ == "__main__":
    main()
