"""Where the time of one image goes, and how near its vision tower comes to the machine's matrix rate.

    python -m benchmarks.stages --model vit-b16 --size 640x586 --stride 28
    python -m benchmarks.stages --labels-only --compile

Texts are no part of an image's time, as a vocabulary is encoded once; `--texts 5` measures them on five texts.
"""

import argparse
import statistics
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch

from itaclip_hf import ITACLIPProcessor
from itaclip_hf.evaluation.data.benchmarks import BENCHMARKS
from itaclip_hf.loading import resolve_checkpoint

from .measuring import PeakMemory, Stopwatch, can_measure_peak, measure_peak, median_seconds
from .output import describe_machine, format_bytes, format_seconds, format_table, print_machine, save_json
from .package_run import ENCODER, STAGES, compile_encoder, segment_with_package, watch_stages
from .roofline import measure_matrix_rates
from .workload import DTYPES, RANDOM_MODELS, Workload, add_output_arguments, add_workload_arguments, make_workload

__all__ = ["main", "measure_stages", "measure_texts"]


def measure_stages(
    workload: Workload, is_labels_only: bool, repeats: int
) -> tuple[dict[str, float], PeakMemory | None]:
    """Median seconds of each stage over several runs, and the memory of the last one where it can be measured."""
    device = workload.model.device
    runs = []
    for _ in range(repeats):
        stopwatch = Stopwatch(device)
        watched_memory = measure_peak(device) if can_measure_peak(device) else nullcontext()
        with watched_memory as memory, watch_stages(stopwatch):
            segment_with_package(workload, is_labels_only, stopwatch)
        runs.append(stopwatch.seconds)
    return {stage: statistics.median(run[stage] for run in runs) for stage in STAGES}, memory


@torch.inference_mode()
def measure_texts(workload: Workload, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds to encode some of a benchmark's texts in all prompt templates.

    Models with random weights have no tokenizer; they take that of the embedded checkpoint.
    """
    tokenizer_of = "demo" if options.model in RANDOM_MODELS else options.model
    processor = ITACLIPProcessor.from_pretrained(resolve_checkpoint(tokenizer_of))
    vocabulary = BENCHMARKS[options.benchmark].vocabulary()
    texts = processor(vocabulary=vocabulary, return_tensors="pt").to(workload.model.device)
    total = len(texts["input_ids"])
    sample = {name: texts[name][: options.texts] for name in ("input_ids", "attention_mask")}
    seconds = median_seconds(lambda: workload.model.encode_texts(**sample), workload.model.device, repeats=1)
    return {
        "texts": len(sample["input_ids"]),
        "prompts of each": sample["input_ids"].shape[1],
        "seconds": seconds,
        "texts of the vocabulary": total,
        "seconds for all, scaled up": seconds / len(sample["input_ids"]) * total,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the stages of one image."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stages", description=main.__doc__)
    add_workload_arguments(parser)
    parser.add_argument("--dtype", choices=list(DTYPES), default="float32", help="number format (%(default)s)")
    parser.add_argument("--labels-only", action="store_true", help="take the path that never holds a map per class")
    parser.add_argument("--compile", action="store_true", help="let torch.compile work on the encoder's blocks")
    parser.add_argument("--texts", type=int, default=0, metavar="N", help="also encode N texts of the benchmark")
    parser.add_argument("--repeats", type=int, default=2, help="runs of the image; the median counts (%(default)s)")
    add_output_arguments(parser)
    options = parser.parse_args(arguments)
    workload = make_workload(options, DTYPES[options.dtype])
    device = workload.model.device
    machine = describe_machine(device)
    print_machine(machine)
    measured: dict[str, Any] = {"machine": machine, "workload": workload.describe(), "repeats": options.repeats}
    print(format_table(("measured", ""), [(name, str(value)) for name, value in measured["workload"].items()]))
    if options.compile:
        measured["compile"] = compile_encoder(workload, options.labels_only)._asdict()
        print(f"\n{measured['compile']['message']}", flush=True)
    elif device.type == "cuda":  # libraries choose their kernels in the first run
        measure_stages(workload, options.labels_only, repeats=1)
    seconds, memory = measure_stages(workload, options.labels_only, options.repeats)
    measured["seconds"] = seconds
    if memory is not None:
        measured |= {"bytes_before": memory.before, "bytes_peak": memory.peak}
    if device.type == "cuda":  # without waiting for the device after every stage
        whole = Stopwatch(device)
        measured["seconds_unwatched"] = median_seconds(
            lambda: segment_with_package(workload, options.labels_only, whole), device, options.repeats
        )
    print(f"\n{_format_stages(seconds)}\n", flush=True)
    rates = measure_matrix_rates(workload.model.config, DTYPES[options.dtype], device, repeats=3)
    measured["matrix_rate"] = rates.best
    print(_format_summary(measured, workload.work.flops))
    if options.texts:
        measured["texts"] = measure_texts(workload, options)
        print(f"\n{_format_texts(measured['texts'])}")
    save_json(options.json, measured)


def _format_stages(seconds: Mapping[str, float]) -> str:
    total = sum(seconds.values())
    rows = [(stage, format_seconds(value), f"{100 * value / total:.1f} %") for stage, value in seconds.items()]
    return format_table(("stage", "time", "share"), [*rows, ("**all**", f"**{format_seconds(total)}**", "100 %")])


def _format_summary(measured: Mapping[str, Any], flops: int) -> str:
    seconds = measured["seconds"]
    total, encoder = sum(seconds.values()), seconds[ENCODER]
    rows = [
        ("the ViT's rate", f"{flops / encoder / 1e12:.3f} TFLOP/s"),
        ("the machine's matrix rate", f"{measured['matrix_rate'] / 1e12:.3f} TFLOP/s"),
        ("**share of it, in the ViT alone**", f"**{100 * flops / encoder / measured['matrix_rate']:.0f} %**"),
        ("**share of it, over all stages**", f"**{100 * flops / total / measured['matrix_rate']:.0f} %**"),
        ("**time outside the ViT**", f"**{100 * (total - encoder) / total:.1f} %**"),
    ]
    if "bytes_peak" in measured:
        rows.append(("memory before", format_bytes(measured["bytes_before"])))
        rows.append(("peak memory", format_bytes(measured["bytes_peak"])))
    if "seconds_unwatched" in measured:
        rows.insert(0, ("the image, without waiting after every stage", format_seconds(measured["seconds_unwatched"])))
    return format_table(("", ""), rows)


def _format_texts(texts: Mapping[str, Any]) -> str:
    rows = [
        (name, format_seconds(value) if name.startswith("seconds") else str(value)) for name, value in texts.items()
    ]
    return format_table(("texts", ""), rows)


if __name__ == "__main__":
    main()
