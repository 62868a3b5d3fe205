"""The model's door: tensors that the processor did not make, or made for something else."""

import numpy as np
import torch
from hypothesis import given, strategies as st

from itaclip_hf.modeling.data_contract import ImageInputs, TextInputs

from . import strategies as ours
from .outcomes import attempt

PICTURE = np.random.default_rng(0).integers(0, 256, (20, 26, 3), dtype=np.uint8)
NAMES = (*ImageInputs._fields, *TextInputs._fields)


@st.composite
def changed(draw, tensor):
    """The tensor with a value, its shape or its type changed."""
    how = draw(st.sampled_from(["value", "value", "dtype", "shape", "cut", "none", "any"]))
    if how == "value" and tensor.numel():
        tensor = tensor.contiguous().clone()
        value = draw(st.sampled_from([-1, 0, 2, 300, 10**6, float("nan"), float("inf"), -float("inf"), 1e36]))
        if not (tensor.dtype.is_floating_point or (value == value and abs(value) < 2**31)):
            value = -(10**9)
        place = draw(st.integers(0, tensor.numel() - 1))
        tensor.view(-1)[place if draw(st.booleans()) else slice(None)] = value
        return tensor
    if how == "dtype":
        dtypes = [torch.uint8, torch.int32, torch.int64, torch.float16, torch.bfloat16, torch.float64, torch.bool]
        return tensor.to(draw(st.sampled_from([*dtypes, torch.complex64])))
    if how == "shape":
        return draw(st.sampled_from([tensor[None], tensor[0], tensor.flatten(), tensor.transpose(0, -1), tensor[:0]]))
    if how == "cut":
        axis = draw(st.integers(0, tensor.ndim - 1))
        return tensor.narrow(axis, 0, draw(st.integers(0, tensor.shape[axis])))
    return None if how == "none" else draw(ours.VALUES)


@given(st.data())
def test_tensors(loaded, data):
    model, processor = loaded
    open_words = data.draw(st.booleans())
    inputs = dict(processor(images=PICTURE, text=["dog", ["sky", "cloud"]] if open_words else None))
    if data.draw(st.integers(0, 3)) == 0:
        inputs["query_embeddings"] = torch.nn.functional.normalize(torch.randn(2, model.config.projection_dim), dim=-1)
    name = data.draw(st.sampled_from([each for each in NAMES if each in inputs]))
    inputs[name] = data.draw(changed(inputs[name]))
    predicts = data.draw(st.booleans())

    def call():
        with torch.inference_mode():
            if predicts:
                return model.predict_labels(processor, **inputs)
            return model(**inputs).logits

    def check(result):
        found = result.confidence if predicts else [logits.exp() for logits in result]
        for scores in found:
            assert torch.isfinite(scores).all() and scores.min() >= 0 and scores.max() <= 1 + 1e-5, "scores"
        if predicts:
            assert all(labels.min() >= 0 for labels in result.labels)

    value = inputs[name]
    shape = (tuple(value.shape), value.dtype) if isinstance(value, torch.Tensor) else value
    attempt("tensors of the model", call, check, (name, shape))


@given(st.data())
def test_labels_for_a_loss(loaded, data):
    model, processor = loaded
    inputs = processor(images=PICTURE)
    rng = np.random.default_rng(data.draw(ours.SEEDS))
    low, high = data.draw(st.sampled_from([(0, 3), (-1, 3), (-100, 3), (0, 256), (255, 256), (0, 1000), (3, 4)]))
    labels = torch.from_numpy(rng.integers(low, high, (1, *PICTURE.shape[:2])))
    labels = (
        data.draw(changed(labels))
        if data.draw(st.booleans())
        else labels.to(data.draw(st.sampled_from([torch.int8, torch.int16, torch.uint8, torch.int64, torch.float32])))
    )

    def call():
        return model(**inputs, labels=labels).loss

    def check(loss):
        if labels is not None:
            assert torch.isfinite(loss) and loss >= 0, "loss"
            valid = labels.long()[labels.long() != 255]
            assert valid.numel() == 0 or (valid.min() >= 0 and valid.max() < 3), "labels that are no classes"

    attempt("labels for a loss", call, check, (getattr(labels, "dtype", labels), low, high))
