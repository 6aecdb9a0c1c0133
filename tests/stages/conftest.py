"""A miniature run, built once: phantoms, captions and a random backbone of the tiny's shape."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from didgen.stages import caption, finetune
from didgen.stages import data as data_stage
from didgen.tiny.architecture import MINIATURE, build

SHAPE = replace(MINIATURE, image_size=128)
TRAINING = {"steps": 4, "batch_size": 3, "checkpoint_every": 2, "warmup_steps": 2}


@dataclass(frozen=True)
class MiniRun:
    """Paths of a prepared, captioned and fine-tuned run."""

    root: Path
    pretrained: Path
    train: Path
    test: Path
    captions: Path
    backbone: Path

    def finetune_config(self, out: Path, **changes) -> finetune.Config:
        """The fine-tuning of this run, with changes, into another folder."""
        values = {
            "backbone": str(self.pretrained),
            "train": self.train,
            "captions": self.captions,
            "out": out,
            "state": out.parent / f"{out.name}-state",
            **TRAINING,
            **changes,
        }
        return finetune.Config(**values)


@pytest.fixture(scope="session")
def mini_run(tmp_path_factory) -> MiniRun:
    """Prepare, caption and fine-tune in miniature. Tests must not write into it."""
    root = tmp_path_factory.mktemp("run")
    pretrained = root / "pretrained"
    build(SHAPE, seed=0).save(pretrained)
    data = root / "data"
    data_stage.run(data_stage.Config(phantoms=56, out=data, seed=1))
    caption.run(
        caption.Config(
            train=data / "train.csv",
            val=data / "val.csv",
            test=data / "test.csv",
            backbone=str(pretrained),
            out=root / "caption",
        )
    )
    run = MiniRun(
        root,
        pretrained,
        data / "train.csv",
        data / "test.csv",
        root / "caption/captions.csv",
        root / "finetune",
    )
    finetune.run(run.finetune_config(run.backbone))
    shutil.rmtree(root / "finetune-state")
    return run
