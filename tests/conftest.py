"""Keeps tests off the user's cache, and to one number format whatever the machine is fast in."""

import pytest

from itaclip_hf import loading


@pytest.fixture(scope="session", autouse=True)
def _text_cache_of_this_run(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ITACLIP_TEXT_CACHE", str(tmp_path_factory.mktemp("text_embeddings")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _float32_wherever_the_device_chooses():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "computes_fast_in_bfloat16", lambda device: False)
        yield
