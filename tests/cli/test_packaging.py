"""The front door: public names, and a wheel and a source archive that hold everything they need."""

import configparser
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import itaclip_hf

ROOT = Path(__file__).parents[2]
NO_SOURCES = shutil.ignore_patterns(".git*", ".venv*", ".*_cache", "__pycache__", "*.egg-info", "build", "dist")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel that is built from a copy of the sources, without network."""
    copy = tmp_path_factory.mktemp("sources") / "itaclip_hf"
    copy.mkdir()
    for name in ("LICENSE", "NOTICE", "DESCRIPTION.md", "pyproject.toml", "setup.cfg"):
        shutil.copy(ROOT / name, copy)
    shutil.copytree(ROOT / "itaclip_hf", copy / "itaclip_hf", ignore=NO_SOURCES)
    return zipfile.ZipFile(build("wheel", copy))


def build(kind, sources):
    command = f"from setuptools import build_meta; print(build_meta.build_{kind}('dist'))"
    subprocess.run([sys.executable, "-c", command], cwd=sources, check=True, capture_output=True)
    (built,) = (sources / "dist").iterdir()
    return built


@pytest.fixture(scope="module")
def wheel_names(wheel):
    return set(wheel.namelist())


def test_public_names_are_these_and_no_others():
    assert sorted(itaclip_hf.__all__) == [
        "ITACLIPConfig",
        "ITACLIPForSemanticSegmentation",
        "ITACLIPImageProcessor",
        "ITACLIPProcessor",
        "Settings",
        "Vocabulary",
        "ZeroShotImageSegmentationPipeline",
        "explain",
        "load",
        "load_demo",
        "load_method",
        "make_model_card",
        "pipeline",
        "save_with_code",
    ]
    assert all(hasattr(itaclip_hf, name) for name in itaclip_hf.__all__)


def test_wheel_holds_every_file_of_the_package(wheel_names):
    files = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "itaclip_hf").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert "itaclip_hf/py.typed" in files
    assert files <= wheel_names


def test_wheel_holds_licences_and_nothing_that_is_not_the_package(wheel_names):
    tops = {name.split("/")[0] for name in wheel_names}
    assert tops == {"itaclip_hf", "itaclip_hf-0.1.0.dist-info"}
    assert any(name.endswith("licenses/LICENSE") for name in wheel_names)
    assert any(name.endswith("licenses/NOTICE") for name in wheel_names)


def test_the_source_archive_holds_what_the_readme_speaks_of(tmp_path):
    shutil.copytree(ROOT, tmp_path / "itaclip_hf", ignore=NO_SOURCES)
    with tarfile.open(build("sdist", tmp_path / "itaclip_hf")) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    links = re.findall(r"\]\(([^):#]+)[#)]", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert len(links) > 10 and set(links) <= names
    folders = (".ci", "benchmarks", "demo_world", "docs", "itaclip_hf", "tests")
    files = {
        path.relative_to(ROOT).as_posix()
        for folder in folders
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {"Makefile", "constraints.txt", *files} <= names


@pytest.mark.slow
def test_a_users_program_is_checked_against_the_installed_types(wheel, tmp_path):
    """What the names give is known to the last type, and what they do not take is refused."""
    pytest.importorskip("mypy")
    wheel.extractall(tmp_path / "installed")
    (tmp_path / "project").mkdir()
    shutil.copy(Path(__file__).with_name("users_program.py"), tmp_path / "project")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", "users_program.py"],
        cwd=tmp_path / "project",
        env={**os.environ, "PYTHONPATH": str(tmp_path / "installed")},  # mypy takes what is there as installed
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_version_is_the_same_everywhere():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    assert setup["metadata"]["version"] == itaclip_hf.__version__


@pytest.mark.skipif((ROOT / "PKG-INFO").exists(), reason="a source archive has setup.cfg without its comments")
def test_every_requirement_has_a_reason_and_lies_within_the_constraints():
    from packaging.requirements import Requirement

    section = (
        (ROOT / "setup.cfg").read_text(encoding="utf-8").split("install_requires =")[1].split("[options.extras")[0]
    )
    lines = [line.strip() for line in section.strip().splitlines()]
    for before, line in zip(["", *lines], lines, strict=False):
        assert line.startswith("#") or before.startswith("#"), f"no reason above {line}"
    pins = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            pins[Requirement(line).name] = next(iter(Requirement(line).specifier)).version
    for line in lines:
        if not line.startswith("#"):
            requirement = Requirement(line)
            assert requirement.specifier.contains(pins[requirement.name]), line


def test_package_sources_name_no_path_of_a_machine():
    for path in (ROOT / "itaclip_hf").rglob("*.py"):
        assert "/home/" not in path.read_text(encoding="utf-8"), path
