"""The packaged ImageNet weights arrive where they belong."""

import numpy as np
import pytest
import timm
import torch
from sklearn.utils.class_weight import compute_class_weight

from didgen.downstream.classifiers import (
    FROM_SCRATCH,
    build_classifier,
    class_weights,
    classification_loss,
    weighted_loss,
)
from didgen.downstream.segmenters import build_segmenter, segmentation_loss
from didgen.downstream.weights import (
    LITE0_FILE,
    LITE0_NAMES,
    WeightsError,
    fill_classifier,
    lite0_state,
)

DECODER = (16, 16, 8, 8, 8)


def test_the_packaged_weights_give_the_features_of_their_origin():
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    picture = torch.stack([4 * x, 4 * y, 2 * (x + y)])[None]
    model = timm.create_model("efficientnet_lite0", num_classes=0).eval()
    model.load_state_dict(lite0_state())
    with torch.inference_mode():
        features = model((picture - 127) / 128)[0]
    # Of the weights as ML Illustrated published them.
    assert features.norm().item() == pytest.approx(9.122869, rel=1e-5)
    assert features.sum().item() == pytest.approx(52.99965, rel=1e-5)
    assert features[2].item() == pytest.approx(0.0628783, rel=1e-4)


@pytest.mark.parametrize("name", LITE0_NAMES)
def test_a_classifier_starts_from_them_but_for_its_last_layer(name):
    built = build_classifier(name, 7, 64, pretrained=True, weights=None)
    own, given = built.model.state_dict(), lite0_state()
    assert all(torch.equal(own[k], given[k]) for k in given)
    assert own["classifier.weight"].shape == (7, 1280)
    assert "ImageNet" in built.weights


def test_their_licence_and_origin_stand_beside_them():
    folder = LITE0_FILE.parent
    assert "Apache License" in (folder / "LICENSE").read_text()
    assert LITE0_FILE.name in (folder / "README.md").read_text()


def test_they_give_another_answer_than_random_weights():
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    features = []
    for pretrained in (True, False):
        torch.manual_seed(0)
        model = build_classifier("efficientnet_lite0", 7, 64, pretrained, weights=None).model.eval()
        with torch.inference_mode():
            features.append(model.forward_features(images))
    assert not torch.allclose(*features, atol=1e-2)


def test_the_encoder_of_the_segmenter_starts_from_them():
    built = build_segmenter(
        "efficientnet_lite0", 64, DECODER, pretrained=True, model="unet", weights=None
    )
    given = lite0_state()
    found = built.model.encoder.state_dict()
    assert all(torch.equal(found[k], given[k.removeprefix("model.")]) for k in found)
    with torch.inference_mode():
        assert built.model.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 1, 64, 64)


def test_other_networks_are_said_to_start_from_scratch():
    assert (
        build_classifier("resnet10t", 3, 64, pretrained=True, weights=None).weights == FROM_SCRATCH
    )
    assert (
        build_classifier("efficientnet_lite0", 3, 64, pretrained=False, weights=None).weights
        == FROM_SCRATCH
    )


def test_a_transformer_is_built_for_the_size_of_its_images():
    model = build_classifier(
        "vit_tiny_patch16_224", 3, 64, pretrained=True, weights=None
    ).model.eval()
    with torch.inference_mode():
        assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 3)


def test_a_network_that_they_do_not_fit_is_refused():
    with pytest.raises(WeightsError, match="expected one of efficientnet_lite0"):
        fill_classifier(torch.nn.Linear(2, 2))


def test_wrong_requests_are_named():
    with pytest.raises(ValueError, match="no model 'efficientnet_lite9'"):
        build_classifier("efficientnet_lite9", 3, 64, pretrained=True, weights=None)
    with pytest.raises(ValueError, match="at least two"):
        build_classifier("efficientnet_lite0", 1, 64, pretrained=True, weights=None)
    with pytest.raises(ValueError, match="multiple of 32"):
        build_segmenter(
            "efficientnet_lite0", 100, DECODER, pretrained=True, model="unet", weights=None
        )
    with pytest.raises(ValueError, match="expected 5"):
        build_segmenter(
            "efficientnet_lite0", 64, (8, 8), pretrained=True, model="unet", weights=None
        )


def test_losses_by_hand():
    logits = torch.tensor([[0.0, 0.0], [0.0, 0.0]])
    assert classification_loss(logits, torch.tensor([0, 1])).item() == pytest.approx(0.693147, 1e-5)
    sure = torch.full((1, 1, 4, 4), 50.0)
    assert segmentation_loss(sure, torch.ones(1, 1, 4, 4)).item() == pytest.approx(0, abs=1e-6)
    # Half probability on 16 lesion pixels: ln 2 + 1 - (2*8 + 1) / (8 + 16 + 1).
    half = segmentation_loss(torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 4, 4)).item()
    assert half == pytest.approx(0.693147 + 1 - 17 / 25, 1e-5)


def test_class_weights_agree_with_scikit_learn_and_skip_absent_classes():
    labels = np.array([0, 0, 0, 0, 0, 1, 3, 3])
    expected = compute_class_weight("balanced", classes=np.array([0, 1, 3]), y=labels)
    assert class_weights(labels, 4)[[0, 1, 3]].tolist() == pytest.approx(expected.tolist())
    assert class_weights(labels, 4)[2] == 0


def test_the_weighted_loss_counts_every_class_alike():
    labels = torch.tensor([0, 0, 0, 1])
    loss = weighted_loss(class_weights(labels.numpy(), 2))
    logits = torch.tensor([[1.0, 0.0]] * 3 + [[1.0, 0.0]])
    per_class = [np.log1p(np.exp(-1.0)), np.log1p(np.exp(1.0))]
    assert loss(logits, labels).item() == pytest.approx(np.mean(per_class), rel=1e-5)
    same = torch.tensor([0, 1, 1, 0])
    usual = classification_loss(logits, same).item()
    assert weighted_loss(torch.ones(2))(logits, same).item() == pytest.approx(usual)
