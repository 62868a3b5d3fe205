"""Stock CLIP models of the recorded runs of other systems, on deterministic weights."""

import numpy as np
import torch
from transformers import CLIPConfig, CLIPModel

from tests.goldens.golden_weights import golden_state_dict

__all__ = ["build_golden_clip", "encode_ids"]


def build_golden_clip(spec):
    """A stock CLIP with the golden weights, its vision tower tamed as the case says."""
    dims = spec["dims"]

    def tower(kind):
        width, layers = dims[f"{kind}_width"], dims[f"{kind}_layers"]
        sizes = {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": layers}
        act = spec.get("hidden_act", "quick_gelu")
        return {**sizes, "num_attention_heads": width // 64, "projection_dim": dims["embed_dim"], "hidden_act": act}

    weights = golden_state_dict(**dims)
    for key, value in weights.items():
        if key.startswith("vision_model.") and "_proj." in key:
            factor = spec["vision_out_factor" if ".out_proj." in key else "vision_qk_factor"]
            if ".v_proj." not in key:
                weights[key] = (value * factor).astype(np.float16).astype(np.float32)
    if spec["logit_scale"] is not None:
        weights["logit_scale"] = np.log(spec["logit_scale"]).astype(np.float32)
    config = CLIPConfig(
        projection_dim=dims["embed_dim"],
        text_config={**tower("text"), "vocab_size": 49408, "eos_token_id": 49407},
        vision_config={**tower("vision"), "patch_size": dims["patch_size"], "image_size": dims["image_size"]},
        attn_implementation="eager",
    )
    model = CLIPModel(config)
    model.load_state_dict({key: torch.from_numpy(np.asarray(value)) for key, value in weights.items()})
    return model.eval().requires_grad_(False)


@torch.no_grad()
def encode_ids(model, ids):
    """(..., tokens) -> (..., dim) unit vectors."""
    flat = torch.from_numpy(ids.astype(np.int64)).flatten(0, -2)
    if len(flat) == 0:
        return torch.zeros(0, model.config.projection_dim)
    features = model.get_text_features(input_ids=flat, return_dict=True).pooler_output
    return torch.nn.functional.normalize(features, dim=-1).unflatten(0, ids.shape[:-1])
