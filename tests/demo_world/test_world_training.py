"""Training: losses fall, and a run that was cut off ends with the weights of one that was not."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import CLIPModel, CLIPTokenizer

from demo_world.export import build_model, export_checkpoint, warm_start
from demo_world.losses import compute_losses, encode_texts, encode_views
from demo_world.muon import Muon
from demo_world.quick_evaluation import compose_scenes, evaluate_quickly
from demo_world.scenes import Scene, SceneSettings
from demo_world.sprites import TRAINING_STYLES
from demo_world.tokenizer import build_tokenizer
from demo_world.train import Trainer, TrainingSettings, learning_rate_factor
from demo_world.training_scenes import TrainingPhase, TrainingScenes, _label_patches, _turn, phase_at
from demo_world.vocabulary import WorldClasses, load_world_classes
from demo_world.weight_copies import AveragedWeights, LowPrecisionCopy

FULL = load_world_classes(small=True)
WORLD = WorldClasses(FULL.stuff[:3], FULL.nouns[:3])


@pytest.fixture(scope="module")
def tokenizer() -> CLIPTokenizer:
    return build_tokenizer()


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    phase = TrainingPhase(3, 6, SceneSettings((1, 2), (24, 40), 0.5, 0.1, 1.0))
    monkeypatch.setattr("demo_world.training_scenes.PHASES", ((1.0, phase),))
    monkeypatch.setattr("demo_world.training_scenes.TEXTURES_PER_STUFF", 1)


def tiny_model(tokenizer: CLIPTokenizer) -> CLIPModel:
    torch.manual_seed(0)
    return build_model(tokenizer, width=32, layers=2, text_layers=1)


def train(folder: Path, tokenizer: CLIPTokenizer, steps: int, **settings) -> Trainer:
    plan = TrainingSettings(steps=steps, warmup_steps=2, evaluation_scenes=0, workers=0, **settings)
    trainer = Trainer(folder, tiny_model(tokenizer), tokenizer, WORLD, plan)
    trainer.train()
    return trainer


def _state(trainer: Trainer, kind: str) -> dict[str, torch.Tensor]:
    return (trainer.model if kind == "model" else trainer.averaged.model).state_dict()


def test_loss_falls(tmp_path, tokenizer):
    batch = TrainingScenes(WORLD, tokenizer, seed=0, total_steps=40)[1]
    before = compute_losses(tiny_model(tokenizer), batch).total.item()
    trainer = train(tmp_path, tokenizer, 40)
    assert compute_losses(trainer.model, batch).total.item() < 0.8 * before


def test_a_run_cut_off_and_continued_equals_an_uninterrupted_one(tmp_path, tokenizer, monkeypatch):
    whole = train(tmp_path / "whole", tokenizer, 6)
    steps = iter([False] * 3)
    original = Trainer._step

    def step_until_killed(self, batch):
        if next(steps, True):
            raise KeyboardInterrupt
        original(self, batch)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, "_step", step_until_killed)
        train(tmp_path / "cut", tokenizer, 6, save_seconds=-1.0)
    continued = train(tmp_path / "cut", tokenizer, 6)
    assert continued.progress.step == whole.progress.step == 6
    for kind in ("model", "averaged"):
        weights, expected = (_state(trainer, kind) for trainer in (continued, whole))
        assert all(torch.equal(weight, weights[name]) for name, weight in expected.items()), kind


def test_a_finished_run_goes_on_with_a_larger_limit(tmp_path, tokenizer):
    assert train(tmp_path, tokenizer, 2).progress.step == 2
    assert train(tmp_path, tokenizer, 3).progress.scenes == 18
    assert [entry["step"] for entry in json.loads((tmp_path / "curve.json").read_text())] == [2, 3]


def test_another_seed_or_two_limits_are_refused(tmp_path, tokenizer):
    train(tmp_path, tokenizer, 1)
    with pytest.raises(ValueError, match=r"Expected seed 0 of the run in .* but got 5"):
        train(tmp_path, tokenizer, 1, seed=5)
    with pytest.raises(ValueError, match="Expected one of `steps` and `minutes`"):
        train(tmp_path, tokenizer, 1, minutes=1.0)


def test_a_run_by_the_clock_ends_on_time(tmp_path, tokenizer):
    settings = TrainingSettings(minutes=1 / 60, evaluation_scenes=0, workers=0)
    trainer = Trainer(tmp_path, tiny_model(tokenizer), tokenizer, WORLD, settings)
    trainer.train()
    assert trainer.progress.step > 0 and 1 <= trainer.progress.seconds < 20


def test_batches_follow_from_seed_and_step(tokenizer):
    first, again = (TrainingScenes(WORLD, tokenizer, seed=3, total_steps=9) for _ in range(2))
    again[7]
    for name, value in vars(first[2]).items():
        assert torch.equal(value, getattr(again[2], name)), name
    assert not torch.equal(first[2].pixel_values, first[3].pixel_values)


def test_tags_say_what_is_in_the_picture(tokenizer):
    batch = TrainingScenes(WORLD, tokenizer, seed=0, total_steps=9)[0]
    assert batch.pixel_values.shape == (6, 3, 48, 48) and batch.positions.shape == (6, 9)
    assert batch.tags.shape == (6, 6) and set(batch.tags.unique().tolist()) <= {-1, 0, 1}
    assert (batch.tags[:, :3] == 1).any(dim=1).all(), "every picture has some stuff"


def test_patch_labels_are_the_areas_of_the_classes(tokenizer):
    batch = TrainingScenes(WORLD, tokenizer, seed=0, total_steps=9)[0]
    assert batch.patch_labels.shape == (6, 9, 6)
    assert torch.allclose(batch.patch_labels.sum(-1), torch.ones(6, 9))
    areas = batch.patch_labels.sum(1) * 256
    assert torch.equal(areas >= 150, batch.tags == 1) and torch.equal(areas == 0, batch.tags == 0)


def test_a_patch_is_labelled_by_its_own_pixels():
    label = np.zeros((32, 48), np.uint8)
    label[16:, 32:40] = 2
    shares = _label_patches(label, 3)
    assert shares.shape == (6, 3)
    assert shares[5].tolist() == [0.5, 0, 0.5] and (shares[:5] == [1, 0, 0]).all()


def test_labels_turn_with_the_picture():
    scene = Scene(np.arange(6, dtype=np.uint8).repeat(3).reshape(2, 3, 3), np.arange(6, dtype=np.uint8).reshape(2, 3))
    for seed in range(30):
        turned = _turn(np.random.default_rng(seed), scene)
        assert np.array_equal(turned.image[..., 0], turned.label)


def test_positions_are_a_square_cut_of_the_grid(tokenizer):
    positions = TrainingScenes(WORLD, tokenizer, seed=0, total_steps=9)[0].positions
    rows, columns = positions // 14, positions % 14
    assert torch.equal(rows - rows[:, :1], torch.arange(9).expand(6, 9) // 3)
    assert torch.equal(columns - columns[:, :1], torch.arange(9).expand(6, 9) % 3)


def test_views_of_the_full_grid_are_those_of_transformers(tokenizer):
    model = tiny_model(tokenizer).eval()
    pixels = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        image, _ = encode_views(model, pixels, torch.arange(196).expand(2, -1))
        expected = model.get_image_features(pixels).pooler_output
    assert torch.allclose(image, torch.nn.functional.normalize(expected, dim=-1), atol=1e-5)


def test_texts_of_mixed_length_are_encoded_as_alone_by_transformers(tokenizer):
    model = tiny_model(tokenizer).eval()
    texts = ["a dog", FULL.nouns[0].definition, "cat", "a photo of a bus and a tree over sand", "sky"]
    with torch.no_grad():
        together = encode_texts(model, tokenizer(texts, padding=True, return_tensors="pt").input_ids)
        alone = torch.cat(
            [model.get_text_features(**tokenizer(text, return_tensors="pt")).pooler_output for text in texts]
        )
    assert torch.allclose(together, torch.nn.functional.normalize(alone, dim=-1), atol=1e-5)


def test_no_loss_reaches_what_the_method_replaces(tokenizer):
    """The last block's feed-forward and query-key attention may learn from the CLS token alone."""
    model = tiny_model(tokenizer)
    batch = TrainingScenes(WORLD, tokenizer, seed=0, total_steps=9)[0]
    losses = compute_losses(model, batch)
    (losses.patch_tags + losses.patch_labels).backward()
    last = model.vision_model.encoder.layers[-1]
    assert last.self_attn.v_proj.weight.grad is not None
    assert last.mlp.fc1.weight.grad is None and last.self_attn.q_proj.weight.grad is None


