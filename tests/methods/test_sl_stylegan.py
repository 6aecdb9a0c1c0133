"""SL-StyleGAN: the source's sizes, its losses by hand, exact resume, images of a seed alone."""

import json

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from didgen.methods import sl_stylegan
from didgen.methods.gan import size_of
from didgen.methods.protocol import Request
from didgen.methods.sl_stylegan import Discriminator, Generator, SlStyleganTraining
from didgen.settings.sl_stylegan import Settings
from tests.methods.gan_runs import Killed, images, stop_at, train, weights

OWN = {"channel_share": 0.03, "training_steps": 3, "training_batch": 2, "checkpoint_every": 1}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sl")
    return train("sl_stylegan", folder, OWN, images(folder, MEL=4, NV=3))


def requests(*labels: str) -> list[Request]:
    return [Request(f"{label}{n}", label, "", seed=n) for n, label in enumerate(labels)]


def test_parameters_are_as_many_as_the_source_has():
    with torch.device("meta"):
        assert size_of(Generator(256, 1.0)) == 9_266_195
        assert size_of(Generator(256, 1.0).mapping) == 1_890_304
        assert size_of(Discriminator(256, 1.0)) == 2_404_113


@pytest.mark.parametrize("side", [8, 32, 64])
def test_smaller_images_have_shorter_towers(side):
    generator, discriminator = Generator(side, 0.05), Discriminator(side, 0.05)
    made = generator(torch.randn(2, 100), torch.randn(2, 1, side, side))
    assert made.shape == (2, 3, side, side) and made.min() >= 0 and made.max() <= 1
    assert discriminator(made).shape == (2, 1)


def test_adaptive_normalisation_gives_the_mean_and_the_deviation_asked_for():
    torch.manual_seed(0)
    scale, shift = torch.rand(2, 5) + 0.5, torch.randn(2, 5)
    adapted = sl_stylegan.adapt(3 * torch.randn(2, 5, 8, 8) + 7, scale, shift)
    assert torch.allclose(adapted.mean((2, 3)), shift, atol=1e-5)
    assert torch.allclose(adapted.std((2, 3), correction=0), scale, atol=1e-5)


def test_a_constant_map_has_a_finite_gradient():
    maps = torch.ones(1, 1, 4, 4, requires_grad=True)
    sl_stylegan.adapt(maps, torch.ones(1, 1), torch.zeros(1, 1)).square().sum().backward()
    assert torch.isfinite(maps.grad).all()


def test_coarse_levels_get_the_centre_of_the_noise():
    noise = torch.arange(64.0).view(1, 1, 8, 8)
    assert sl_stylegan.centre(noise, 2).flatten().tolist() == [27, 28, 35, 36]
    assert torch.equal(sl_stylegan.centre(sl_stylegan.centre(noise, 4), 2),
                       sl_stylegan.centre(noise, 2))  # fmt: skip
    assert torch.equal(sl_stylegan.centre(noise, 8), noise)


def test_losses_by_hand():
    real, fake = torch.tensor([[1.0], [0.0]]), torch.tensor([[-1.0], [1.0]])
    assert sl_stylegan.discriminator_loss(real, fake).item() == 0.5 + 2.0
    assert sl_stylegan.generator_loss(torch.tensor([[2.0], [0.0]])).item() == 2.0
    pictures = torch.zeros(2, 3, 2, 2, requires_grad=True)
    scores = (2 * pictures).sum((1, 2, 3))[:, None]
    assert sl_stylegan.r1_penalty(scores, pictures).item() == 5 * 12 * 4


def test_the_learning_rate_falls_as_in_the_source():
    assert sl_stylegan.learning_rate(1e-4, 0) == 1e-4
    assert sl_stylegan.learning_rate(1e-4, 20_000) == pytest.approx(8.33e-5, rel=1e-3)


def test_each_turn_trains_one_network(monkeypatch):
    pictures = np.random.default_rng(0).integers(0, 256, (4, 3, 8, 8), np.uint8)
    training = SlStyleganTraining(pictures, Settings(**OWN), 0, torch.device("cpu"))
    kept = {name: size_of(training.parts[name]) for name in ("generator", "discriminator")}
    assert training.parameters == sum(kept.values())
    moved = []
    original = sl_stylegan.update

    def watch(optimizer, *given, **options):
        gradients = [
            {p.grad is not None for p in training.parts[name].parameters()}
            for name in ("generator", "discriminator")
        ]
        moved.append(gradients)
        return original(optimizer, *given, **options)

    monkeypatch.setattr(sl_stylegan, "update", watch)
    row = training.step(0)
    assert moved == [[{False}, {True}], [{True}, {False}]]
    assert row.keys() >= {"loss_discriminator", "loss_penalty", "loss_generator", "lr"}


