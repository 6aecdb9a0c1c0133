"""The loop: an interrupted training ends as an undisturbed one, whatever its step does."""

import math
import os
import signal
import time

import pytest
import torch
from torch import nn

from didgen.training.loop import OutOfTime, TrainingStopped, run_steps
from didgen.training.optimization import Average, NonFiniteLoss, update
from didgen.training.state import resume_state


class Killed(Exception):
    """Stands for SIGKILL: nothing of ours handles it."""


class Adversaries:
    """Two networks with an optimiser each, and an average of the first: the shape of a GAN."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.maker, self.critic = nn.Linear(2, 2), nn.Linear(2, 1)
        self.optimizers = [torch.optim.Adam(n.parameters()) for n in (self.maker, self.critic)]
        self.average = Average(list(self.maker.parameters()), 0.9)
        self.parts = {
            "maker": self.maker,
            "critic": self.critic,
            "maker-optimizer": self.optimizers[0],
            "critic-optimizer": self.optimizers[1],
            "maker-average": self.average,
        }

    def step(self, number: int) -> dict:
        generator = torch.Generator().manual_seed(number)
        noise, real = torch.randn(2, 4, 2, generator=generator)
        loss = self.critic(self.maker(noise).detach()).mean() - self.critic(real).mean()
        loss.backward()
        critic = update(self.optimizers[1], {"loss_critic": loss}, learning_rate=0.01, max_norm=1.0)
        loss = -self.critic(self.maker(noise)).mean()
        loss.backward()
        self.optimizers[1].zero_grad()
        maker = update(self.optimizers[0], {"loss_maker": loss}, learning_rate=0.01, max_norm=1.0)
        self.average.update(number + 1)
        return {"loss_critic": critic["loss_critic"], "loss_maker": maker["loss_maker"]}

    def weights(self) -> list[torch.Tensor]:
        return [*self.maker.parameters(), *self.critic.parameters(), *self.average.values]


def train(made, steps=12, folder=None, every=4, hook=lambda done: None, **options):
    """Train `made`; `hook` is called in each step with the number of steps done."""

    def step(number):
        hook(number)
        return made.step(number)

    history = resume_state(made.parts, folder, steps)
    options = {"save_due": lambda done: done % every == 0, "advice": "Slow down", **options}
    run_steps(step, made.parts, history, steps, folder, **options)
    return history


def losses(history):
    return [(row["step"], row["loss_critic"], row["loss_maker"]) for row in history]


def at(step, do):
    return lambda done: do() if done == step else None


def kill():
    raise Killed


def end():
    os.kill(os.getpid(), signal.SIGTERM)


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.weights(), other.weights(), strict=True))


def test_after_a_kill_it_repeats_the_steps_since_the_last_save(tmp_path):
    whole, first, second = Adversaries(), Adversaries(), Adversaries()
    expected = train(whole)
    with pytest.raises(Killed):
        train(first, folder=tmp_path, hook=at(7, kill))
    assert [path.name for path in tmp_path.iterdir()] == ["step-0000004"]
    done = []
    assert losses(train(second, folder=tmp_path, hook=done.append)) == losses(expected)
    assert done == list(range(4, 12)) and same(second, whole)


def test_sigterm_saves_after_the_step_and_the_next_run_goes_on(tmp_path):
    whole, first, second = Adversaries(), Adversaries(), Adversaries()
    expected, before = train(whole), signal.getsignal(signal.SIGTERM)
    with pytest.raises(TrainingStopped) as stopped:
        train(first, folder=tmp_path, hook=at(5, end))
    assert stopped.value.code == 143 and signal.getsignal(signal.SIGTERM) is before
    assert [path.name for path in tmp_path.iterdir()] == ["step-0000006"]
    assert losses(train(second, folder=tmp_path)) == losses(expected)
    assert same(second, whole)


def test_sigterm_in_the_last_step_lets_the_training_end():
    assert len(train(Adversaries(), hook=at(11, end))) == 12


def test_at_the_deadline_the_state_is_saved(tmp_path):
    with pytest.raises(OutOfTime, match="after step 1 of 12"):
        train(Adversaries(), folder=tmp_path, deadline=time.monotonic())
    assert [path.name for path in tmp_path.iterdir()] == ["step-0000001"]


def test_evaluations_come_after_the_save_and_are_made_up_for(tmp_path):
    seen = []

    def evaluate(done, killing=False):
        saved = max(tmp_path.glob("step-*")).name if done else ""
        if killing and done == 4:
            raise Killed
        seen.append((done, saved))

    def due(done):
        return done % 4 == 0 and all(done != other for other, _ in seen)

    with pytest.raises(Killed):
        train(Adversaries(), folder=tmp_path, evaluate=lambda done: evaluate(done, True),
              evaluation_due=due)  # fmt: skip
    assert seen == [(0, "")]
    train(Adversaries(), folder=tmp_path, evaluate=evaluate, evaluation_due=due)
    assert seen[1:] == [(4, "step-0000004"), (8, "step-0000008"), (12, "step-0000012")]


def test_an_evaluation_may_end_the_training():
    made = Adversaries()
    history = train(made, evaluate=lambda done: done >= 6, evaluation_due=lambda done: done > 4)
    assert len(history) == 6


def test_a_finished_training_does_no_step(tmp_path):
    expected = train(Adversaries(), folder=tmp_path)
    assert train(Adversaries(), folder=tmp_path, hook=lambda done: kill()) == expected


def test_what_is_not_finite_is_named_with_its_step_and_nothing_is_saved(tmp_path):
    made = Adversaries()

    def spoil():
        made.maker.weight.register_hook(lambda grad: grad * math.nan)

    told = "step 6: the gradient's norm is nan; the last saved state is kept. Slow down"
    with pytest.raises(NonFiniteLoss, match=told):
        train(made, folder=tmp_path, hook=at(5, spoil))
    assert [path.name for path in tmp_path.iterdir()] == ["step-0000004"]
    assert all(torch.isfinite(p).all() for p in made.maker.parameters())


def test_seconds_add_up_over_restarts(tmp_path):
    train(Adversaries(), steps=4, folder=tmp_path, hook=lambda done: time.sleep(0.03))
    history = train(Adversaries(), steps=5, folder=tmp_path)
    seconds = [row["seconds"] for row in history]
    assert seconds == sorted(seconds) and seconds[4] >= seconds[3] >= 0.12