def test_muon_takes_the_step_of_torch(tokenizer):
    torch.manual_seed(0)
    ours, theirs = (torch.nn.Parameter(torch.ones(8, 16)) for _ in range(2))
    optimizers = [Muon([ours], lr=0.01), torch.optim.Muon([theirs], lr=0.01, adjust_lr_fn="match_rms_adamw")]
    for _ in range(3):
        gradient = torch.randn(8, 16)
        for parameter, optimizer in zip((ours, theirs), optimizers, strict=True):
            parameter.grad = gradient.clone()
            optimizer.step()
    assert torch.allclose(ours, theirs, atol=2e-3)  # theirs is computed in bfloat16
    assert (ours - 1).abs().max() > 0.01


def test_low_precision_copy_follows_the_weights_and_hands_gradients_back(tokenizer):
    model = tiny_model(tokenizer)
    low = LowPrecisionCopy(model, torch.bfloat16)
    with torch.no_grad():
        model.visual_projection.weight.neg_()
    low.refresh()
    assert torch.allclose(low.model.visual_projection.weight.float(), model.visual_projection.weight, atol=2e-3)
    batch = TrainingScenes(WORLD, tokenizer, seed=0, total_steps=9)[0]
    losses = compute_losses(low.model, batch)
    assert losses.total.isfinite() and abs(losses.total - compute_losses(model, batch).total) < 0.1
    losses.total.backward()
    low.hand_back_gradients()
    gradient = model.visual_projection.weight.grad
    assert gradient is not None and gradient.dtype == torch.float32 and gradient.abs().max() > 0
    assert low.model.visual_projection.weight.grad is None