def test_the_folder_says_what_the_training_was(trained):
    budget = json.loads((trained / "budget.json").read_text())
    one = size_of(Generator(32, 0.03), Discriminator(32, 0.03))
    assert (budget["parameters"], budget["steps"], budget["images"]) == (2 * one, 6, 12)
    assert "channel_share is 0.03; in the source it is 1.0." in budget["departures"]
    lines = (trained / "training.csv").read_text().splitlines()
    assert len(lines) == 7 and lines[1].endswith("MEL") and lines[-1].endswith("NV")


def test_a_resumed_training_is_the_undisturbed_one(trained, tmp_path, monkeypatch):
    data = images(tmp_path, MEL=4, NV=3)
    with monkeypatch.context() as patch:
        # In the second model's second step.
        stop_at(patch, SlStyleganTraining, 4)
        with pytest.raises(Killed):
            train("sl_stylegan", tmp_path, OWN, data)
    assert not (tmp_path / "sl_stylegan").exists()
    stop_at(monkeypatch, SlStyleganTraining, 2)
    out = train("sl_stylegan", tmp_path, OWN, data)
    assert weights(out) == weights(trained) and len(weights(out)) == 2


def test_a_longer_training_goes_on_from_a_shorter_one(trained, tmp_path, monkeypatch):
    data = images(tmp_path, MEL=4, NV=3)
    train("sl_stylegan", tmp_path, {**OWN, "training_steps": 2}, data)
    stop_at(monkeypatch, SlStyleganTraining, 2)
    assert weights(train("sl_stylegan", tmp_path, OWN, data)) == weights(trained)


def test_an_image_depends_on_its_own_request_alone(trained):
    synthesizer = sl_stylegan.load(trained, None, "cpu")
    asked = requests("MEL", "NV", "MEL", "NV")
    together = synthesizer.synthesize(asked)
    turned = synthesizer.synthesize(asked[::-1])[::-1]
    for number, (one, other) in enumerate(zip(together, turned, strict=True)):
        assert one.request is asked[number] and one.mask is None
        assert one.image.shape == (32, 32, 3) and one.image.dtype == np.uint8
        assert np.array_equal(one.image, other.image)
        (alone, *_) = synthesizer.synthesize([asked[number]] * 4)
        assert np.array_equal(one.image, alone.image)
    assert not np.array_equal(together[0].image, together[2].image)
    again = sl_stylegan.load(trained, None, "cpu")
    assert again.checkpoint == synthesizer.checkpoint and again.memory_gb > 0


def test_other_seeds_train_other_models(trained, tmp_path):
    out = train("sl_stylegan", tmp_path, OWN, images(tmp_path, MEL=4, NV=3), seed=1)
    assert all(weights(out)[name] != kept for name, kept in weights(trained).items())


def test_an_unknown_diagnosis_is_refused(trained):
    with pytest.raises(ValueError, match=r"requests for \['DF'\], expected one of \['MEL', 'NV'\]"):
        sl_stylegan.load(trained, None, "cpu").check(requests("MEL", "DF"))


def test_too_few_images_are_refused(tmp_path):
    data = images(tmp_path, MEL=4, NV=1)
    with pytest.raises(ValueError, match=r"\{'NV': 1\} images, expected 2 of each diagnosis"):
        train("sl_stylegan", tmp_path, OWN, data)
    with pytest.raises(ValueError, match="no labelled images"):
        train("sl_stylegan", tmp_path, OWN, data.assign(label=""))


def test_images_without_a_label_are_left_out(tmp_path):
    data = images(tmp_path, MEL=3)
    data.loc[0, "label"] = ""
    train("sl_stylegan", tmp_path, {**OWN, "training_steps": 1}, data)
    assert [*weights(tmp_path / "sl_stylegan")] == ["models/MEL/generator.safetensors"]


def test_sides_that_are_no_power_of_two_are_refused(tmp_path):
    with pytest.raises(ValueError, match="images of 48 px, expected a power of two"):
        train("sl_stylegan", tmp_path, OWN, images(tmp_path, side=48, MEL=2))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("generators.json", "{}"),
        ("generators.json", "["),
        ("models/NV/generator.safetensors", "x"),
        ("models/NV/generator.safetensors", None),
    ],
)
def test_a_damaged_folder_is_named(tmp_path, name, content):
    out = train(
        "sl_stylegan", tmp_path, {**OWN, "training_steps": 1}, images(tmp_path, MEL=2, NV=2)
    )
    if content is None:
        (out / name).unlink()
    else:
        (out / name).write_text(content)
    with pytest.raises(ValueError, match=f"{name}: found no generator .* train the method again"):
        sl_stylegan.load(out, None, "cpu")


def test_the_preset_of_the_paper():
    own = Settings(preset="paper")
    assert (own.channel_share, own.training_steps, own.training_batch) == (1.0, 20_000, 16)
    assert (
        own.learning_rate == 1e-4
        and Settings(preset="paper", channel_share=0.5).channel_share == 0.5
    )
    with pytest.raises(ValidationError, match="preset"):
        Settings(preset="large")
