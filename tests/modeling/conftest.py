"""Tiny random models for the tests of the modelling stages."""

import pytest
import torch

from itaclip_hf import ITACLIPConfig, ITACLIPForSemanticSegmentation


def make_tiny_config(**method) -> ITACLIPConfig:
    """Three vision blocks of width 32 over 16-pixel images in patches of 4; windows of 16 pixels."""
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
    defaults = {
        "intermediate_layers": (1, 2),
        "window_size": 16,
        "window_stride": 8,
        "pamr_steps": 2,
        "pamr_dilations": (1, 2),
    }
    return ITACLIPConfig(
        projection_dim=24,
        text_config={**tower, "num_hidden_layers": 2, "vocab_size": 99, "eos_token_id": 98},
        vision_config={**tower, "num_hidden_layers": 3, "image_size": 16, "patch_size": 4},
        **{**defaults, **method},
    )


@pytest.fixture
def tiny_model():
    """A function that makes a tiny random model for given fields of the configuration; equal weights every time."""

    def make(**method) -> ITACLIPForSemanticSegmentation:
        torch.manual_seed(0)
        model = ITACLIPForSemanticSegmentation(make_tiny_config(**method)).eval()
        generator = torch.Generator().manual_seed(0)
        for name, parameter in model.named_parameters():
            if name.endswith(
                ("proj.weight", "projection.weight")
            ):  # the default initialisation hardly tells patches apart
                parameter.data = torch.randn(parameter.shape, generator=generator) * parameter.shape[-1] ** -0.5 * 2
        return model

    return make


@pytest.fixture
def texts():
    """Token ids of 5 texts in 3 templates, mixed into 4 queries of 3 classes."""
    generator = torch.Generator().manual_seed(1)
    input_ids = torch.randint(1, 97, (5, 3, 7), generator=generator)
    input_ids[..., 5:] = 98
    attention_mask = torch.ones_like(input_ids)
    attention_mask[..., 6] = 0
    text_weight = torch.eye(5)[:4]
    text_weight[3] = torch.tensor([0, 0, 0, 0.8, 0.2])
    return {
        "input_ids": input_ids,
        "attention_mask": attention_mask,
        "text_weight": text_weight,
        "query_classes": torch.tensor([0, 1, 0, 2]),
    }


@pytest.fixture
def engineering():
    """The data contract's augmentation tensors for the five views of the paper, batch of one."""
    identity, impulse = torch.eye(3), torch.tensor([0.0, 0, 1, 0, 0])
    gray = torch.tensor([[0.2989, 0.587, 0.114]] * 3)
    blur = torch.tensor([0.1, 0.2, 0.4, 0.2, 0.1])
    return {
        "augmentation_color": torch.stack([identity, gray, identity, identity, identity])[None],
        "augmentation_blur": torch.stack([impulse, impulse, blur, impulse, impulse])[None],
        "augmentation_flip": torch.tensor([[[0, 0], [0, 0], [0, 0], [1, 0], [0, 1]]], dtype=torch.bool),
        "augmentation_weight": torch.tensor([[0.25, 0.25, 0.25, 0.125, 0.125]]),
    }
