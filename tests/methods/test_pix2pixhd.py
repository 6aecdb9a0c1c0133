"""pix2pixHD: the source's sizes, its losses by hand, exact resume, one image a mask."""

import json
import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from torchvision.models import vgg19

from didgen.data.images import read_mask
from didgen.methods import pix2pixhd
from didgen.methods.gan import size_of
from didgen.methods.pix2pixhd import (
    Discriminator,
    Generator,
    Mirror,
    Perceptual,
    Pix2pixhdTraining,
)
from didgen.methods.protocol import Request
from didgen.runtime.weights import WeightsError
from didgen.settings.pix2pixhd import Settings
from tests.methods.gan_runs import Killed, images, stop_at, train, weights

# Four images, two epochs: eight steps.
OWN = {
    "channel_share": 0.05,
    "downsamplings": 2,
    "blocks": 1,
    "epochs": 1,
    "decay_epochs": 1,
    "checkpoint_every": 1,
}

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pix")
    return train("pix2pixhd", folder, OWN, images(folder, MEL=2, NV=2))


@pytest.fixture
def training():
    pictures = np.random.default_rng(0).integers(0, 256, (4, 4, 32, 32), np.uint8)
    pictures[:, 3] = 255 * (pictures[:, 3] > 127)
    return Pix2pixhdTraining(pictures, Settings(**OWN), 0, torch.device("cpu"), None)


def requests(folder) -> list[Request]:
    data = images(folder, MEL=2, NV=2)
    return [
        Request(row.id, row.label, "", n, mask=read_mask(row.mask))
        for n, row in enumerate(data.itertuples())
    ]


@pytest.mark.parametrize(
    ("downsamplings", "count"), [(4, 182_440_131), (3, 45_590_211), (2, 11_375_043)]
)
def test_parameters_are_as_many_as_the_source_has(downsamplings, count):
    with torch.device("meta"):
        assert size_of(Generator(1.0, downsamplings, 9)) == count
        assert size_of(Discriminator(1.0)) == 5_533_570


def test_maps_have_the_sizes_of_the_source():
    with torch.device("meta"):
        found = Discriminator(1.0)(torch.zeros(1, 2, 256, 256), torch.zeros(1, 3, 256, 256))
        assert Generator(1.0, 4, 9)(torch.zeros(1, 2, 256, 256)).shape == (1, 3, 256, 256)
    assert [[maps.shape[-1] for maps in scale] for scale in found] == [
        [129, 65, 33, 34, 35],
        [65, 33, 17, 18, 19],
    ]
    assert [maps.shape[1] for maps in found[0]] == [64, 128, 256, 512, 1]


def test_images_are_within_their_range():
    torch.manual_seed(0)
    made = Generator(0.05, 2, 1)(100 * torch.randn(2, 2, 32, 32))
    assert made.shape == (2, 3, 32, 32) and made.abs().max() <= 1


@pytest.mark.parametrize("width", [1, 3])
def test_a_mirrored_border_is_that_of_the_library(width):
    maps = torch.randn(2, 3, 6, 7)
    assert torch.equal(
        Mirror(width)(maps), torch.nn.functional.pad(maps, [width] * 4, mode="reflect")
    )


def test_edges_by_hand():
    mask = torch.zeros(1, 1, 4, 5)
    mask[..., 1:3, 1:4] = 1
    wanted = [[0, 1, 1, 1, 0], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [0, 1, 1, 1, 0]]
    assert pix2pixhd.edges_of(mask)[0, 0].tolist() == wanted
    assert pix2pixhd.edges_of(torch.ones(1, 1, 3, 3)).sum() == 0
    condition = pix2pixhd.condition_of(mask)
    assert condition.shape == (1, 2, 4, 5) and torch.equal(condition[:, :1], mask)


def test_losses_by_hand():
    maps = [torch.tensor([9.0]), torch.tensor([1.0, 3.0])]
    # ((1 - 1)^2 + (3 - 1)^2) / 2 at each of two scales.
    assert pix2pixhd.least_squares([maps, maps], 1.0).item() == 4.0
    layers = [torch.zeros(2)] * 5
    higher = [torch.full((2,), 0.5)] * 4 + [torch.full((2,), 99.0)]
    # Eight layers of two scales, 0.5 each, times 5; the scores do not count.
    assert pix2pixhd.feature_matching([higher] * 2, [layers] * 2).item() == 20.0
    assert pix2pixhd.feature_matching([higher] * 2, [higher] * 2).item() == 0.0


