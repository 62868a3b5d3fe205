"""What a measurement prints and keeps: the machine it ran on, Markdown tables, a JSON file."""

import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from itaclip_hf.files import write_json

__all__ = ["describe_machine", "format_bytes", "format_seconds", "format_table", "print_machine", "save_json"]

BUSY_LOAD = 0.5


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Processor, memory, accelerator, versions, and the load that other programs put on the machine now."""
    description: dict[str, Any] = {
        "processor": _read_field("/proc/cpuinfo", "model name") or platform.processor() or platform.machine(),
        "vector instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory": _read_field("/proc/meminfo", "MemTotal"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "load of the last minute": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }
    if device.type == "cuda":
        description["accelerator"] = torch.cuda.get_device_name(device)
    return description


def print_machine(machine: Mapping[str, Any]) -> None:
    """Print the machine as a table, and a warning where it was not idle."""
    print(format_table(("machine", ""), [(name, str(value)) for name, value in machine.items()]))
    load = machine["load of the last minute"]
    if load is not None and load > BUSY_LOAD:
        print(f"\nThe machine is busy (load {load}): the times below say little.")
    print(flush=True)


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column is text, the others are numbers."""
    lines = ["| " + " | ".join(header) + " |", "|---|" + "---:|" * (len(header) - 1)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def format_seconds(seconds: float) -> str:
    """Seconds, or milliseconds below one tenth."""
    return f"{1000 * seconds:.1f} ms" if seconds < 0.1 else f"{seconds:.2f} s"


def format_bytes(size: float) -> str:
    """Mebibytes, or gibibytes from one on."""
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


def save_json(path: Path | None, content: Mapping[str, Any]) -> None:
    """Write the measurement, if a file was asked for."""
    if path is not None:
        write_json(path, content)
        print(f"\nWrote {path}")


def _read_field(path: str, name: str) -> str | None:
    """The value in the first line `name : value` of a file of Linux; nothing where there is no such file."""
    file = Path(path)
    lines = file.read_text().splitlines() if file.is_file() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(name)), None)
