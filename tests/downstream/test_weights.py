"""The packaged ImageNet weights arrive where they belong."""

import numpy as np
import pytest
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
from didgen.downstream.weights import WeightsError, by_position, lite0_named, lite0_state

DECODER = (16, 16, 8, 8, 8)


def test_the_package_holds_296_tensors_in_the_order_of_both_twins():
    state = lite0_state()
    assert len(state) == 296
    for name in ("efficientnet_lite0", "tf_efficientnet_lite0"):
        assert torch.equal(lite0_named(name)["conv_stem.weight"], state["_conv_stem.weight"])


def test_a_classifier_starts_from_them_but_for_its_last_layer():
    built = build_classifier("efficientnet_lite0", 7, 64)
    own, given = built.model.state_dict(), lite0_named("efficientnet_lite0")
    assert all(torch.equal(own[k], given[k]) for k in given if not k.startswith("classifier."))
    assert own["classifier.weight"].shape == (7, 1280)
    assert "ImageNet" in built.weights


def test_they_give_another_answer_than_random_weights():
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    features = []
    for pretrained in (True, False):
        torch.manual_seed(0)
        model = build_classifier("efficientnet_lite0", 7, 64, pretrained).model.eval()
        with torch.inference_mode():
            features.append(model.forward_features(images))
    assert not torch.allclose(*features, atol=1e-2)


def test_the_encoder_of_the_segmenter_starts_from_them():
    built = build_segmenter("efficientnet_lite0", 64, DECODER)
    given = lite0_named("efficientnet_lite0")
    found = built.model.encoder.state_dict()
    assert all(torch.equal(found[k], given[k.removeprefix("model.")]) for k in found)
    with torch.inference_mode():
        assert built.model.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 1, 64, 64)


def test_other_networks_are_said_to_start_from_scratch():
    assert build_classifier("resnet10t", 3, 64).weights == FROM_SCRATCH
    assert build_classifier("efficientnet_lite0", 3, 64, pretrained=False).weights == FROM_SCRATCH


def test_a_transformer_is_built_for_the_size_of_its_images():
    model = build_classifier("vit_tiny_patch16_224", 3, 64).model.eval()
    with torch.inference_mode():
        assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 3)


def test_weights_of_another_network_are_refused():
    state = lite0_state()
    with pytest.raises(WeightsError, match="found 1 tensors, expected 296"):
        by_position({"a": torch.zeros(1)}, state)
    wrong = dict(state)
    wrong["_bn0.weight"] = torch.zeros(3)
    with pytest.raises(WeightsError, match="_bn0.weight of shape"):
        by_position(wrong, state)


def test_wrong_requests_are_named():
    with pytest.raises(ValueError, match="no model 'efficientnet_lite9'"):
        build_classifier("efficientnet_lite9", 3, 64)
    with pytest.raises(ValueError, match="at least two"):
        build_classifier("efficientnet_lite0", 1, 64)
    with pytest.raises(ValueError, match="multiple of 32"):
        build_segmenter("efficientnet_lite0", 100, DECODER)
    with pytest.raises(ValueError, match="expected 5"):
        build_segmenter("efficientnet_lite0", 64, (8, 8))


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
