import os

import pytest

from itaclip_hf.files import own_results, read_json, read_text, refuse_inputs, write_json


def test_a_failed_save_keeps_the_old_file_and_leaves_no_other(tmp_path, monkeypatch):
    path = tmp_path / "animals.json"
    path.write_text("old")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_json(path, {"classes": ["cat"]})
    assert path.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_results_are_known_again_and_others_are_refused(tmp_path):
    with own_results(tmp_path, ["report.json"]):
        write_json(tmp_path / "report.json", {})
    with own_results(tmp_path, ["report.json", "table.csv"]):
        (tmp_path / "table.csv").write_text("ours")
    (tmp_path / "notes.md").write_text("mine")
    with (
        pytest.raises(FileExistsError, match=r"notes\.md to be an earlier"),
        own_results(tmp_path, ["notes.md"]),
    ):
        pass
    with pytest.raises(ValueError, match="is a result to be replaced"):
        refuse_inputs(tmp_path, [None, tmp_path / "report.json"])
    refuse_inputs(tmp_path, [tmp_path / "notes.md"])


@pytest.mark.parametrize("name", ["table.csv", "masks"])
def test_a_result_that_was_changed_since_is_refused(tmp_path, name):
    def write(text):
        place = tmp_path / name / "a.txt" if name == "masks" else tmp_path / name
        place.parent.mkdir(exist_ok=True)
        place.write_text(text)

    for text in ("ours", "ours again"):
        with own_results(tmp_path, [name]):
            write(text)
    write("mine now")
    with pytest.raises(FileExistsError, match="or was changed since"), own_results(tmp_path, [name]):
        pass
    with own_results(tmp_path, ["other.json"]):
        pass
    write("ours again")
    with own_results(tmp_path, [name]):
        pass


def test_a_run_that_fails_keeps_what_it_has_not_touched_protected(tmp_path):
    with own_results(tmp_path, ["report.md"]):
        (tmp_path / "report.md").write_text("ours")
    with pytest.raises(ValueError, match="no"), own_results(tmp_path, ["report.md", "table.csv"]):
        raise ValueError("no")
    for name in ("report.md", "table.csv"):
        (tmp_path / name).write_text("mine now")
        with pytest.raises(FileExistsError, match=name.replace(".", r"\.")), own_results(tmp_path, [name]):
            pass


def test_what_other_programs_leave_in_a_folder_of_results_is_no_change(tmp_path):
    (tmp_path / "original").write_text("before")

    def run():
        with own_results(tmp_path, ["yolo"]):
            (tmp_path / "yolo" / "images").mkdir(parents=True, exist_ok=True)
            (tmp_path / "yolo" / "data.yaml").write_text("names")
            (tmp_path / "yolo" / "images" / "a.png").unlink(missing_ok=True)
            (tmp_path / "yolo" / "images" / "a.png").symlink_to(tmp_path / "original")

    run()
    for name in (".DS_Store", "Thumbs.db", "labels.cache"):
        (tmp_path / "yolo" / name).write_text("theirs")
    (tmp_path / "original").write_text("after")
    run()


@pytest.mark.parametrize("content", ["3", "null", "[1]", '{"a": 1}'])
def test_a_record_of_results_that_is_none_is_named(tmp_path, content):
    (tmp_path / "progress").mkdir()
    (tmp_path / "progress" / "results.json").write_text(content)
    with pytest.raises(ValueError, match=r"results\.json, but got something else"), own_results(tmp_path, ["a"]):
        pass


def test_what_a_run_that_was_cut_short_has_left_is_its_own(tmp_path):
    with pytest.raises(KeyboardInterrupt), own_results(tmp_path, ["table.csv"]):
        (tmp_path / "table.csv").write_text("half")
        raise KeyboardInterrupt
    with own_results(tmp_path, ["table.csv"]):
        pass


def test_a_result_that_was_not_made_does_not_keep_its_name(tmp_path):
    with own_results(tmp_path, ["curve.png"]):
        pass
    (tmp_path / "curve.png").write_text("mine")
    with pytest.raises(FileExistsError, match="but it is another file"), own_results(tmp_path, ["curve.png"]):
        pass


def test_a_folder_of_progress_that_is_not_ours_is_refused(tmp_path):
    (tmp_path / "progress").mkdir()
    with own_results(tmp_path, ["report.json"]):
        pass
    (tmp_path / "other" / "progress").mkdir(parents=True)
    (tmp_path / "other" / "progress" / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"mine\.txt"), own_results(tmp_path / "other", ["report.json"]):
        pass


@pytest.mark.parametrize("content", [b"{", b"\xff", b"[" * 10**5])
def test_what_is_no_json_is_named(tmp_path, content):
    (tmp_path / "file.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"Expected .* in .*file\.json, but got"):
        read_json(tmp_path / "file.json")


def test_a_folder_or_pipe_is_no_text(tmp_path):
    with pytest.raises(OSError, match="is a folder, a pipe or a device"):
        read_text(tmp_path)
