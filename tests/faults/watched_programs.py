"""Commands in processes of their own, to be killed, starved and watched; forked by a server that has imported all."""

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
import traceback
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import DupFd
from pathlib import Path

import pytest
import torch
from PIL import Image
from scripted_evaluation import (
    FORK_SERVER,
    START_METHOD,
    begin_program,
    find_free_port,
    save_tiny_checkpoint,
    write_folders,
    write_image,
)
from test_llm_texts import save_tiny_chat_model

from itaclip_hf import Vocabulary
from itaclip_hf.cli.main import main
from itaclip_hf.files import write_json

DISK_SIZE = 2**20
VOLATILE = ("created", "command", "timing", "seconds", "date", "of_earlier_runs", "run", "work", "processes")


def _is_slow_in_bfloat16(device: torch.device) -> bool:
    return False


# What programs find replaced, by name; the tests' own patches do not reach them.
replaced: dict[str, object] = {"itaclip_hf.loading.computes_fast_in_bfloat16": _is_slow_in_bfloat16}


@dataclass(frozen=True)
class Program:
    """A running command; what it prints lies in a file."""

    process: BaseProcess
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def wait(self) -> int:
        """Its exit code, negative if a signal ended it."""
        self.process.join()
        return self.process.exitcode

    def is_running(self) -> bool:
        return self.process.is_alive()

    def send(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):  # it may end at any moment, and the server does not wait for us
            if self.is_running():
                os.kill(self.pid, number)

    @property
    def printed(self) -> str:
        return self.log.read_text(errors="replace")

    @property
    def last_line(self) -> str:
        return self.printed.strip().splitlines()[-1]


def start(
    log: Path,
    *arguments: object,
    largest_file: int | None = None,
    encoding: str = "utf-8",
    output: int | None = None,
    **environment: str,
) -> Program:
    """Starts a process that runs `itaclip` with these arguments.

    Args:
        log: What it prints goes there.
        arguments: Those of the command line.
        largest_file: Bytes that a file may have.
        encoding: That of the terminal.
        output: Where its output goes instead.
        environment: Variables to set.
    """
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1", **environment}
    log.touch(0o600)
    process = FORK_SERVER.Process(
        target=_run,
        args=(log, [*map(str, arguments)], variables, START_METHOD, replaced, largest_file, encoding),
        kwargs={"output": None if output is None else _Descriptor(output)},
    )
    process.start()
    return Program(process, log)


class _Descriptor:
    """An open file on its way to a process that is being started."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self) -> tuple[object, ...]:
        return _open_descriptor, (DupFd(self.number),)


def _open_descriptor(duplicate: object) -> int:
    return duplicate.detach()


def _run(
    log: Path,
    arguments: list[str],
    variables: dict[str, str],
    start_method: str,
    replacements: dict[str, object],
    largest_file: int | None,
    encoding: str,
    output: int | None,
) -> None:
    try:
        os.setsid()
        for descriptor in (1, 2):
            os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), descriptor)
        if output is not None:
            os.dup2(output, 1)
            os.close(output)
        sys.stdout, sys.stderr = (os.fdopen(os.dup(number), "w", 1, encoding) for number in (1, 2))
        begin_program(variables, start_method)
        patch = pytest.MonkeyPatch()
        for name, value in replacements.items():
            patch.setattr(name, value)
        if largest_file is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
        sys.argv = ["itaclip", *arguments]
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            main()
            code = 0
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else int(error.code is not None)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    except BaseException:
        os.write(2, traceback.format_exc().encode())
        os._exit(99)


def start_pair(log: Path, *arguments: object) -> list[Program]:
    """Two processes that evaluate together, like torchrun's."""
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(find_free_port()), "WORLD_SIZE": "2"}
    return [
        start(
            log.with_suffix(f".{rank}"), *arguments,
            **common, LOCAL_WORLD_SIZE="2", RANK=str(rank), LOCAL_RANK=str(rank),
        )
        for rank in range(2)
    ]  # fmt: skip


