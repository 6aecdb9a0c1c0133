"""PGAN: the source's sizes, growing and fading in, its losses by hand, exact resume."""

import json
import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from didgen.methods import pgan
from didgen.methods.gan import size_of
from didgen.methods.pgan import Discriminator, Equalized, Generator, PganTraining
from didgen.methods.protocol import Request
from didgen.settings.pgan import Settings
from tests.methods.gan_runs import Killed, images, stop_at, train, weights

# Two steps at 4 px, then two at 8, 16 and 32 px: of these the first fades in.
OWN = {
    "channel_share": 0.02,
    "first_steps": 2,
    "level_steps": 2,
    "fade": 1.0,
    "training_batch": 4,
    "checkpoint_every": 1,
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pgan")
    return train("pgan", folder, OWN, images(folder, MEL=4, NV=5))


@pytest.fixture
def training():
    pictures = np.random.default_rng(0).integers(0, 256, (4, 3, 16, 16), np.uint8)
    return PganTraining(pictures, Settings(**OWN), 0, torch.device("cpu"))


@pytest.mark.parametrize(
    ("side", "generator", "discriminator"),
    [
        (256, 23_051_989, 23_052_353),
        (512, 23_079_800, 23_080_225),
        (1024, 23_086_795, 23_087_249),
    ],
)
def test_parameters_are_as_many_as_the_source_has(side, generator, discriminator):
    with torch.device("meta"):
        assert size_of(Generator(side, 1.0)) == generator
        assert size_of(Discriminator(side, 1.0)) == discriminator


@pytest.mark.parametrize("level", range(4))
def test_each_level_doubles_the_side(level):
    generator, discriminator = Generator(32, 0.02), Discriminator(32, 0.02)
    made = generator(torch.randn(4, generator.latent), level, 1.0)
    assert made.shape == (4, 3, 4 << level, 4 << level)
    assert discriminator(made, level, 1.0).shape == (4, 1)


def test_layers_that_have_not_faded_in_change_nothing():
    torch.manual_seed(0)
    generator, discriminator = Generator(16, 0.02), Discriminator(16, 0.02)
    latents = torch.randn(4, generator.latent)
    below, new = generator(latents, 1, 1.0), generator(latents, 2, 1.0)
    assert torch.allclose(generator(latents, 2, 1e-9), pgan.enlarge(below), atol=1e-6)
    half = generator(latents, 2, 0.5)
    assert torch.allclose(half, (pgan.enlarge(below) + new) / 2, atol=1e-6)
    pictures = torch.randn(4, 3, 16, 16)
    small = torch.nn.functional.avg_pool2d(pictures, 2)
    assert torch.allclose(discriminator(pictures, 2, 1e-9), discriminator(small, 1, 1.0), atol=1e-5)


def test_real_images_are_as_sharp_as_the_level():
    pictures = torch.arange(16.0).view(1, 1, 4, 4)
    blurred = torch.tensor([[2.5, 4.5], [10.5, 12.5]])
    assert torch.equal(pgan.real_images(pictures, 2, 1.0)[0, 0], blurred)
    repeated = blurred.repeat_interleave(2, 0).repeat_interleave(2, 1)
    assert torch.equal(pgan.real_images(pictures, 4, 1.0), pictures)
    assert torch.equal(pgan.real_images(pictures, 4, 0.5)[0, 0], (pictures[0, 0] + repeated) / 2)


def test_the_schedule_by_hand():
    # Three steps at 4 px, then four a side, of which the first two fade in.
    found = [pgan.stage_of(step, 3, 4, 0.5) for step in range(11)]
    assert found[:3] == [(0, 0, 1.0), (0, 1, 1.0), (0, 2, 1.0)]
    assert found[3:7] == [(1, 0, 0.5), (1, 1, 1.0), (1, 2, 1.0), (1, 3, 1.0)]
    assert found[7] == (2, 0, 0.5)
    assert pgan.stage_of(3, 3, 4, 0.0) == (1, 0, 1.0)


def test_the_whole_schedule_is_trained(trained):
    rows = (trained / "training.csv").read_text().splitlines()
    names = rows[0].split(",")
    mel = [dict(zip(names, row.split(","), strict=True)) for row in rows[1:] if row.endswith("MEL")]
    assert [float(row["side"]) for row in mel] == [4, 4, 8, 8, 16, 16, 32, 32]
    assert [float(row["share"]) for row in mel] == [1, 1, 0.5, 1, 0.5, 1, 0.5, 1]


def test_pixels_are_normalised():
    maps = torch.tensor([3.0, 4.0]).view(1, 2, 1, 1)
    found = pgan.normalize_pixels(maps).flatten()
    assert found.tolist() == pytest.approx([3 / math.sqrt(12.5), 4 / math.sqrt(12.5)])


def test_the_deviation_is_that_of_the_group():
    # Groups are every second image: 0, 2, 4, 6 are alike but for one that is higher by 4.
    maps = torch.zeros(8, 2, 3, 3)
    maps[6] += 4
    found = pgan.append_deviation(maps)
    assert found.shape == (8, 3, 3, 3) and torch.equal(found[:, :2], maps)
    # The values 0, 0, 0, 4 have a standard deviation of sqrt(3).
    assert found[::2, 2].flatten().tolist() == pytest.approx([math.sqrt(3)] * 36)
    assert found[1::2, 2].abs().max() < 1e-3


def test_the_scale_of_a_layer_is_of_its_weights_alone():
    layer = Equalized(2, 1, 3)
    with torch.no_grad():
        layer.weight.fill_(1.0)
        layer.bias.fill_(5.0)
    found = layer(torch.ones(1, 2, 3, 3))
    assert found[0, 0, 1, 1].item() == pytest.approx(18 * math.sqrt(2 / 18) + 5)
    line = Equalized(8, 1, 0)
    with torch.no_grad():
        line.weight.fill_(1.0)
    assert line(torch.ones(1, 8)).item() == pytest.approx(8 * 0.5)


def test_losses_by_hand():
    real, fake = torch.tensor([[3.0], [1.0]]), torch.tensor([[1.0], [-1.0]])
    assert pgan.critic_loss(real, fake).item() == -2.0
    assert pgan.drift(real).item() == pytest.approx(0.005)
    pictures = torch.zeros(2, 3, 2, 2, requires_grad=True)
    scores = (2 * pictures).sum((1, 2, 3))[:, None]
    wanted = 10 * (2 * math.sqrt(12) - 1) ** 2
    assert pgan.gradient_penalty(scores, pictures).item() == pytest.approx(wanted, rel=1e-5)
    share = torch.tensor([0.25, 1.0]).view(2, 1, 1, 1)
    mixed = pgan.between(torch.full((2, 1, 1, 1), 4.0), torch.zeros(2, 1, 1, 1), share)
    assert mixed.flatten().tolist() == [1.0, 4.0]


def test_a_score_without_a_gradient_has_a_finite_penalty():
    pictures = torch.zeros(1, 3, 2, 2, requires_grad=True)
    weight = torch.zeros((), requires_grad=True)
    pgan.gradient_penalty((weight * pictures).sum((1, 2, 3))[:, None], pictures).backward()
    assert torch.isfinite(weight.grad)


def test_each_turn_trains_one_network(training, monkeypatch):
    moved = []
    original = pgan.update

    def watch(optimizer, *given, **options):
        moved.append(
            [
                any(p.grad is not None for p in training.parts[name].parameters())
                for name in ("generator", "discriminator")
            ]
        )
        return original(optimizer, *given, **options)

    monkeypatch.setattr(pgan, "update", watch)
    training.step(0)
    assert moved == [[False, True], [True, False]]


def test_a_level_starts_with_fresh_moments_and_a_fresh_average(training):
    for number in range(2):
        training.step(number)
    (optimizer, average) = (training.parts[n] for n in ("generator-optimizer", "average"))
    kernel = training.parts["generator"].levels[0][0].weight
    assert optimizer.state[kernel]["step"].item() == 2
    before = average.values[1].clone()
    training.step(2)
    assert optimizer.state[kernel]["step"].item() == 1
    # The average has moved by 9 / 11 of the way.
    moved = torch.lerp(before, average.parameters[1].detach(), 9 / 11)
    assert torch.allclose(average.values[1], moved, atol=1e-6)


def test_images_are_made_with_the_averaged_weights(training):
    for number in range(training.steps):
        training.step(number)
    last = [p.detach().clone() for p in training.parts["generator"].parameters()]
    averaged = [value.clone() for value in training.parts["average"].values]
    kept = list(training.generator().parameters())
    assert all(torch.equal(a, b) for a, b in zip(kept, averaged, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(kept, last, strict=True))


@pytest.mark.parametrize("at", [4, 11])
def test_a_resumed_training_is_the_undisturbed_one(trained, tmp_path, monkeypatch, at):
    data = images(tmp_path, MEL=4, NV=5)
    with monkeypatch.context() as patch:
        stop_at(patch, PganTraining, at)
        with pytest.raises(Killed):
            train("pgan", tmp_path, OWN, data)
    stop_at(monkeypatch, PganTraining, 16 - at)
    out = train("pgan", tmp_path, OWN, data)
    assert weights(out) == weights(trained) and len(weights(out)) == 2


def test_the_folder_says_what_the_training_was(trained):
    budget = json.loads((trained / "budget.json").read_text())
    one = size_of(Generator(32, 0.02), Discriminator(32, 0.02))
    assert (budget["parameters"], budget["steps"], budget["images"]) == (2 * one, 16, 64)
    assert "level_steps is 2; in the source it is 96000." in budget["departures"]


def test_an_image_depends_on_its_own_request_alone(trained):
    synthesizer = pgan.load(trained, None, "cpu")
    asked = [Request(f"{n}", label, "", n) for n, label in enumerate(["MEL", "NV", "MEL", "NV"])]
    together = synthesizer.synthesize(asked)
    turned = synthesizer.synthesize(asked[::-1])[::-1]
    for one, other in zip(together, turned, strict=True):
        assert one.image.shape == (32, 32, 3) and one.image.dtype == np.uint8
        assert np.array_equal(one.image, other.image)
    assert not np.array_equal(together[0].image, together[2].image)


def test_too_few_images_and_other_sides_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"\{'NV': 3\} images, expected 4 of each diagnosis"):
        train("pgan", tmp_path, OWN, images(tmp_path, MEL=4, NV=3))
    with pytest.raises(ValueError, match="images of 48 px, expected a power of two"):
        train("pgan", tmp_path, OWN, images(tmp_path / "48", side=48, MEL=4))


def test_a_damaged_folder_is_named(trained, tmp_path):
    out = train("pgan", tmp_path, {**OWN, "level_steps": 1}, images(tmp_path, MEL=4))
    (out / "models/MEL/generator.safetensors").write_text("x")
    with pytest.raises(ValueError, match="MEL/generator.safetensors: found no generator"):
        pgan.load(out, None, "cpu")


def test_the_preset_of_the_paper_and_what_is_refused():
    own = Settings(preset="paper")
    assert (own.first_steps, own.level_steps, own.training_batch) == (48_000, 96_000, 16)
    assert own.fade * own.level_steps == 19_200
    for wrong in ({"preset": "large"}, {"training_batch": 6}):
        with pytest.raises(ValidationError):
            Settings(**wrong)
