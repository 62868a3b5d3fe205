import os

import pytest

from itaclip_hf.files import write_json


def test_a_failed_save_keeps_the_old_file_and_leaves_no_other(tmp_path, monkeypatch):
    path = tmp_path / "animals.json"
    path.write_text("old")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_json(path, {"classes": ["cat"]})
    assert path.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1