def test_feature_matching_moves_made_images_alone():
    fake, real = torch.ones(2, requires_grad=True), torch.zeros(2, requires_grad=True)
    pix2pixhd.feature_matching([[fake, fake]], [[real, real]]).backward()
    assert fake.grad is not None and real.grad is None


def test_the_learning_rate_is_constant_then_falls_to_the_last_epoch():
    rates = [pix2pixhd.learning_rate(2e-4, epoch, 100, 100) for epoch in range(200)]
    assert rates[0] == rates[99] == rates[100] == 2e-4
    assert rates[150] == pytest.approx(1e-4) and rates[199] == pytest.approx(2e-6)
    assert pix2pixhd.learning_rate(2e-4, 3, 4, 0) == 2e-4


def test_each_network_gets_the_gradient_of_its_own_losses(training, monkeypatch):
    found = {}
    original = pix2pixhd.update

    def watch(optimizer, losses, **options):
        name = "discriminator" if "loss_discriminator" in losses else "generator"
        found[name] = [p.grad.clone() for p in training.parts[name].parameters()]
        return original(optimizer, losses, **options)

    monkeypatch.setattr(pix2pixhd, "update", watch)
    generator, discriminator = training.parts["generator"], training.parts["discriminator"]
    draws = pix2pixhd.step_generator(0, 0)
    batch = pix2pixhd.draw_batch(
        training._pictures, 1, 0, 0, draws, flips=True, device=torch.device("cpu")
    )
    condition, real = pix2pixhd.condition_of(batch[:, 3:]), batch[:, :3] * 2 - 1
    fake = generator(condition)
    of_fake, of_real = discriminator(condition, fake), discriminator(condition, real)
    theirs = pix2pixhd.least_squares(of_fake, 0.0) + pix2pixhd.least_squares(of_real, 1.0)
    ours = pix2pixhd.least_squares(of_fake, 1.0) + pix2pixhd.feature_matching(of_fake, of_real)
    wanted = {
        "discriminator": torch.autograd.grad(
            theirs / 2, list(discriminator.parameters()), retain_graph=True
        ),
        "generator": torch.autograd.grad(ours, list(generator.parameters())),
    }
    row = training.step(0)
    assert row.keys() >= {"loss_discriminator", "loss_generator", "loss_matching", "lr"}
    for name, gradients in wanted.items():
        for one, other in zip(found[name], gradients, strict=True):
            assert torch.allclose(one, other, rtol=1e-4, atol=1e-6)


def test_a_resumed_training_is_the_undisturbed_one(trained, tmp_path, monkeypatch):
    data = images(tmp_path, MEL=2, NV=2)
    with monkeypatch.context() as patch:
        stop_at(patch, Pix2pixhdTraining, 5)
        with pytest.raises(Killed):
            train("pix2pixhd", tmp_path, OWN, data)
    stop_at(monkeypatch, Pix2pixhdTraining, 3)
    out = train("pix2pixhd", tmp_path, OWN, data)
    assert weights(out) == weights(trained)


def test_the_folder_says_what_the_training_was(trained):
    budget = json.loads((trained / "budget.json").read_text())
    one = size_of(Generator(0.05, 2, 1), Discriminator(0.05))
    assert (budget["parameters"], budget["steps"], budget["images"]) == (one, 8, 8)
    assert "There is no perceptual loss: vgg_weights is null." in budget["departures"]
    rows = (trained / "training.csv").read_text().splitlines()
    rates = [dict(zip(rows[0].split(","), row.split(","), strict=True))["lr"] for row in rows[1:]]
    assert [float(rate) for rate in rates] == [2e-4] * 8


def test_an_image_depends_on_its_mask_alone(trained, tmp_path):
    synthesizer = pix2pixhd.load(trained, None, "cpu")
    asked = requests(tmp_path)
    synthesizer.check(asked)
    together = synthesizer.synthesize(asked)
    turned = synthesizer.synthesize(asked[::-1])[::-1]
    for one, other, request in zip(together, turned, asked, strict=True):
        assert one.image.shape == (32, 32, 3) and one.image.dtype == np.uint8
        assert np.array_equal(one.image, other.image)
        assert one.mask is request.mask and one.request is request
    assert not np.array_equal(together[0].image, together[1].image)


def test_masks_that_stand_several_times_are_warned_of(trained, tmp_path, caplog):
    asked = requests(tmp_path)
    pix2pixhd.load(trained, None, "cpu").check([*asked, asked[0]])
    assert "4 of 5 masks differ" in caplog.text


def test_requests_without_a_fitting_mask_are_refused(trained):
    synthesizer = pix2pixhd.load(trained, None, "cpu")
    with pytest.raises(ValueError, match=r"a: found none, expected a mask of \(32, 32\)"):
        synthesizer.check([Request("a", "MEL", "", 0)])
    with pytest.raises(ValueError, match=r"a: found one of \(16, 16\)"):
        synthesizer.check([Request("a", "MEL", "", 0, mask=np.ones((16, 16), bool))])


