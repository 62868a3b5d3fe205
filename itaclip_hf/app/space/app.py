"""A Hugging Face Space of `itaclip app`; the variable ITACLIP_MODEL names the checkpoint: an id, a folder, or demo."""

import os

from itaclip_hf.app import serve
from itaclip_hf.loading import DEFAULT_CHECKPOINT, load

MODEL = os.environ.get("ITACLIP_MODEL", DEFAULT_CHECKPOINT)

if __name__ == "__main__":
    serve(load(MODEL), MODEL).block_thread()  # Spaces tell Gradio the address by variables of their own
