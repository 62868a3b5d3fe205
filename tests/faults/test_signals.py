"""Ctrl-C and SIGTERM end a command with one line that says how it goes on, and nothing half done."""

import contextlib
import gc
import inspect
import itertools
import os
import signal
import sys
import zipfile

import numpy as np
import pytest
from watched_programs import check_files, find_temporaries, join, read_results, start, start_pair, wait_for

from itaclip_hf import files
from itaclip_hf.evaluation.metrics.image_counts import ImageCounts

ADVICE = {
    "segment": "To go on, run it again with --existing skip.",
    "evaluate": "To go on, run the same command again.",
    "ablate": "To go on, run the same command again.",
    "texts": "To go on, run the same command again.",
}
BEGUN = {"segment": "**/*.json", "texts": "*.progress.json"}


def wait_for_work(out, command):
    wait_for(lambda: list(out.glob(BEGUN.get(command, "**/part-*.npz"))))


@pytest.mark.slow
@pytest.mark.usefixtures("save_often")
@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGINT, 130, "Interrupted. "), (signal.SIGTERM, 143, "Terminated. ")]
)
@pytest.mark.parametrize("command", list(ADVICE))
def test_one_line_says_how_to_go_on(world, tmp_path, command, number, code, word):
    out = tmp_path / "out"
    program = start(tmp_path / "log", *world.arguments(command, out))
    wait_for_work(out, command)
    program.send(number)
    assert join([program]) == [code], program.printed
    assert program.last_line.startswith(word)
    assert program.last_line.endswith(ADVICE[command])
    assert "Traceback" not in program.printed
    check_files(out)
    assert find_temporaries(out) == []


@pytest.mark.slow
@pytest.mark.usefixtures("save_often")
def test_ctrl_c_reaches_worker_processes_that_print_nothing(world, tmp_path):
    out = tmp_path / "out"
    arguments = ["2" if value == 0 else value for value in world.arguments("evaluate", out)]
    program = start(tmp_path / "log", *arguments)
    wait_for_work(out, "evaluate")
    os.killpg(program.pid, signal.SIGINT)  # a terminal's Ctrl-C goes to the whole group
    assert join([program]) == [130], program.printed
    assert program.last_line.startswith("Interrupted. ")
    assert "Traceback" not in program.printed
    again = start(tmp_path / "again", *arguments)  # no worker that is left keeps the folder
    assert join([again]) == [0], again.printed


@pytest.mark.slow
@pytest.mark.usefixtures("save_often")
def test_a_killed_run_with_workers_is_started_again_at_once(world, tmp_path):
    out = tmp_path / "out"
    arguments = ["2" if value == 0 else value for value in world.arguments("evaluate", out)]
    program = start(tmp_path / "log", *arguments)
    wait_for_work(out, "evaluate")
    program.send(signal.SIGKILL)
    program.wait()
    again = start(tmp_path / "again", *arguments)
    assert join([again]) == [0], again.printed


@pytest.mark.slow
@pytest.mark.usefixtures("save_often")
def test_two_processes_are_terminated_and_started_again(world, tmp_path):
    out = tmp_path / "out"
    programs = start_pair(tmp_path / "log", *world.arguments("evaluate", out))
    wait_for_work(out, "evaluate")
    for program in programs:
        program.send(signal.SIGTERM)
    codes = join(programs)
    assert codes[0] == 143, programs[0].printed
    assert "To go on, run the same command again." in programs[0].printed
    again = start_pair(tmp_path / "again", *world.arguments("evaluate", out))
    assert join(again) == [0, 0], again[0].printed
    whole = start(tmp_path / "whole.log", *world.arguments("evaluate", tmp_path / "whole"))
    join([whole])
    assert read_results(out) == read_results(tmp_path / "whole")


def interrupt(step, write, *arguments, code=(files.__file__, contextlib.__file__)):
    """Whether Ctrl-C came, before the instruction of that number of the code that writes files."""
    came, counter = [], itertools.count()

    def trace(frame, event, argument):
        if frame.f_code.co_filename not in code:
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode" and next(counter) == step:
            sys.settrace(None)
            came.append(step)
            raise KeyboardInterrupt
        return trace

    earlier = sys.gettrace()
    try:
        sys.settrace(trace)
        write(*arguments)
    except KeyboardInterrupt:
        assert came
    finally:
        sys.settrace(earlier)
    return bool(came)


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # nor does Python close all files then
def test_an_interrupt_between_any_two_steps_leaves_nothing_half_written(tmp_path):
    path = tmp_path / "file"
    outcomes = set()
    for step in itertools.count():
        path.write_bytes(b"old")
        is_interrupted = interrupt(step, files.write_text, path, "new")
        files.remove_unfinished()  # as commands do on their way out
        assert find_temporaries(tmp_path) == []
        outcomes.add(path.read_bytes())
        if not is_interrupted:
            break
    assert step > 100
    assert outcomes == {b"old", b"new"}


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_an_interrupted_archive_of_counts_says_nothing_later(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(sys, "unraisablehook", said.append)  # what interpreters print of objects that are let go
    counts = ImageCounts.from_images(2, [])
    archives = inspect.getfile(inspect.unwrap(np.savez_compressed)), zipfile.__file__
    code = (*archives, inspect.getfile(ImageCounts), files.__file__, contextlib.__file__)
    for step in itertools.count():
        is_interrupted = interrupt(step, counts.save, tmp_path / "part.npz", code=code)
        files.remove_unfinished()
        gc.collect(0)
        if not is_interrupted:
            break
    assert step > 100
    assert said == []
    assert ImageCounts.load(tmp_path / "part.npz").num_classes == 2
