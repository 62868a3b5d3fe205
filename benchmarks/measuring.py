"""Seconds and bytes: a stopwatch that waits for the device, peak memory of a block, and runs in own processes."""

import contextlib
import ctypes
import functools
import gc
import json
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

__all__ = [
    "PeakMemory",
    "Stopwatch",
    "can_measure_peak",
    "measure_peak",
    "median_seconds",
    "run_in_own_process",
    "synchronize",
]

PROJECT = Path(__file__).parents[1]
RESET_PEAK = "5"  # what Linux wants to read in clear_refs


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def median_seconds(call: Callable[[], Any], device: torch.device, repeats: int, warmup: int = 1) -> float:
    """Median seconds of a call, after some that are not counted."""
    seconds = []
    for _ in range(warmup + repeats):
        synchronize(device)
        start = time.perf_counter()
        call()
        synchronize(device)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[warmup:])


class Stopwatch:
    """Adds up seconds by stage; while it watches, functions of the package are timed wherever they are called.

    A stage within another one counts for itself alone, not for the outer one.

    Args:
        device: Where the work is done; it is waited for at every start and end.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = defaultdict(float)
        self._running: list[str] = []
        self._since = 0.0

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a block."""
        self._switch()
        self._running.append(name)
        try:
            yield
        finally:
            self._switch()
            self._running.pop()

    @contextlib.contextmanager
    def watch(self, stages: Sequence[tuple[str, Any, str]]) -> Iterator[None]:
        """Time functions by name while the block runs.

        Args:
            stages: (stage, owner, attribute) of each: a module's function or a class's method.
        """
        with contextlib.ExitStack() as stack:
            for name, owner, attribute in stages:
                original = getattr(owner, attribute)
                stack.callback(setattr, owner, attribute, original)
                setattr(owner, attribute, self._timed(name, original))
            yield

    def _timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.stage(name):
                return function(*args, **kwargs)

        return timed

    def _switch(self) -> None:
        """Book the time since the last switch to the stage that was running."""
        synchronize(self.device)
        now = time.perf_counter()
        if self._running:
            self.seconds[self._running[-1]] += now - self._since
        self._since = now


class PeakMemory:
    """Memory of this process, or of a CUDA device, in bytes.

    Attributes:
        before: Held when the block began, after freed memory was given back.
        peak: Most that was held during the block.
    """

    def __init__(self, before: int) -> None:
        self.before = before
        self.peak = before

    @property
    def above(self) -> int:
        """What the block added at most."""
        return self.peak - self.before


def can_measure_peak(device: torch.device) -> bool:
    """Whether [`measure_peak`] works here."""
    return device.type == "cuda" or sys.platform.startswith("linux")


@contextlib.contextmanager
def measure_peak(device: torch.device) -> Iterator[PeakMemory]:
    """Watch memory during a block: allocated memory of a CUDA device, else resident memory of the process.

    Raises:
        OSError: If the system is not Linux and the device is the CPU.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        memory = PeakMemory(torch.cuda.memory_allocated(device))
        yield memory
        memory.peak = torch.cuda.max_memory_allocated(device)
        return
    if not can_measure_peak(device):
        raise OSError("Expected Linux, whose kernel keeps the peak of a process. Measure there, or on a CUDA device.")
    give_back = getattr(ctypes.CDLL(None), "malloc_trim", None)  # not every C library has it
    if give_back is not None:
        give_back(0)  # what was freed before must not hide what is taken now
    Path("/proc/self/clear_refs").write_text(RESET_PEAK)
    memory = PeakMemory(_read_status("VmRSS"))
    yield memory
    memory.peak = max(memory.before, _read_status("VmHWM"))


def run_in_own_process(module: str, arguments: Sequence[str]) -> Any:
    """Run `python -m MODULE ARGUMENTS` and read the JSON value in its last line of output.

    Raises:
        RuntimeError: If it fails.
    """
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed with exit status {done.returncode}:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def _read_status(name: str) -> int:
    """A size in /proc/self/status, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"Expected {name} in /proc/self/status, but it is not there.")
