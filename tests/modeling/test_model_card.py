"""Model cards in folders and on the Hub, which is a server on this machine."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import EvalResult, ModelCard
from safetensors.torch import load as load_safetensors
from transformers import AutoModel

from itaclip_hf import ITACLIPForSemanticSegmentation, Vocabulary, load, load_method, make_model_card, save_with_code

from .loopback_hub import run_hub

VOCABULARY = Vocabulary(["grass", ["dog", "puppy"]], background=["sky"])


@pytest.fixture(scope="module")
def baked():
    settings = {"window_stride": 112, "shortest_edge": 224, "image_engineering": False}
    return load("demo", VOCABULARY, settings=settings, dtype="float32", device="cpu")


def write_report(folder, **changes):
    scores = {"mean_iou": 0.5, "overall_accuracy": 0.75, "mean_accuracy": None}
    report = {"benchmark": "voc21", "scores": scores, "settings": {"dataset": {"title": "Pascal VOC, val"}}, **changes}
    folder.mkdir()
    (folder / "report.json").write_text(json.dumps(report))
    return folder


def test_a_saved_model_has_a_card(baked, tmp_path):
    baked.model.save_pretrained(tmp_path / "pets")
    card = ModelCard.load(tmp_path / "pets" / "README.md")
    assert card.data.pipeline_tag == "image-segmentation" and card.data.library_name == "transformers"
    assert card.data.license == "apache-2.0"  # as the card of the embedded checkpoint says, which it was loaded from
    for part in ("# `pets`", "import itaclip_hf", 'model="pets"', "| window_stride | 112 | 28 |", "| 2 | dog |"):
        assert part in card.text, part
    assert str(tmp_path) not in card.content
    assert AutoModel.from_pretrained(tmp_path / "pets").config.id2label == VOCABULARY.id2label


def test_the_code_of_a_card_runs(baked, tmp_path, monkeypatch, capsys):
    from itaclip_hf.samples import load_demo_scene

    monkeypatch.chdir(tmp_path)
    load_demo_scene(0)[0].save("photo.jpg")
    for saved in baked:
        saved.save_pretrained("pets")
    plain = load("demo", preset="live", dtype="float32", device="cpu")
    for saved in plain:
        saved.save_pretrained("plain")
    for folder in ("pets", "plain"):
        code = Path(folder, "README.md").read_text().split("```python\n")[1].split("```")[0]
        names = {}
        exec(code, names)
        assert names["segments"], folder


def test_an_edited_card_stays_and_an_untouched_one_is_written_anew(baked, tmp_path):
    path = tmp_path / "README.md"
    path.write_text("mine")
    baked.model.save_pretrained(tmp_path)
    assert path.read_text() == "mine"
    path.unlink()
    other = load("demo", Vocabulary(["tree", "car"]), dtype="float32", device="cpu")
    other.model.save_pretrained(tmp_path)
    assert "| 0 | tree |" in path.read_text()
    baked.model.save_pretrained(tmp_path)
    assert "| 1 | grass |" in path.read_text() and "tree" not in path.read_text()
    edited = path.read_text().replace("apache-2.0", "mit")
    path.write_text(edited)
    other.model.save_pretrained(tmp_path)
    assert path.read_text() == edited


def test_another_process_than_the_main_one_writes_no_card(baked, tmp_path):
    baked.model.save_pretrained(tmp_path, is_main_process=False)
    assert not (tmp_path / "README.md").exists()


def test_the_card_beside_code_has_all_settings_and_scores(baked, tmp_path):
    save_with_code(tmp_path / "pets", *baked, reports=[write_report(tmp_path / "voc")])
    card = ModelCard.load(tmp_path / "pets" / "README.md")
    assert 'pipeline("image-segmentation", model="pets", trust_remote_code=True)' in card.text
    assert "| Pascal VOC, val | mIoU | 50.00 |" in card.text
    first, second = card.data.eval_results
    assert isinstance(first, EvalResult) and (first.dataset_type, first.metric_type) == ("voc21", "mean_iou")
    assert (first.metric_value, second.metric_value, card.data.model_name) == (0.5, 0.75, "pets")


def test_a_report_as_evaluations_write_it_names_its_data(baked):
    folder = Path(__file__).parents[2] / "docs" / "evaluation_demo"
    card = make_model_card(*baked, "me/drawn-things", reports=[folder])
    (mean_iou, _) = card.data.eval_results
    assert (mean_iou.dataset_name, mean_iou.dataset_type) == ("scenes", "scenes")
    assert f"| scenes | mIoU | {100 * mean_iou.metric_value:.2f} |" in card.text


def test_method_processor_and_origin_are_named():
    model, processor = load_method("naclip", "demo", photometric_weight=0.5, image_engineering=True)
    text = make_model_card(model, processor, "me/things").text
    assert "the method NACLIP (" in text and "| photometric_weight | 0.5 | 0.75 |" in text
    assert 'model="me/things", candidate' not in text  # words are those of a call
    assert 'segmenter("photo.jpg", candidate_labels=["cat", ["dog", "puppy"]]' in text


@pytest.mark.parametrize(
    ("name", "licence"),
    [("laion/CLIP-ViT-B-16-laion2B-s34B-b88K", "mit"), ("openai/clip-vit-base-patch16", None)],
)
def test_base_model_and_licence_of_hub_checkpoints(baked, monkeypatch, name, licence):
    monkeypatch.setattr(baked.model, "name_or_path", name)
    card = make_model_card(baked.model)
    assert (card.data.base_model, card.data.license) == (name, licence)
    assert f"[{name}](https://huggingface.co/{name})" in card.text


def test_an_origin_that_is_no_name_is_left_out(baked, monkeypatch):
    monkeypatch.setattr(baked.model, "name_or_path", "/some/folder/that/is/gone")
    assert make_model_card(baked.model).data.base_model is None


@pytest.mark.parametrize("part", ["benchmark", "scores", "settings"])
def test_what_is_no_report_is_refused(baked, tmp_path, part):
    other = write_report(tmp_path / "other") / "report.json"
    report = json.loads(other.read_text())
    del report[part]
    other.write_text(json.dumps(report))
    with pytest.raises(ValueError, match=r"Expected a report of `itaclip evaluate`, but .* is none\. Name its folder"):
        make_model_card(baked.model, reports=[other.parent])


def run_beside(hub, program, *arguments, home):
    """What a program that uses a Hub prints last, as JSON."""
    environment = {
        **{name: os.environ[name] for name in ("PATH", "PYTHONPATH", "HOME") if name in os.environ},
        **{"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(home), "HF_TOKEN": "hf_own"},
        **{"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "no_proxy": "127.0.0.1"},
    }
    done = subprocess.run([sys.executable, "-c", program, *arguments], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


ROUND_TRIP = """
import json, sys
import itaclip_hf, torch
from itaclip_hf.samples import load_demo_scene
from transformers import pipeline

