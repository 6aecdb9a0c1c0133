"""The paper's three classifiers: their published sizes and their answers."""

import pytest
import torch

from didgen.downstream.classifiers import FROM_SCRATCH, build_classifier


@pytest.mark.parametrize(
    ("name", "published", "last"),
    # With 1000 classes; a last layer of `last` features has `last` + 1 numbers for each class.
    [
        ("vgg16", 138_357_544, 4096),
        ("densenet121", 7_978_856, 1024),
        ("vit_base_patch16_224", 86_567_656, 768),
    ],
)
def test_the_papers_classifiers_have_their_published_size(name, published, last):
    with torch.device("meta"):  # shapes without the half gigabyte that VGG16 takes
        built = build_classifier(name, 7, 224, pretrained=True, weights=None)
        assert built.model.eval()(torch.zeros(2, 3, 224, 224)).shape == (2, 7)
    assert built.parameters == published - (1000 - 7) * (last + 1)
    assert (built.name, built.weights) == (name, FROM_SCRATCH)
