"""Where images come from: phantoms, challenge archives, published data sets, the user's own.

`SOURCES`: importers of a local folder by name, as "module:function", imported on use. Each takes a
folder and gives the records of `didgen.data.sources.records`.
"""

SOURCES: dict[str, str] = {
    "ham10000": "didgen.data.sources.ham10000:ham10000_records",
    "isic2019": "didgen.data.sources.isic2019:isic2019_records",
    "isic2020": "didgen.data.sources.isic2020:isic2020_records",
    "ph2": "didgen.data.sources.ph2:ph2_records",
    "bcn20000": "didgen.data.sources.bcn20000:bcn20000_records",
    "pad-ufes-20": "didgen.data.sources.pad_ufes_20:pad_ufes_20_records",
}
