"""The loop: it learns, repeats, stops early and keeps the best weights."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from didgen.downstream.classifiers import classification_loss
from didgen.downstream.datasets import ImageSet, PixelReader, build, usable_rows
from didgen.downstream.segmenters import segmentation_loss
from didgen.downstream.training import arithmetic, draws, predict, predict_each, train
from didgen.runtime.memory import OutOfMemory
from didgen.settings.schedule import Schedule
from didgen.training.optimization import NonFiniteLoss

CPU = torch.device("cpu")


def small_classifier(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2),
    )  # fmt: skip


def accuracy(outputs: np.ndarray, data: ImageSet) -> float:
    return float((outputs.argmax(1) == data.labels).mean())


@pytest.fixture
def labelled(image_set) -> ImageSet:
    return build(usable_rows(image_set("a"), "label")[0], None, ["MEL", "NV"])


def schedule(**changes) -> Schedule:
    usual = dict(
        steps=30, batch_size=8, learning_rate=2e-2, eval_every=10, precision="float32", warmup=0.1
    )
    return Schedule(**(usual | changes))


def fit(data: ImageSet, seed: int = 0, **changes):
    model = small_classifier(seed)
    plan = schedule(**changes)
    return model, train(model, data, data, classification_loss, accuracy, plan, seed, CPU)


def test_it_learns_eight_images(labelled):
    model, outcome = fit(labelled, steps=60)
    assert outcome.best_score == 1
    assert accuracy(predict(model, labelled, CPU, precision="float32"), labelled) == 1
    assert outcome.curves[-1]["train_loss"] < outcome.curves[0]["train_loss"]


def test_several_networks_see_each_image_once(labelled, monkeypatch):
    networks = [(small_classifier(seed), "float32") for seed in range(3)]
    alone = [predict(model, labelled, CPU, precision="float32") for model, _ in networks]
    read, batches = PixelReader.read, []

    def noted(reader: PixelReader, indices: np.ndarray) -> np.ndarray:
        batches.append(indices)
        return read(reader, indices)

    monkeypatch.setattr(PixelReader, "read", noted)
    together = predict_each(networks, labelled, CPU)
    assert all(np.array_equal(*pair) for pair in zip(alone, together, strict=True))
    assert not np.array_equal(alone[0], alone[1])
    assert np.concatenate(batches).tolist() == list(range(len(labelled)))


def test_it_learns_masks(image_set):
    data = build(usable_rows(image_set("a"), "mask")[0], None)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1), nn.ReLU(), nn.Conv2d(8, 1, 3, 1, 1))

    def agreement(outputs: np.ndarray, found: ImageSet) -> float:
        return float(((outputs[:, 0] > 0) == found.masks.read(np.arange(len(found)))).mean())

    outcome = train(model, data, data, segmentation_loss, agreement, schedule(steps=60), 0, CPU)
    assert outcome.best_score > 0.97


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(labelled):
    (one, first), (two, second), (three, _) = (fit(labelled, seed) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not torch.equal(next(one.parameters()), next(three.parameters()))
    assert [r["train_loss"] for r in first.curves] == [r["train_loss"] for r in second.curves]


def test_the_random_state_outside_is_left_alone(labelled):
    torch.manual_seed(5)
    expected = torch.rand(1)
    model = small_classifier()
    torch.manual_seed(5)
    train(model, labelled, labelled, classification_loss, accuracy, schedule(steps=2), 3, CPU)
    assert torch.equal(torch.rand(1), expected)


def test_early_stopping_restores_the_best_weights(labelled):
    seen = []
    scores = itertools.chain([0.2, 0.9], itertools.repeat(0.1))

    def scripted(outputs: np.ndarray, data: ImageSet) -> float:
        seen.append(outputs.copy())
        return next(scores)

    model = small_classifier()
    plan = schedule(steps=100, eval_every=5, patience=3)
    outcome = train(model, labelled, labelled, classification_loss, scripted, plan, 0, CPU)
    assert (outcome.best_step, outcome.steps, outcome.stopped_early) == (10, 25, True)
    assert outcome.best_score == 0.9
    assert np.array_equal(predict(model, labelled, CPU, precision="float32"), seen[1])
    assert not np.array_equal(seen[1], seen[-1])


@pytest.mark.parametrize(("stop_by", "best_step"), [("metric", 5), ("loss", 10)])
def test_the_best_evaluation_is_that_of_the_metric_or_of_the_loss(labelled, stop_by, best_step):
    scores, losses = iter([0.9, 0.5, 0.5]), iter([0.7, 0.4, 0.6])

    def scripted_loss(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        grad = outputs.requires_grad
        return classification_loss(outputs, labels) if grad else torch.tensor(next(losses))

    plan = schedule(steps=15, eval_every=5, stop_by=stop_by)
    outcome = train(
        small_classifier(), labelled, labelled, scripted_loss, lambda *_: next(scores), plan, 0, CPU
    )
    assert outcome.best_step == best_step
    assert outcome.best_score == (0.9 if stop_by == "metric" else 0.5)


def test_the_budget_ends_with_an_evaluation(labelled):
    _, outcome = fit(labelled, steps=25)
    assert [row["step"] for row in outcome.curves] == [10, 20, 25]
    assert outcome.steps == 25
    assert not outcome.stopped_early


def test_the_learning_rate_rises_then_falls(labelled):
    """Ten of 100 steps of warm-up; 45 steps later half of the cosine is over."""
    _, outcome = fit(
        labelled, steps=100, learning_rate=1e-3, warmup=0.1, eval_every=1, patience=100
    )
    rates = [row["learning_rate"] for row in outcome.curves]
    assert rates[0] == pytest.approx(1e-4)
    assert rates[9] == rates[10] == 1e-3
    assert rates[55] == pytest.approx(5e-4)
    assert rates[99] == pytest.approx(1e-3 * 0.5 * (1 + math.cos(math.pi * 89 / 90)))


def test_uniform_draws_pass_over_every_image_once_a_round():
    batches = draws(None, 10, schedule(batch_size=4), 0)
    first = np.concatenate(list(itertools.islice(batches, 5)))
    assert sorted(first[:10]) == sorted(first[10:]) == list(range(10))
    assert all(len(b) == 4 for b in itertools.islice(batches, 3))


def test_balanced_draws_see_classes_equally_often():
    labels = np.array([0] * 95 + [1] * 5)
    plan = schedule(batch_size=50, sampling="balanced")
    drawn = np.concatenate(list(itertools.islice(draws(labels, 100, plan, 0), 40)))
    assert labels[drawn].mean() == pytest.approx(0.5, abs=0.05)


def test_predictions_do_not_depend_on_the_batch(labelled, monkeypatch):
    model = small_classifier()
    whole = predict(model, labelled, CPU, precision="float32")
    monkeypatch.setattr("didgen.downstream.training.EVALUATION_BATCH", 3)
    assert np.allclose(predict(model, labelled, CPU, precision="float32"), whole, atol=1e-6)


def test_a_loss_that_is_not_finite_stops_at_once(labelled):
    def broken(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return outputs.sum() * torch.nan

    with pytest.raises(NonFiniteLoss, match="step 1: the loss is nan; .*Lower learning_rate"):
        train(small_classifier(), labelled, labelled, broken, accuracy, schedule(), 0, CPU)


def test_precision_is_what_was_asked_for():
    assert arithmetic("float32", CPU) == arithmetic("auto", CPU) == "float32"
    assert arithmetic("bfloat16", CPU) == "bfloat16"


def test_memory_that_runs_out_is_explained(labelled):
    def full(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    with pytest.raises(OutOfMemory, match="Tried to allocate 2 GiB.*batch_size"):
        train(small_classifier(), labelled, labelled, full, accuracy, schedule(), 0, CPU)
