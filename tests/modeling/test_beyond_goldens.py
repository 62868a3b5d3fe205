"""Methods beyond the paper against recorded runs of their official code, through the public API alone."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import Dinov2Config, Dinov2Model, ViTConfig, ViTModel

from itaclip_hf import ITACLIPConfig, ITACLIPForSemanticSegmentation
from itaclip_hf.methods import get_method
from itaclip_hf.modeling.patch_similarity import clean_patches, encode_proxy, find_outliers
from tests.goldens.golden_weights import golden_tensor

FOLDER = Path(__file__).parents[1] / "goldens_beyond"
CASES = {path.stem: path.stem.partition("_")[0] for path in sorted(FOLDER.glob("*.npz"))}
METHODS = {"resclip": "resclip_rcs"}
PROXIES = {"vit_patch8": (ViTConfig, ViTModel), "dinov2_patch14": (Dinov2Config, Dinov2Model)}
MEAN, STD = [122.771, 116.746, 104.094], [68.501, 66.632, 70.323]


def read_case(name):
    with np.load(FOLDER / f"{name}.npz") as file:
        arrays = dict(file)
    spec = json.loads(bytes(arrays.pop("spec")))
    pixels = ((arrays["image"].astype(np.float64) - MEAN) / STD).astype(np.float32)
    return spec, arrays, torch.from_numpy(pixels).permute(2, 0, 1)[None]


def fill(module, prefix=""):
    weights = module.state_dict()
    for key, value in weights.items():
        if "position_ids" not in key:
            weights[key] = torch.from_numpy(golden_tensor(prefix + key, tuple(value.shape)))
    module.load_state_dict(weights)
    return module.eval()


def build_proxy(spec):
    make_config, make_model = PROXIES[spec["kind"]]
    return fill(make_model(make_config(**spec["config"])), "proxy.")


def build_model(spec, **changes):
    dims = spec["dims"]
    width = dims["vision_width"]
    fields = get_method(METHODS.get(spec["name"].partition("_")[0], spec["name"].partition("_")[0])).settings()
    config = ITACLIPConfig(
        projection_dim=dims["embed_dim"],
        text_config={"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 1, "vocab_size": 49408},
        vision_config={
            "hidden_size": width,
            "intermediate_size": 4 * width,
            "num_hidden_layers": dims["vision_layers"],
            "num_attention_heads": spec["heads"],
            "image_size": dims["image_size"],
            "patch_size": dims["patch_size"],
        },
        **{**fields.held_by("config"), **changes},
    )
    model = fill(ITACLIPForSemanticSegmentation(config))
    if "proxy" in spec:
        model.attach_proxy(build_proxy(spec["proxy"]))
    return model


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@torch.inference_mode()
def test_features_are_those_of_the_official_code(name, attention):
    spec, arrays, pixels = read_case(name)
    model = build_model(spec)
    model.set_attn_implementation(attention)
    regions = torch.from_numpy(arrays["regions"].astype(np.int64))[None] if "regions" in arrays else None
    cosines = model.encode_patches(pixels, regions).flatten(0, 2) @ torch.from_numpy(arrays["queries"]).T
    np.testing.assert_allclose(cosines.numpy(), arrays["logits"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("scclip")])
@torch.inference_mode()
def test_the_same_patches_stand_out_and_are_cleaned(name):
    spec, arrays, _ = read_case(name)
    patches = torch.from_numpy(arrays["penultimate"])[None]
    side = spec["size"] // spec["dims"]["patch_size"]
    is_outlier = find_outliers("lof", patches)
    assert is_outlier[0].nonzero().flatten().tolist() == sorted(arrays["outliers"].tolist())
    np.testing.assert_allclose(clean_patches(patches, is_outlier, (side, side))[0], arrays["cleaned"], atol=1e-5)


@pytest.mark.parametrize("name", [name for name in CASES if "clip_" in name and name.startswith(("proxy", "corr"))])
@torch.inference_mode()
def test_proxies_see_what_they_saw(name):
    spec, arrays, pixels = read_case(name)
    is_corrclip = name.startswith("corrclip")
    features, (height, width) = encode_proxy(
        build_proxy(spec["proxy"]), pixels, "query_key" if is_corrclip else "hidden"
    )
    features = torch.nn.functional.normalize(features, dim=-1) if is_corrclip else features
    assert height * width == len(arrays["proxy"])
    np.testing.assert_allclose(features[0], arrays["proxy"], rtol=0, atol=2e-5)


@torch.inference_mode()
def test_a_batch_gives_what_its_images_give_one_by_one():
    _, _, one = read_case("scclip_small_grid")
    batch = torch.cat([one, one.flip(-1), torch.rot90(one, 1, (2, 3))])
    for name in ("scclip_small_grid", "pearl_alignment", "resclip_rcs", "proxyclip_vit8", "corrclip_partial_regions"):
        model = build_model(read_case(name)[0])
        regions = torch.arange(3)[:, None, None] + (torch.arange(160) // 40)[:, None] * (torch.arange(160) // 80)
        found = model.encode_patches(batch, regions)
        each = [model.encode_patches(*pair) for pair in zip(batch.split(1), regions.split(1), strict=True)]
        torch.testing.assert_close(found, torch.cat(each), atol=1e-5, rtol=0)
