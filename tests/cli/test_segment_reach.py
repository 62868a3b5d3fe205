"""How much of the package stands between the command and its label map: what one has to read to follow it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import itaclip_hf

PACKAGE = Path(itaclip_hf.__file__).parent

# Prints the files whose functions are called from the start of `segment` until the first label maps are there.
TRACE = """
import json, sys, threading
from itaclip_hf.cli.main import app
OPTIMIZED = 1  # bodies of functions have this flag, those of modules and classes have not
root, called = sys.argv.pop(1), set()
is_running = False
def note(frame, event, argument):
    global is_running
    code = frame.f_code
    if event not in ("call", "return") or not code.co_filename.startswith(root):
        return
    file = code.co_filename[len(root) + 1:]
    if event == "call":
        is_running = is_running or (file, code.co_name) == ("cli/segment.py", "segment")
        if is_running and code.co_flags & OPTIMIZED:
            called.add(file)
    elif code.co_name == "predict_labels":
        print(json.dumps(sorted(called)))
        sys.setprofile(None), threading.setprofile(None)
        is_running = False
threading.setprofile(note), sys.setprofile(note)
app(sys.argv[1:])
"""


def test_segmenting_goes_through_a_readable_number_of_files(tmp_path):
    scene = PACKAGE / "assets" / "scenes" / "scene_0.png"
    options = ["--model", "demo", "--preset", "fast", "--shortest-edge", "168", "--classes", "sky; grass"]
    done = subprocess.run(
        [sys.executable, "-c", TRACE, PACKAGE, "segment", scene, *options, "--out", tmp_path],
        env={**os.environ, "ITACLIP_TEXT_CACHE": "off"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    files = json.loads(done.stdout.splitlines()[0])
    assert {"cli/segment.py", "loading.py", "modeling/windows.py", "processing/segmentation_maps.py"} <= {*files}
    assert len(files) <= 25, files