@dataclass(frozen=True)
class World:
    """Everything that the commands read, in a folder, and the arguments of each."""

    root: Path

    def arguments(self, command: str, out: Path) -> tuple[object, ...]:
        root = self.root
        data = ("--images", root / "images", "--labels", root / "labels", "--vocabulary", root / "five.json")
        run = ("--model", root / "clip", "--no-plots", "--workers", 0, "--dtype", "float32", "--out", out)
        fast = ("--shortest-edge", 32, "--pamr-steps", 0)
        if command == "segment":
            common = ("--model", root / "clip", "--classes", "cat; sky", "--existing", "skip", "--device", "cpu")
            return ("segment", root / "pictures", *common, *fast, "--out", out)
        if command == "evaluate":
            return ("evaluate", *data, *run, *fast)
        if command == "ablate":
            return ("ablate", root / "rows.yaml", *data, *run, "--replicates", 10)
        names = ("--classes", root / "names.json", "--llm", root / "llm", "--model", "demo", "--device", "cpu")
        return ("texts", *names, "--batch-size", 1, "--attempts", 2, "--out", out / "words.json")


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp("world")
    write_folders(root, num_images=8)
    for index in range(8):
        write_image(root / "pictures" / f"{index % 2}" / f"{index}.png", index, (30, 40))
    save_tiny_checkpoint(root / "clip")
    save_tiny_chat_model(root / "llm")
    write_json(root / "five.json", Vocabulary(["one", ["two", "pair"], "three", "four", "five"]).to_dict())
    write_json(root / "names.json", Vocabulary([f"word{letter}" for letter in "abcdefgh"]).to_dict())
    (root / "rows.yaml").write_text(
        "base: {shortest_edge: 32, pamr_steps: 0, intermediate_layers: [1, 2]}\n"
        "rows:\n"
        "  - {name: full}\n"
        "  - {name: q-q, settings: {attention_maps: [qq]}}\n"
        "  - {name: one view, settings: {image_engineering: false}}\n"
    )
    return World(root)


@pytest.fixture
def save_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluations save every image, not every ten seconds."""
    monkeypatch.setitem(replaced, "itaclip_hf.evaluation.running.runner._UnsavedImages.add", _add_and_save)


def _add_and_save(self, position, images):
    self._images[position].extend(images)
    self.save()


def check_files(folder: Path) -> None:
    """Whatever has its final name is whole."""
    for path in folder.rglob("*"):
        if path.name.startswith(".") or not path.is_file():
            continue
        if path.suffix == ".png":
            with Image.open(path) as image:
                image.load()
        elif path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".npz":
            with zipfile.ZipFile(path) as file:
                assert file.testzip() is None
        else:
            assert path.name == "lock" or path.read_text().endswith("\n"), path


def find_temporaries(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.name.startswith(".")]


def read_results(folder: Path) -> dict[str, object]:
    """What a run has written, but for times and what it took over from earlier ones."""
    results: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if name.startswith("progress") or not path.is_file() or path.suffix == ".md":  # which is made from the JSON
            continue
        results[name] = _drop_volatile(json.loads(path.read_text())) if path.suffix == ".json" else path.read_bytes()
    return results


def _drop_volatile(value: object) -> object:
    if isinstance(value, dict):
        return {key: _drop_volatile(entry) for key, entry in value.items() if key not in VOLATILE}
    return value


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    """Waits until something has come."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[tuple[Path, dict[str, int]]]:
    """A folder with room for little, and the options of `start` that make it so where nothing may be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_SIZE}", "tmpfs", str(folder)]
    try:
        is_mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        is_mounted = False
    yield folder, {} if is_mounted else {"largest_file": 600}
    if is_mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def join(programs: Sequence[Program], seconds: float = 60) -> list[int]:
    """Exit codes; one that hangs is killed, and fails the test."""
    timer = threading.Timer(seconds, lambda: [program.send(signal.SIGKILL) for program in programs])
    timer.start()
    codes = [program.wait() for program in programs]
    timer.cancel()
    return codes
