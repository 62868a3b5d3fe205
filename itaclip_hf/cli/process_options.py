"""From the options about processes to the `Accelerator` of a run on one process or many."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["CpuOption", "ProcessesOption", "join_processes"]

CpuOption = Annotated[bool, typer.Option("--cpu", help="Use the CPU although there is a GPU.")]
ProcessesOption = Annotated[
    int | None, typer.Option(help="Stop unless so many processes work together (started by torchrun).")
]


def join_processes(cpu: bool, processes: int | None, command: str) -> "Accelerator":
    """The `Accelerator` of this process, which knows of the others that were launched with it.

    Args:
        cpu: Whether to use the CPU although there is a GPU.
        processes: Number of processes that is expected, if any.
        command: What is run, for the advice.

    Raises:
        ValueError: If there are more or fewer processes, or they do not know of each other.
    """
    from accelerate import Accelerator

    from ..evaluation.running.runner import check_process_count

    accelerator = Accelerator(cpu=cpu)
    check_process_count(accelerator)
    if processes is not None and accelerator.num_processes != processes:
        raise ValueError(
            f"Expected {processes} processes, but got {accelerator.num_processes}. Start with `torchrun --standalone "
            f"--nproc_per_node {processes} -m itaclip_hf.cli {command} …`, on CPUs after ACCELERATE_USE_CPU=1."
        )
    return accelerator