def test_images_without_a_mask_are_left_out(tmp_path):
    data = images(tmp_path, MEL=3)
    data.loc[0, "mask"] = None
    train("pix2pixhd", tmp_path, OWN, data)
    assert json.loads((tmp_path / "pix2pixhd/budget.json").read_text())["images"] == 4
    with pytest.raises(ValueError, match="found 0 images with a mask, expected 1 at least"):
        train("pix2pixhd", tmp_path, OWN, data.assign(mask=None))


def test_sides_that_cannot_be_halved_are_refused(tmp_path):
    with pytest.raises(ValueError, match="images of 40 px, expected a multiple of 16 px"):
        train("pix2pixhd", tmp_path, {**OWN, "downsamplings": 4}, images(tmp_path, side=40, MEL=1))


def test_a_damaged_folder_is_named(trained, tmp_path):
    out = train("pix2pixhd", tmp_path, OWN, images(tmp_path, MEL=1))
    (out / "models/all/generator.safetensors").unlink()
    with pytest.raises(ValueError, match="all/generator.safetensors: found no generator"):
        pix2pixhd.load(out, None, "cpu")


class Thin(torch.nn.Sequential):
    """Stands for VGG19: as many layers, of which the first alone does something."""

    def __init__(self) -> None:
        super().__init__(torch.nn.Conv2d(3, 2, 1), *[torch.nn.Identity() for _ in range(29)])


def test_the_perceptual_loss_by_hand():
    features = Thin()
    with torch.no_grad():
        features[0].weight.fill_(1.0)
        features[0].bias.fill_(0.0)
    loss = Perceptual(features)
    fake = torch.full((1, 3, 4, 4), 0.5, requires_grad=True)
    # Every layer differs by 1.5; the weights add up to 1 + 1/4 + 1/8 + 1/16 + 1/32.
    found = loss(fake, torch.zeros(1, 3, 4, 4))
    assert found.item() == pytest.approx(10 * 1.5 * (1 + 15 / 32))
    found.backward()
    assert fake.grad is not None and not any(p.requires_grad for p in features.parameters())
    assert loss(fake, fake).item() == 0.0


def test_a_training_with_the_perceptual_loss_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(pix2pixhd, "open_vgg", lambda weights: (Thin(), "file vgg"))
    own = {**OWN, "vgg_weights": "vgg.safetensors"}
    out = train("pix2pixhd", tmp_path, own, images(tmp_path, MEL=1))
    assert "loss_perceptual" in (out / "training.csv").read_text()
    departures = json.loads((out / "budget.json").read_text())["departures"]
    assert "There is no perceptual loss: vgg_weights is null." not in departures


def test_weights_of_another_network_are_refused(tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"features.0.weight": torch.zeros(64, 3, 3, 3)}, path)
    with pytest.raises(WeightsError, match=r"25 of the 26 .*the first is features\.0\.bias"):
        pix2pixhd.open_vgg(str(path))
    with pytest.raises(WeightsError, match="pickle"):
        pix2pixhd.open_vgg(str(tmp_path / "vgg.pth"))


@pytest.mark.slow
def test_layers_of_the_perceptual_loss_are_the_activations(tmp_path):
    torch.manual_seed(0)
    with torch.random.fork_rng():
        network = vgg19()
    path = tmp_path / "vgg19.safetensors"
    kept = {k: v.detach() for k, v in network.state_dict().items() if k.startswith("features.")}
    save_file(kept, path)
    features, origin = pix2pixhd.open_vgg(str(path))
    assert origin.startswith("file vgg19.safetensors") and len(features) == 30
    assert all(isinstance(features[n], torch.nn.ReLU) for n in pix2pixhd.VGG_LAYERS)
    pictures = torch.rand(1, 3, 32, 32)
    maps = Perceptual(features)._maps(pictures)
    assert [m.shape[1] for m in maps] == [64, 128, 256, 512, 512]
    assert torch.allclose(maps[-1], network.features[:30](pictures), atol=1e-6)


def test_the_preset_of_the_paper():
    own = Settings(preset="paper")
    assert (own.epochs, own.decay_epochs, own.blocks, own.downsamplings) == (100, 100, 9, 4)
    assert own.vgg_weights == "hub" and own.conditions == "generated"
    assert math.isclose(own.learning_rate, 2e-4)
    with pytest.raises(ValidationError, match="preset"):
        Settings(preset="large")
