"""Write the report: one self-contained HTML page with the verdict and its evidence."""

import logging
from pathlib import Path

from pydantic import Field

from didgen.settings.base import Section

LOGGER = logging.getLogger(__name__)


class Settings(Section):
    """How much the page shows; all numbers are always computed from everything."""

    samples_per_class: int = Field(
        6, ge=0, le=48, description="real and, as many, synthetic images shown of each class"
    )
    pairs: int = Field(12, ge=0, le=200, description="lesion-mask pairs shown")
    panels: int = Field(8, ge=0, le=200, description="panels of attention maps shown")
    picture_side: int = Field(
        192,
        ge=32,
        le=1024,
        description="shorter side of embedded pictures at most, px; of panels, twice that",
    )
    picture_quality: int = Field(84, ge=40, le=98, description="JPEG quality of embedded pictures")


class Config(Settings):
    """Settings and paths of the stage."""

    run_dir: Path = Field(description="folder of the run, results/<run>")
    out: Path = Field(description="page to write, e.g. results/<run>/report/index.html")


def run(config: Config) -> None:
    """Write the page and `config.json` beside it.

    Raises: NotADirectoryError without a run; BrokenResult or ManifestError where a result exists
    but cannot be read. What a run does not have is said on the page.
    """
    from didgen.report.page import build
    from didgen.runtime.files import write_text

    page = build(config.run_dir, config)
    write_text(config.out.with_name("config.json"), config.model_dump_json(indent=2) + "\n")
    write_text(config.out, page)
    LOGGER.info("report: %s (%.1f MB)", config.out, len(page.encode()) / 1e6)
