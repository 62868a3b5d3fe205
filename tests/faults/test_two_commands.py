"""Two commands on one folder: one works, the other says so; two processes share a text cache."""

import os
import signal

import pytest
from watched_programs import check_files, find_temporaries, join, read_results, start, wait_for

from itaclip_hf.files import TEMPORARY_SUFFIX, locked_folder, remove_leftovers, write_atomically


@pytest.mark.slow
@pytest.mark.usefixtures("save_often")
@pytest.mark.parametrize("command", ["segment", "evaluate", "ablate"])
def test_the_second_command_waits_for_no_one_and_spoils_nothing(world, tmp_path, command):
    out = tmp_path / "out"
    first = start(tmp_path / "first", *world.arguments(command, out))
    wait_for(lambda: any(out.rglob("*.png" if command == "segment" else "part-*.npz")))
    first.send(signal.SIGSTOP)
    second = start(tmp_path / "second", *world.arguments(command, out))
    try:
        assert join([second]) == [2], second.printed
        assert f"Expected {out} for this run alone, but another one is at work there." in second.last_line
    finally:
        first.send(signal.SIGCONT)
    assert join([first]) == [0], first.printed
    whole = start(tmp_path / "whole.log", *world.arguments(command, tmp_path / "whole"))
    join([whole])
    assert read_results(out) == read_results(tmp_path / "whole")


@pytest.mark.slow
def test_processes_share_a_text_cache(world, tmp_path):
    cache = {"ITACLIP_TEXT_CACHE": str(tmp_path / "cache")}
    programs = [
        start(tmp_path / f"{index}.log", *world.arguments("segment", tmp_path / f"{index}"), **cache)
        for index in range(3)
    ]
    assert join(programs) == [0, 0, 0], [program.printed for program in programs]
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".safetensors"]
    assert read_results(tmp_path / "0") == read_results(tmp_path / "1") == read_results(tmp_path / "2")
    check_files(tmp_path / "0")
    assert "damaged" not in "".join(program.printed for program in programs)


def test_leftovers_go_and_what_is_being_written_stays(tmp_path):
    leftover = tmp_path / f".0123{TEMPORARY_SUFFIX}"
    leftover.write_bytes(b"half")
    with write_atomically(tmp_path / "new") as file:
        remove_leftovers(tmp_path)
        file.write(b"whole")
        assert not leftover.exists()
    assert (tmp_path / "new").read_bytes() == b"whole"
    assert find_temporaries(tmp_path) == []


def test_a_file_is_nobodys_leftover_before_it_has_its_name(tmp_path, monkeypatch):
    replace = os.replace

    def replace_beside_another(*paths):
        remove_leftovers(tmp_path)
        replace(*paths)

    monkeypatch.setattr(os, "replace", replace_beside_another)
    with write_atomically(tmp_path / "new") as file:
        file.write(b"whole")
    assert (tmp_path / "new").read_bytes() == b"whole"


def test_a_folder_is_free_again_after_an_error(tmp_path):
    with pytest.raises(KeyError), locked_folder(tmp_path):
        raise KeyError
    with locked_folder(tmp_path), pytest.raises(BlockingIOError, match="for this run alone"), locked_folder(tmp_path):
        pass
