import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from didgen.tiny.architecture import MINIATURE, build
from didgen.tiny.diffusion import (
    after_sentence,
    caption_latents,
    embed_prompts,
    matching_loss,
    train_text_encoder,
)
from didgen.tiny.phase import Phase

END = 9


def test_a_sentence_is_summed_up_from_its_end_on():
    ids = torch.tensor([[1, 5, END, END], [1, 5, 6, END]])
    states = torch.tensor([[7.0, 8.0, 2.0, 4.0], [7.0, 8.0, 5.0, 6.0]]).unsqueeze(-1)
    assert after_sentence(states, ids).flatten().tolist() == [3.0, 6.0]


def test_matching_loss_by_hand():
    ids = torch.tensor([[1, END], [2, END], [3, END]])
    assert matching_loss(torch.zeros(3, 3), ids).item() == pytest.approx(math.log(3))
    assert matching_loss(50 * torch.eye(3), ids).item() == pytest.approx(0, abs=1e-6)
    # Cross-entropy of the rows: log(1 + e), log 2; of the columns: log 2, log(1 + e).
    similarity = torch.tensor([[0.0, 1.0], [0.0, 0.0]])
    wanted = (math.log(1 + math.e) + math.log(2)) / 2
    assert matching_loss(similarity, ids[:2]).item() == pytest.approx(wanted)


def test_equal_captions_are_no_contrast_to_each_other():
    ids = torch.tensor([[1, END], [1, END], [3, END]])
    # The first two see one other caption, the third both: log 2 and log 3, by rows and columns.
    wanted = (2 * math.log(2) + math.log(3)) / 3
    assert matching_loss(torch.zeros(3, 3), ids).item() == pytest.approx(wanted)


def test_it_learns_words_of_place(tmp_path):
    """Two captions, two places of a spot: after training the states behind them lie far apart."""
    shape = replace(MINIATURE, text_width=64, text_layers=2)
    mean = torch.zeros(2, 2, 4, 16, 16)
    for image, side in ((0, 0), (0, 1), (1, 0), (1, 1)):
        left = (image + side) % 2 == 0
        mean[image, side, :, 4:12, slice(1, 7) if left else slice(9, 15)] = 3.0
    words = np.array([["a spot at the left", "a spot at the right"]])
    captions = np.concatenate([words, words[:, ::-1]])

    def last_states(steps: int = 150) -> torch.Tensor:
        backbone = build(shape)
        data = caption_latents(backbone, mean, torch.full_like(mean, 0.1), captions)
        phase = Phase(steps, lr=3e-4, report_to="none", warmup=1, ema=0.5)
        train_text_encoder(backbone, data, phase, 2, tmp_path / str(steps), 0)
        return embed_prompts(backbone, data, batch_size=64).prompts[0, :, -1].float()

    left, right = last_states(steps=0)
    assert (left - right).norm() < 0.05 * left.norm()
    left, right = last_states()
    assert (left - right).norm() > 0.5 * left.norm()
    # The second call finds it done and loads it.
    assert torch.equal(torch.stack([left, right]), last_states())
