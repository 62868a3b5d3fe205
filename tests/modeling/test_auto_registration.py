"""Importing the package is quick, and the Auto classes know it whichever way they were or will be imported."""

import pickle
import subprocess
import sys
from importlib import import_module

import pytest
from transformers import AutoModelForSemanticSegmentation, CLIPTokenizer

from itaclip_hf import ITACLIPForSemanticSegmentation, ITACLIPImageProcessor, ITACLIPProcessor
from itaclip_hf.loading import DEMO_CHECKPOINT

from .conftest import make_tiny_config

PACKAGES = ["itaclip_hf", "itaclip_hf.modeling", "itaclip_hf.processing", "itaclip_hf.evaluation"]


def run_python(code: str, *arguments: object) -> None:
    command = [sys.executable, "-W", "error", "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "not supported" not in done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny model and its processor, saved."""
    path = tmp_path_factory.mktemp("saved")
    ITACLIPForSemanticSegmentation(make_tiny_config()).save_pretrained(path)
    ITACLIPProcessor(ITACLIPImageProcessor(), CLIPTokenizer.from_pretrained(DEMO_CHECKPOINT)).save_pretrained(path)
    return path


def test_importing_the_package_imports_neither_torch_nor_transformers():
    run_python("import sys, itaclip_hf; assert not {'torch', 'transformers'} & {*sys.modules}")


def test_vocabularies_and_templates_need_neither_torch_nor_transformers():
    run_python(
        "import sys; from itaclip_hf import Vocabulary; from itaclip_hf.processing import IMAGENET_TEMPLATES\n"
        "assert Vocabulary(['cat']).labels == ['cat']\n"
        "assert not {'torch', 'transformers', 'numpy'} & {*sys.modules}"
    )


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["segment", "--help"], ["segment", "--nonsense"]])
def test_help_and_errors_of_options_need_no_torch(arguments):
    run_python(
        "import sys; from itaclip_hf.cli.main import app\n"
        "try:\n    app(sys.argv[1:])\n"
        "except SystemExit:\n    assert not {'torch', 'transformers'} & {*sys.modules}",
        *arguments,
    )


@pytest.mark.parametrize("name", PACKAGES)
def test_every_name_of_a_package_loads_and_is_listed(name):
    package = import_module(name)
    assert set(package.__all__) <= set(dir(package))
    for offered in package.__all__:
        assert getattr(package, offered) is not None


@pytest.mark.parametrize("name", PACKAGES)
def test_an_unknown_name_is_an_attribute_error(name):
    with pytest.raises(AttributeError, match=f"module '{name}' has no attribute 'nonsense'"):
        _ = import_module(name).nonsense


def test_modules_are_attributes_of_their_package():
    run_python("import itaclip_hf; itaclip_hf.processing.vocabulary.Vocabulary; itaclip_hf.evaluation")


FIND_ALL = """
import sys
exec(sys.argv[1])
from transformers import AutoConfig, AutoImageProcessor, AutoModelForSemanticSegmentation, AutoProcessor, logging
from transformers import pipeline
import itaclip_hf
logging.disable_progress_bar()
folder = sys.argv[2]
assert type(AutoConfig.from_pretrained(folder)) is itaclip_hf.ITACLIPConfig
assert type(AutoModelForSemanticSegmentation.from_pretrained(folder)) is itaclip_hf.ITACLIPForSemanticSegmentation
assert type(AutoProcessor.from_pretrained(folder)) is itaclip_hf.ITACLIPProcessor
assert type(AutoImageProcessor.from_pretrained(folder)) is itaclip_hf.ITACLIPImageProcessor
assert type(pipeline("image-segmentation", model=folder).model) is itaclip_hf.ITACLIPForSemanticSegmentation
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "first",
    [
        "import itaclip_hf",
        "from transformers import AutoConfig",
        "from transformers import pipeline",
        "from itaclip_hf import ITACLIPForSemanticSegmentation",
        "import itaclip_hf.modeling.vision_itaclip",
        # Each of these is half-way when the Auto classes are imported.
        "import itaclip_hf, transformers.modeling_utils",
        "import itaclip_hf; from transformers import CLIPModel",
        "import itaclip_hf; from transformers import BertModel",
        "import itaclip_hf, transformers.generation.utils",
    ],
)
def test_auto_classes_find_the_package_whatever_is_imported_first(first, folder):
    run_python(FIND_ALL, first, folder)


@pytest.mark.slow
def test_a_pickled_configuration_makes_the_package_known(tmp_path):
    (tmp_path / "config.pkl").write_bytes(pickle.dumps(make_tiny_config()))
    run_python(
        "import pickle, sys; from pathlib import Path; from transformers import AutoModelForSemanticSegmentation\n"
        "config = pickle.loads(Path(sys.argv[1]).read_bytes())\n"
        "model = AutoModelForSemanticSegmentation.from_config(config)\n"
        "assert type(model).__module__ == 'itaclip_hf.modeling.modeling_itaclip'",
        tmp_path / "config.pkl",
    )


def test_registered_classes_are_those_of_the_package():
    model = AutoModelForSemanticSegmentation.from_config(make_tiny_config())
    assert type(model) is ITACLIPForSemanticSegmentation