def test_float32_needs_no_copy(tokenizer):
    model = tiny_model(tokenizer)
    assert LowPrecisionCopy(model, torch.float32).model is model


def test_averaged_weights_lag_behind(tokenizer):
    model = tiny_model(tokenizer)
    averaged = AveragedWeights(model, window=0.1)
    with torch.no_grad():
        model.logit_scale.add_(1.0)
    gap = [(model.logit_scale - averaged.model.logit_scale).item()]
    for _ in range(3):
        averaged.update(model, step=90)
        gap.append((model.logit_scale - averaged.model.logit_scale).item())
    assert np.allclose(gap, [1, 0.9, 0.81, 0.729], atol=1e-5)


def test_a_run_in_bfloat16_trains_float32_weights(tmp_path, tokenizer):
    batch = TrainingScenes(WORLD, tokenizer, seed=0, total_steps=20)[1]
    before = compute_losses(tiny_model(tokenizer), batch).total.item()
    trainer = train(tmp_path, tokenizer, 20, precision="bfloat16")
    assert trainer.model.dtype == torch.float32
    assert compute_losses(trainer.model, batch).total.item() < before


def test_warm_start_keeps_weights_and_matches_tokens_by_string(tmp_path, tokenizer):
    source = tiny_model(tokenizer)
    export_checkpoint(source, tokenizer, WORLD, tmp_path / "checkpoint")
    other = build_tokenizer(["a dog and a penguin on the grass"] * 3, vocabulary_size=600)
    model = build_model(other, width=32, layers=2, text_layers=1)
    warm_start(model, other, tmp_path / "checkpoint")
    rows, old_rows = (each.text_model.embeddings.token_embedding.weight for each in (model, source))
    token = "penguin</w>"
    assert torch.allclose(rows[other.get_vocab()[token]], old_rows[tokenizer.get_vocab()[token]], atol=1e-3)
    assert torch.allclose(model.visual_projection.weight, source.visual_projection.weight, atol=1e-3)


def test_exported_folder_is_a_clip_model_in_half_precision_with_its_words(tmp_path, tokenizer):
    from itaclip_hf import Vocabulary

    folder = tmp_path / "checkpoint"
    for _ in range(2):  # the second replaces the first
        export_checkpoint(tiny_model(tokenizer), tokenizer, WORLD, folder)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]
    model = CLIPModel.from_pretrained(folder)
    assert model.dtype == torch.float16 and len(CLIPTokenizer.from_pretrained(folder)) == len(tokenizer)
    assert Vocabulary.from_json_file(folder / "vocabulary.json").labels == WORLD.labels


def test_quick_evaluation_scores_every_last_block(tokenizer):
    scenes = compose_scenes(WORLD, TRAINING_STYLES, 2, seed=0)
    model = build_model(tokenizer, width=32, layers=12, text_layers=1)
    scores = evaluate_quickly(model, tokenizer, WORLD, scenes)
    assert set(scores) == {"plain", "itaclip", "value"} and all(0 <= score <= 100 for score in scores.values())


def test_curriculum_and_learning_rate_run_from_start_to_end(monkeypatch):
    monkeypatch.undo()
    grids = [phase_at(share).grid for share in np.linspace(0, 1.1, 23)]
    assert grids == sorted(grids) and grids[0] == 7 and grids[-1] == 14
    rates = [learning_rate_factor(share) for share in np.linspace(0, 1.1, 23)]
    assert rates == sorted(rates, reverse=True) and rates[0] == 1.0 and rates[-1] == 0.01
