"""`itaclip env`: versions and device for a bug report."""

import torch
import transformers

import itaclip_hf


def test_versions_and_device_are_told(itaclip, monkeypatch):
    monkeypatch.setenv("ITACLIP_TEXT_CACHE", "off")
    result = itaclip("env")
    assert result.exit_code == 0, result.output
    facts = dict(line.split(": ", 1) for line in result.output.splitlines())
    assert facts["itaclip_hf"] == itaclip_hf.__version__
    assert (facts["torch"], facts["transformers"]) == (torch.__version__, transformers.__version__)
    assert "gradio" in facts and "rasterio" in facts  # of extras
    assert facts["device"].startswith(("cpu", "cuda")) and facts["ITACLIP_TEXT_CACHE"] == "off"
