"""The embedded checkpoint behind the page, here and served by the command in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from itaclip_hf import load
from itaclip_hf.app.answers import Segmenter

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def segmenter():
    return Segmenter(load("demo", dtype="float32", device="cpu"), "demo")


@pytest.fixture(scope="session")
def start(tmp_path_factory):
    """Starts a program that serves the page, and ends it after the tests."""
    started = []

    def start(*command, folder=ROOT, **variables):
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        fixed = {"PYTHONPATH": path, "GRADIO_TEMP_DIR": str(tmp_path_factory.mktemp("gradio"))}
        environment = {**os.environ, **fixed, **variables}
        process = subprocess.Popen(
            [sys.executable, *command], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.terminate()
        process.communicate(timeout=60)


@pytest.fixture(scope="session")
def address(start):
    """Where `itaclip app` serves the page."""
    pytest.importorskip("gradio")
    process = start("-m", "itaclip_hf.cli", "app", "--dtype", "float32", "--device", "cpu")
    line = process.stdout.readline()
    assert line.startswith("http://127.0.0.1:"), line
    return line.split()[0]
