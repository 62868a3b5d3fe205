"""Commands that are killed at random moments and started again end with what an undisturbed run gives."""

import random
import signal
import time
from pathlib import Path

import pytest
from watched_programs import check_files, find_temporaries, join, read_results, start, start_pair, wait_for

KILLS = 5
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("save_often")]


def run_undisturbed(world, command: str, out: Path, processes: int = 1) -> float:
    """The seconds that it took."""
    began = time.monotonic()
    programs = start_command(world, command, out, processes)
    assert set(join(programs)) <= {0, 1}, programs[0].printed  # 1: random weights give few usable texts
    return time.monotonic() - began


def start_command(world, command, out, processes):
    out.mkdir(exist_ok=True)
    log = out.with_name(f"{out.name}.log")
    arguments = world.arguments(command, out)
    return [start(log, *arguments)] if processes == 1 else start_pair(log, *arguments)


@pytest.mark.parametrize(
    ("command", "processes"), [("segment", 1), ("evaluate", 1), ("evaluate", 2), ("ablate", 1), ("texts", 1)]
)
def test_killed_and_started_again_gives_the_same_results(world, tmp_path, command, processes):
    seconds = run_undisturbed(world, command, tmp_path / "whole", processes)
    moments, out = random.Random(f"{command}{processes}"), tmp_path / "killed"
    for _ in range(KILLS):
        programs = start_command(world, command, out, processes)
        time.sleep(moments.uniform(0.2, 0.9) * seconds)
        for program in programs:
            program.send(signal.SIGKILL)
        join(programs)
        check_files(out)
    if not (out / "words.json").exists():  # a vocabulary that is finished is not written again
        run_undisturbed(world, command, out, processes)
    check_files(out)
    assert find_temporaries(out) == []
    assert read_results(out) == read_results(tmp_path / "whole")


def test_a_run_of_two_that_was_killed_goes_on_with_one(world, tmp_path):
    run_undisturbed(world, "evaluate", tmp_path / "whole")
    out = tmp_path / "killed"
    programs = start_command(world, "evaluate", out, 2)
    wait_for(lambda: list(out.glob("progress/part-*.npz")))
    programs[1].send(signal.SIGKILL)  # one alone: the other must not go on as if nothing had happened
    assert join(programs)[0] != 0 or read_results(out) == read_results(tmp_path / "whole")
    check_files(out)
    run_undisturbed(world, "evaluate", out)
    assert read_results(out) == read_results(tmp_path / "whole")
