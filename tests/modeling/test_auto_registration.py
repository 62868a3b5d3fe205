"""Importing the package is quick, and the Auto classes know it whichever way they were or will be imported."""

import pickle
import subprocess
import sys
from importlib import import_module

import pytest
from transformers import AutoModelForSemanticSegmentation, CLIPConfig, CLIPModel, CLIPTokenizer

from itaclip_hf import ITACLIPConfig, ITACLIPForSemanticSegmentation, ITACLIPImageProcessor, ITACLIPProcessor
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


@pytest.fixture(scope="module")
def stock_folder(tmp_path_factory):
    """A tiny CLIP of Transformers' own, saved."""
    path = tmp_path_factory.mktemp("stock")
    tiny = make_tiny_config()
    config = CLIPConfig(text_config=tiny.text_config.to_dict(), vision_config=tiny.vision_config.to_dict())
    CLIPModel(config).save_pretrained(path)
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
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForSemanticSegmentation, AutoProcessor
from transformers import AutoTokenizer, CLIPTokenizer, logging, pipeline
import itaclip_hf
logging.disable_progress_bar()
folder = sys.argv[2]
assert type(AutoConfig.from_pretrained(folder)) is itaclip_hf.ITACLIPConfig
assert type(AutoConfig.for_model("itaclip")) is itaclip_hf.ITACLIPConfig
assert type(AutoModel.from_pretrained(folder)) is itaclip_hf.ITACLIPForSemanticSegmentation
assert type(AutoModelForSemanticSegmentation.from_pretrained(folder)) is itaclip_hf.ITACLIPForSemanticSegmentation
assert type(AutoProcessor.from_pretrained(folder)) is itaclip_hf.ITACLIPProcessor
assert type(AutoImageProcessor.from_pretrained(folder)) is itaclip_hf.ITACLIPImageProcessor
assert type(AutoTokenizer.from_pretrained(folder)) is CLIPTokenizer
assert type(pipeline("image-segmentation", model=folder).model) is itaclip_hf.ITACLIPForSemanticSegmentation
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "first",
    [
        "import itaclip_hf",
        "from transformers import AutoConfig",
        "from transformers import pipeline",
        "from itaclip_hf import ITACLIPConfig, ITACLIPForSemanticSegmentation",
        "import itaclip_hf.modeling.vision_itaclip",
        # Each of these is half-way when the Auto classes are imported.
        "import itaclip_hf, transformers.modeling_utils",
        "import itaclip_hf; from transformers import CLIPModel",
        "import itaclip_hf; from transformers import BertModel",
        "import itaclip_hf, transformers.generation.utils",
        # Here one of the tables is there before ours is entered, and the others are made afterwards.
        "import transformers.models.auto.configuration_auto",
        "import transformers.models.auto.modeling_auto",
        "import transformers.models.auto.processing_auto",
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


def test_auto_classes_cost_nothing_of_ours_until_one_is_asked_for(stock_folder):
    run_python(
        "import sys, itaclip_hf\n"
        "known = {name for name in sys.modules if name.startswith('itaclip_hf')}\n"
        "from transformers import AutoConfig, AutoModel, AutoModelForSemanticSegmentation, AutoProcessor\n"
        "from transformers import AutoTokenizer, logging, pipeline\n"
        "logging.disable_progress_bar()\n"
        "assert type(AutoModel.from_pretrained(sys.argv[1])).__name__ == 'CLIPModel'\n"
        "assert {name for name in sys.modules if name.startswith('itaclip_hf')} == known\n"
        "AutoConfig.for_model('itaclip')\n"
        "assert 'itaclip_hf.modeling.configuration_itaclip' in sys.modules\n"
        "assert 'itaclip_hf.modeling.modeling_itaclip' not in sys.modules",
        stock_folder,
    )


BREAK_AND_LOAD = """
import importlib.abc, sys
broken, error, folder, stock_folder = sys.argv[1:]


class Breaker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == broken:
            raise getattr(__import__("builtins"), error)("a table has moved")


sys.meta_path.insert(0, Breaker())
import itaclip_hf
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForSemanticSegmentation, AutoProcessor
from transformers import logging, pipeline
logging.disable_progress_bar()
assert type(AutoConfig.from_pretrained(stock_folder)).__name__ == "CLIPConfig"
assert type(AutoModel.from_pretrained(stock_folder)).__name__ == "CLIPModel"
auto = AutoModelForSemanticSegmentation if "modeling_" in broken else AutoProcessor
try:
    auto.from_pretrained(folder)
except ImportError as found:
    assert f"Expected itaclip_hf to load its ITACLIP" in str(found), found
    assert f"but got {error}: a table has moved." in str(found), found
    assert f"{error}: a table has moved" == f"{type(found.__cause__).__name__}: {found.__cause__}"
else:
    raise SystemExit("no error")
"""


@pytest.mark.slow
@pytest.mark.parametrize("error", ["ImportError", "AttributeError", "RuntimeError"])
@pytest.mark.parametrize("module", ["modeling.modeling_itaclip", "processing.processing_itaclip"])
def test_a_fault_in_the_package_leaves_other_models_alone_and_is_told(module, error, folder, stock_folder):
    run_python(BREAK_AND_LOAD, f"itaclip_hf.{module}", error, folder, stock_folder)


def test_a_release_without_a_table_is_warned_of():
    run_python(
        "import sys, types, warnings, itaclip_hf\n"
        "from wrapt import notify_module_loaded\n"
        "other = types.ModuleType('transformers.models.auto.processing_auto')\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        "    notify_module_loaded(other)\n"
        "(warning,) = caught\n"
        "assert 'Expected PROCESSOR_MAPPING_NAMES in transformers.models.auto.processing_auto' in str(warning.message)"
    )


def test_the_package_may_be_imported_anew():
    run_python(
        "import importlib, sys, itaclip_hf\n"
        "from transformers import pipelines\n"
        "stock = pipelines.PIPELINE_REGISTRY.supported_tasks['image-segmentation']['stock_impl']\n"
        "importlib.reload(itaclip_hf)\n"
        "for name in [name for name in sys.modules if name.startswith('itaclip_hf')]:\n"
        "    del sys.modules[name]\n"
        "import itaclip_hf\n"
        "task = pipelines.PIPELINE_REGISTRY.supported_tasks['image-segmentation']\n"
        "assert task['stock_impl'] is stock\n"
        "assert task['impl'].__name__ == 'ITACLIPImageSegmentationPipeline'"
    )


def test_tables_of_transformers_hold_the_classes():
    from transformers.models.auto import configuration_auto, image_processing_auto, modeling_auto, processing_auto

    assert configuration_auto.CONFIG_MAPPING["itaclip"] is ITACLIPConfig
    assert modeling_auto.MODEL_MAPPING[ITACLIPConfig] is ITACLIPForSemanticSegmentation
    mapping = modeling_auto.MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING
    assert ITACLIPConfig in mapping and ITACLIPForSemanticSegmentation in mapping.values()
    assert processing_auto.PROCESSOR_MAPPING[ITACLIPConfig] is ITACLIPProcessor
    assert set(image_processing_auto.IMAGE_PROCESSOR_MAPPING[ITACLIPConfig].values()) == {ITACLIPImageProcessor}
