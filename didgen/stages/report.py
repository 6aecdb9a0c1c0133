"""Write the report: one self-contained HTML page with the verdict and its evidence."""

import logging

from didgen.report.page import build
from didgen.runtime.files import write_text
from didgen.runtime.outputs import OutputError, output_folder, paths_read
from didgen.settings.report import Config

LOGGER = logging.getLogger(__name__)


def run(config: Config) -> None:
    """Write the page and `config.json` beside it, into a folder of their own.

    Raises: NotADirectoryError without a run; BrokenResult or ManifestError where a result exists
    but cannot be read. What a run does not have is said on the page.
    """
    # Hidden names are those of markers, locks and unfinished files.
    if config.out.name.startswith(".") or config.out.name.casefold() == "config.json":
        raise OutputError(
            f"{config.out}: found the name {config.out.name}, which the report's folder needs for "
            "itself; expected a page such as index.html"
        )
    with output_folder(config.out.parent, "report", paths_read(config)) as folder:
        page = build(config.run_dir, config)
        write_text(folder / "config.json", config.model_dump_json(indent=2) + "\n")
        write_text(folder / config.out.name, page)
    LOGGER.info("report: %s (%.1f MB)", config.out, len(page.encode()) / 1e6)
