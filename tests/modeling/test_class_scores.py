"""Chunked class scores against a plain softmax and maximum."""

import pytest
import torch

from itaclip_hf.modeling.class_scores import Queries, compute_class_logits


@pytest.mark.parametrize("chunk", [1, 2, 3, 100])
def test_chunks_do_not_change_the_scores(chunk):
    maps = 10 * torch.randn(4, 5, 7)
    classes = torch.tensor([2, 0, 2, 1, 0, 4, 2])
    queries = Queries.sort(torch.arange(7.0)[:, None], classes)
    assert queries.num_classes == 5
    ordered = maps[..., queries.embeddings[:, 0].long()]
    found = compute_class_logits(ordered.split(chunk, dim=-1), queries, (4, 5))
    scores = maps.softmax(-1)
    expected = torch.zeros(5, 4, 5)
    for query, class_id in enumerate(classes.tolist()):
        expected[class_id] = torch.maximum(expected[class_id], scores[..., query])
    torch.testing.assert_close(found.exp(), expected)
    assert (found[3] == -torch.inf).all()


def test_gradients_are_those_of_the_plain_form():
    classes = [0, 0, 1, 1]
    queries = Queries.sort(torch.zeros(4, 1), torch.tensor(classes))
    gradients = []
    for form in ("chunks", "plain"):
        maps = torch.randn(2, 2, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
        if form == "chunks":
            logits = compute_class_logits(maps.split(1, dim=-1), queries, (2, 2))
        else:
            logits = maps.log_softmax(-1).unflatten(-1, (2, 2)).amax(-1).permute(2, 0, 1)
        (logits * torch.arange(8.0).view(2, 2, 2)).sum().backward()
        gradients.append(maps.grad)
    torch.testing.assert_close(*gradients)
