"""On a disk without room results are whole or not there, the message names the file, and the next run gets on."""

import os
import re
from pathlib import Path

import pytest
from watched_programs import DISK_SIZE, check_files, find_temporaries, join, read_results, start

from itaclip_hf import Vocabulary
from itaclip_hf.loading import load
from itaclip_hf.text_cache import TextCache

ROOM = {"segment": 12 * 1024}  # pages of 4 kB
NO_ROOM = re.compile(r"(No space left on device|File too large): '(.*)'")


@pytest.mark.slow
@pytest.mark.parametrize("command", ["segment", "evaluate", "ablate", "texts"])
def test_a_full_disk_leaves_whole_files_and_a_message_with_a_name(world, small_disk, tmp_path, command):
    disk, options = small_disk
    out = disk / "out"
    if not options:
        (disk / "filler").write_bytes(b"x" * (DISK_SIZE - ROOM.get(command, 4096)))
    arguments = world.arguments(command, out)
    program = start(tmp_path / "log", *arguments, **options)
    assert join([program]) == [2], program.printed
    found = NO_ROOM.search(program.last_line)
    assert found, program.printed
    assert Path(found[2]).is_relative_to(out)
    check_files(out)
    assert find_temporaries(out) == []
    (disk / "filler").unlink(missing_ok=True)
    again = start(tmp_path / "log2", *arguments)
    assert join([again])[0] in (0, 1), again.printed
    assert find_temporaries(out) == []
    whole = start(tmp_path / "log3", *world.arguments(command, tmp_path / "whole"))
    join([whole])
    assert read_results(out) == read_results(tmp_path / "whole")


@pytest.mark.parametrize("place", ["full", "file", "pipe"])
def test_the_text_cache_is_useless_at_worst(small_disk, tmp_path, caplog, place):
    disk, options = small_disk
    folder = disk if place == "full" else tmp_path / place
    if place == "full" and options:
        pytest.skip("nothing may be mounted here")
    elif place == "full":
        (disk / "filler").write_bytes(b"x" * DISK_SIZE)
    elif place == "file":
        folder.write_text("not a folder")
    else:
        os.mkfifo(folder)
    model, processor = load("demo", dtype="float32", device="cpu")
    model.set_vocabulary(processor, Vocabulary([f"dog {number}" for number in range(9)]), TextCache(folder))
    assert model.config.id2label[0] == "dog 0"
    assert "cannot be kept" in caplog.text
    assert [path.name for path in disk.iterdir()] == (["filler"] if place == "full" else [])
