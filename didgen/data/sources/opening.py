"""The records of the source that the settings name."""

from didgen.data.download import archives_folder, listed_folder
from didgen.data.sources.isic2018 import isic2018_records
from didgen.data.sources.layouts import published_records
from didgen.data.sources.own import folder_records, own_records
from didgen.data.sources.phantom import phantom_records
from didgen.data.sources.published import LAYOUTS
from didgen.data.sources.records import Record
from didgen.settings.data import ImageFolder, ReadSource


def source_records(config: ReadSource) -> list[Record]:
    """The records of a run's own source. Raises: `SourceError`."""
    if config.source == "phantoms":
        return phantom_records(config.phantoms, config.classes, config.seed)
    if config.source == "isic2018":
        folder = archives_folder(config.mirror, config.archives)
        if config.listing:
            folder = listed_folder(config.listing)
        return isic2018_records(folder, official=config.splits == "official")
    return listed_records(config, config.source)


def listed_records(images: ImageFolder, source: str) -> list[Record]:
    """The records of a source that is read from a table or a folder. Raises: `SourceError`."""
    if source == "table":
        assert images.table is not None  # the settings refuse a source without what it needs
        return own_records(images.table, images.columns, images.labels)
    assert images.folder is not None
    if source == "folder":
        return folder_records(images.folder, images.labels)
    return published_records(images.folder, LAYOUTS[source])
