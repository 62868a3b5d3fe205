"""Options about devices and processes."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["CpuOption", "DeviceOption", "ProcessOptions"]

DeviceOption = Annotated[
    str, typer.Option("--device", help="'auto', 'cpu', 'cuda', 'cuda:1', …; auto: the GPU if any.")
]
CpuOption = Annotated[bool, typer.Option("--cpu", help="Use the CPU although there is a GPU.")]


@dataclass(frozen=True)
class ProcessOptions:
    """Whether a run is on one process or many, and on which kind of device."""

    panel = "Processes"

    cpu: CpuOption = False
    processes: Annotated[
        int | None, typer.Option(help="Stop unless so many processes work together (started by torchrun).")
    ] = None

    def join(self, command: str) -> "Accelerator":
        """The `Accelerator` of this process, which knows of the others that were launched with it.

        Args:
            command: What is run, for the advice.

        Raises:
            ValueError: If there are more or fewer processes, or they do not know of each other.
        """
        from accelerate import Accelerator

        from ...evaluation.running.runner import check_process_count

        accelerator = Accelerator(cpu=self.cpu)
        check_process_count(accelerator)
        if self.processes is not None and accelerator.num_processes != self.processes:
            raise ValueError(
                f"Expected {self.processes} processes, but got {accelerator.num_processes}. Start with `torchrun "
                f"--standalone --nproc_per_node {self.processes} -m itaclip_hf.cli {command} …`, on CPUs after "
                "ACCELERATE_USE_CPU=1."
            )
        return accelerator
