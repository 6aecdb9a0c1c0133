"""Write the report: one self-contained HTML page with the verdict and its evidence."""

import logging

from didgen.settings.report import Config

LOGGER = logging.getLogger(__name__)


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
