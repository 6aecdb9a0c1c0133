"""Fine-tune the backbone once, with the region-aware attention loss (Eq. 1, 3, 4)."""

from didgen.runtime.outputs import check_output, paths_read
from didgen.settings.finetune import Config
from didgen.stages.train import train_method


def run(config: Config) -> None:
    """Write the fine-tuned folder `config.out`. Raises: as the method's `train`."""
    check_output(config.out, "finetune", paths_read(config, config.backbone))
    train_method("didgen", config, config.classes, config.unmasked == "segmented")
