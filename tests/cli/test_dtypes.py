"""Number formats by name, and what `auto` makes of a device."""

import logging
from contextlib import nullcontext

import pytest
import torch

from itaclip_hf import loading
from itaclip_hf.cli.options.model import NumberFormat
from itaclip_hf.loading import NUMBER_FORMATS, choose_dtype, computes_fast_in_bfloat16


@pytest.fixture
def device_chooses(monkeypatch):
    """Takes back what the tests' conftest does, and sets what the CPU can do."""

    def set_features(**features: bool) -> None:
        monkeypatch.setattr(loading, "computes_fast_in_bfloat16", computes_fast_in_bfloat16)
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: features)

    return set_features


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16"])
def test_a_name_is_the_format_whatever_the_device(name, device_chooses):
    device_chooses(amx_bf16=True)
    assert choose_dtype(name, "cpu") == getattr(torch, name)


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        ({"amx_bf16": True, "avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": False, "avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": False, "avx512_bf16": False, "avx2": True}, torch.float32),
        ({"amx_int8": True, "avx512_f": True}, torch.float32),
        ({}, torch.float32),
    ],
)
def test_auto_is_bfloat16_on_cpus_with_units_for_it(features, expected, device_chooses):
    device_chooses(**features)
    assert choose_dtype("auto", "cpu") == expected


@pytest.mark.parametrize("is_fast", [True, False])
def test_auto_on_a_gpu_asks_for_units_and_not_for_emulation(is_fast, device_chooses, monkeypatch):
    asked = []

    def is_bf16_supported(including_emulation: bool = True) -> bool:
        asked.append(including_emulation)
        return is_fast

    device_chooses(amx_bf16=not is_fast)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_bf16_supported)
    assert choose_dtype("auto", "cuda:0") == (torch.bfloat16 if is_fast else torch.float32)
    assert asked == [False]


def test_other_devices_compute_in_float32(device_chooses):
    device_chooses(amx_bf16=True)
    assert choose_dtype("auto", "mps") == torch.float32


def test_the_choice_is_said_in_one_line_of_the_log(device_chooses, caplog):
    device_chooses(amx_bf16=True)
    with caplog.at_level(logging.INFO, logger="itaclip_hf"):
        choose_dtype("auto", "cpu")
        choose_dtype("float32", "cpu")
    assert caplog.messages == ["Number format bfloat16, chosen for cpu."]


def test_an_unknown_format_is_refused():
    with pytest.raises(ValueError, match=r"dtype out of auto, float32, bfloat16, float16, but got 'int8'"):
        choose_dtype("int8", "cpu")


def test_commands_say_their_format_and_device(itaclip, checkpoint, photo, tmp_path):
    options = ["--model", checkpoint, "--preset", "fast", "--classes", "cat; sky", "--out", tmp_path / "out"]
    result = itaclip("segment", photo, *options)
    assert f"Loading {checkpoint} in float32 on cpu" in result.output.replace("\n", "")
    assert '"dtype": "float32"' in (tmp_path / "out" / "photo.json").read_text()


def test_every_format_is_an_option(itaclip):
    assert tuple(number_format.value for number_format in NumberFormat) == NUMBER_FORMATS
    help_text = itaclip("segment", "--help").output
    assert all(number_format.value in help_text for number_format in NumberFormat)
