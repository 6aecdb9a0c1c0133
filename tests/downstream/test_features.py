"""The frozen features are those of the ImageNet network, and stay frozen."""

import timm
import torch

from didgen.downstream.features import Lite0Features
from didgen.downstream.weights import lite0_state


def test_features_are_the_first_stages_of_the_imagenet_network():
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    found = Lite0Features()(images)
    assert [tuple(m.shape[2:]) for m in found] == [(32, 32), (16, 16), (8, 8)]
    model = timm.create_model("efficientnet_lite0", num_classes=0).eval()
    model.load_state_dict(lite0_state())
    with torch.no_grad():
        pixels = (images + 1) * 127.5
        stem = model.bn1(model.conv_stem((pixels - 127) / 128))
        assert torch.allclose(found[0], model.blocks[0](stem), atol=1e-3)


def test_training_mode_does_not_reach_them():
    features = Lite0Features().train()
    assert not any(module.training for module in features.body.modules())
    assert not any(p.requires_grad for p in features.parameters())