folder, coded = sys.argv[1:]
plain = itaclip_hf.load(folder, dtype="float32", device="cpu")
for part in plain:
    part.push_to_hub("me/pets")
plain.model.push_to_hub("you/pets", tags=["animals"])
from huggingface_hub import HfApi
HfApi().create_repo("me/coded"); HfApi().upload_folder(repo_id="me/coded", folder_path=coded)

model = itaclip_hf.ITACLIPForSemanticSegmentation.from_pretrained("me/pets").eval()
processor = itaclip_hf.ITACLIPProcessor.from_pretrained("me/pets")
image = load_demo_scene(0)[0].crop((224, 100, 448, 324)).resize((112, 112))
inputs = processor(images=image)
assert torch.equal(model.predict_labels(processor, **inputs).labels[0],
                   plain.model.predict_labels(plain.processor, **inputs).labels[0])
segment = pipeline(model="me/pets")
card = itaclip_hf.make_model_card(itaclip_hf.load("me/coded").model)
print(json.dumps({"task": segment.task, "type": type(segment.model).__name__, "base": card.data.base_model,
                  "labels": sorted({found["label"] for found in segment(image)})}))
"""


@pytest.mark.slow
def test_model_and_processor_go_to_the_hub_and_come_back(baked, tmp_path):
    for part in baked:
        part.save_pretrained(tmp_path / "pets")
    save_with_code(tmp_path / "coded", *baked)
    with run_hub() as hub:
        hub.repos["you/pets"] = [{"README.md": b"---\nlicense: mit\n---\nMy own card.\n"}]
        found = run_beside(hub, ROUND_TRIP, tmp_path / "pets", tmp_path / "coded", home=tmp_path / "home")
    assert found["task"] == "image-segmentation" and found["type"] == ITACLIPForSemanticSegmentation.__name__
    assert found["labels"] == ["dog", "grass"] and found["base"] == "me/coded"
    card = ModelCard(hub.repos["me/pets"][-1]["README.md"].decode())
    assert card.data.pipeline_tag == "image-segmentation" and 'model="me/pets"' in card.text
    assert "processor_config.json" in hub.repos["me/pets"][-1]
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "README.md").write_bytes(hub.repos["me/pets"][-1]["README.md"])
    baked.model.save_pretrained(tmp_path / "again")
    assert 'model="again"' in (tmp_path / "again" / "README.md").read_text()  # it came back unedited
    theirs = ModelCard(hub.repos["you/pets"][-1]["README.md"].decode())
    assert theirs.text.strip() == "My own card." and theirs.data.tags == ["animals"]
    assert "modeling_itaclip.py" in hub.repos["me/coded"][-1]


PROXIED_ROUND_TRIP = """
import json, sys
import itaclip_hf, torch
from huggingface_hub import HfApi
from itaclip_hf.samples import load_demo_scene
from transformers import AutoModelForSemanticSegmentation

