"""The Space: its README says what Spaces read, and its program serves the page."""

import contextlib
import re
import socket
import time
import urllib.request
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
SPACE = ROOT / "itaclip_hf" / "app" / "space"


def read_front_matter():
    return yaml.safe_load(re.match(r"---\n(.*?)\n---\n", (SPACE / "README.md").read_text("utf-8"), re.DOTALL)[1])


def test_the_readme_says_what_a_space_is_made_of():
    about = read_front_matter()
    assert about["sdk"] == "gradio" and (SPACE / about["app_file"]).is_file()
    assert len(about["short_description"]) <= 60  # or the Hub refuses it
    (pin,) = re.findall(r"^gradio==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert about["sdk_version"] == pin
    assert isinstance(about["python_version"], str)


def test_the_requirements_are_the_package_with_its_page():
    (requirement,) = map(Requirement, (SPACE / "requirements.txt").read_text().split())
    assert requirement.name == "itaclip_hf" and requirement.extras == {"app"}


@pytest.mark.slow
def test_it_serves_the_checkpoint_that_the_variable_names(start):
    pytest.importorskip("gradio")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = start("app.py", folder=SPACE, ITACLIP_MODEL="demo", GRADIO_SERVER_PORT=str(port))
    page = ""
    while not page:
        time.sleep(1)
        assert process.poll() is None
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}") as answer:
            page = answer.read().decode("utf-8")
    assert "ITACLIP" in page and "drawings of its classes" in page