HfApi().create_repo("them/backbone"); HfApi().upload_folder(repo_id="them/backbone", folder_path=sys.argv[1])
words = itaclip_hf.Vocabulary(["grass", ["dog", "puppy"]], background=["sky"])
model, processor = itaclip_hf.load("demo", words, method="corrclip", proxy="them/backbone", device="cpu",
                                   dtype="float32", settings={"shortest_edge": 112, "window_size": 0})
for part in (model, processor):
    part.push_to_hub("me/proxied")
image = load_demo_scene(0)[0]
regions = torch.arange(image.height)[:, None].expand(-1, image.width).numpy() // 32 + 1
scores = []
for again in (model, AutoModelForSemanticSegmentation.from_pretrained("me/proxied").eval(),
              itaclip_hf.load("me/proxied", dtype="float32", device="cpu").model):
    inputs = processor(images=image, region_maps=regions)
    with torch.inference_mode():
        scores.append(again(**inputs).logits)
print(json.dumps({"equal": [torch.allclose(scores[0], found, atol=1e-6) for found in scores[1:]],
                  "varied": bool((scores[0].std(dim=(2, 3)) > 1e-3).any()),
                  "maps": list(again.config.attention_maps)}))
"""


@pytest.mark.slow
def test_a_proxy_comes_from_the_hub_and_goes_there_with_its_model(proxy, tmp_path):
    with run_hub() as hub:
        found = run_beside(hub, PROXIED_ROUND_TRIP, proxy, home=tmp_path / "home")
    assert found == {"equal": [True, True], "varied": True, "maps": ["similarity"]}
    pushed = load_safetensors(hub.repos["me/proxied"][-1]["model.safetensors"])
    own = load_safetensors((proxy / "model.safetensors").read_bytes())
    own = [name for name in own if not name.startswith("pooler.")]  # patches are compared, not pooled
    assert sum(name.startswith("proxy_model.") for name in pushed) == len(own) > 30
