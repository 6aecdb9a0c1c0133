"""Tiny copies of the published data sets, each in its own layout, and what is read from them.

`times`: how often each diagnosis occurs, with lesions and patients of their own.
"""

import zlib

import numpy as np
from PIL import Image

LESION = np.pad(np.full((4, 4), 255, np.uint8), 2)


def picture(path, array=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    if array is None:
        # Each name its own pixels, or all would be copies of one photograph.
        rng = np.random.default_rng(zlib.crc32(path.stem.encode()))
        array = rng.integers(0, 256, (8, 8, 3)).astype(np.uint8)
    Image.fromarray(array).save(path)


def write(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def ham10000(folder, times=1):
    codes = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc") * times
    rows = [f"HAM_{k // 2},ISIC_{k},{dx},histo,50,male,back" for k, dx in enumerate(codes)]
    write(
        folder / "HAM10000_metadata.csv",
        "lesion_id,image_id,dx,dx_type,age,sex,localization",
        *rows,
    )
    for k in range(len(codes)):
        picture(folder / f"HAM10000_images_part_{1 + k % 2}" / f"ISIC_{k}.jpg")
        if k % 7 < 6:
            masks = folder / "HAM10000_segmentations_lesion_tschandl"
            picture(masks / f"ISIC_{k}_segmentation.png", LESION)


def isic2019(folder, times=1):
    codes = "MEL,NV,BCC,AK,BKL,DF,VASC,SCC,UNK"
    for phase, count, lesion in (("Training", 9 * times, "lesion_id,"), ("Test", times, "")):
        names = f"image,age_approx,anatom_site_general,{lesion}sex"
        ids = [f"ISIC_{phase[:2]}{k}" + "_downsampled" * (k == 1) for k in range(count)]
        hot = [",".join("1.0" if j == k % 9 else "0.0" for j in range(9)) for k in range(count)]
        write(
            folder / f"ISIC_2019_{phase}_GroundTruth.csv",
            f"image,{codes}",
            *(f"{name},{row}" for name, row in zip(ids, hot, strict=True)),
        )
        lesions = [f"BCN_{7 + k // 9}," if lesion else "" for k in range(count)]
        rows = [f"{ids[k]},55.0,anterior torso,{lesions[k]}male" for k in reversed(range(count))]
        write(folder / f"ISIC_2019_{phase}_Metadata.csv", names, *rows)
        for k, name in enumerate(ids):
            # The second is there under its name without the ending, as the archive has it.
            stem = name.removesuffix("_downsampled") if k == 1 else name
            picture(folder / f"ISIC_2019_{phase}_Input" / f"{stem}.jpg")


def isic2020(folder, times=1):
    words = (
        "unknown", "nevus", "melanoma", "seborrheic keratosis", "lentigo NOS",
        "lichenoid keratosis", "solar lentigo", "atypical melanocytic proliferation",
    ) * times  # fmt: skip
    rows = [f"ISIC_{k},IP_{k % 2 + k // 8 * 2},IL_{k},male,45.0,torso,{w},benign,0"
            for k, w in enumerate(words)]  # fmt: skip
    write(
        folder / "ISIC_2020_Training_GroundTruth_v2.csv",
        "image_name,patient_id,lesion_id,sex,age_approx,anatom_site_general_challenge,diagnosis,"
        "benign_malignant,target",
        *rows,
    )
    for k in range(len(words)):
        picture(folder / "train" / f"ISIC_{k}.JPG")


def ph2(folder, times=1):
    rule = "|| {} ||{:>24}||{:>19} ||          0 |              AT |              A || 3  4 ||"
    names = [f"IMD{k:03d}" for k in range(3 * times)]
    rows = [rule.format(name, "Melanoma" * (k % 3 == 2), k % 3) for k, name in enumerate(names)]
    head = (
        "||   Name || Histological Diagnosis || Clinical Diagnosis || Asymmetry | Pigment Network "
    )
    write(
        folder / "PH2Dataset/PH2_dataset.txt",
        head + "| Dots/Globules || Colors ||",
        *rows,
        "",
        "Legends:",
        "  0 - Common Nevus; 1 - Atypical Nevus; 2 - Melanoma",
    )
    for name in names:
        place = folder / f"PH2Dataset/PH2 Dataset images/{name}"
        picture(place / f"{name}_Dermoscopic_Image/{name}.bmp")
        picture(place / f"{name}_lesion/{name}_lesion.bmp", LESION)
        picture(place / f"{name}_roi/{name}_R1_Label5.bmp", LESION)


def bcn20000(folder, times=1):
    words = ("NV", "MEL", "BCC", "BKL", "AK", "SCC", "DF", "VASC") * times
    names = "bcn_filename,age_approx,anatom_site_general,diagnosis,lesion_id,capture_date,sex,split"
    rows = [f"BCN_{k}.jpg,55.0,torso,{w},BCN_L{k // 2},2012-05-16,male,train"
            for k, w in enumerate(words)]  # fmt: skip
    write(folder / "bcn_20k_train.csv", names, *rows)
    write(folder / "bcn_20k_test.csv", "bcn_filename", "BCN_900.jpg")
    for k in range(len(words)):
        picture(folder / "BCN_20k_train/bcn_20k_train" / f"BCN_{k}.jpg")
    picture(folder / "BCN_20k_test/bcn_20k_test/BCN_900.jpg")


def pad_ufes_20(folder, times=1):
    words = ("ACK", "BCC", "MEL", "NEV", "SCC", "SEK") * times
    rows = [f"PAT_{k // 2},{100 + k},False,{w},PAT_{k // 2}_{100 + k}_{k}.png,True"
            for k, w in enumerate(words)]  # fmt: skip
    write(folder / "metadata.csv", "patient_id,lesion_id,smoke,diagnostic,img_id,biopsed", *rows)
    for k in range(len(words)):
        picture(folder / f"images/imgs_part_{1 + k % 3}" / f"PAT_{k // 2}_{100 + k}_{k}.png")


MAKERS = {
    "ham10000": ham10000, "isic2019": isic2019, "isic2020": isic2020, "ph2": ph2,
    "bcn20000": bcn20000, "pad-ufes-20": pad_ufes_20,
}  # fmt: skip
# id, label, lesion, patient, split, whether there is a mask.
EXPECTED = {
    "ham10000": [
        ("ISIC_0", "AKIEC", "HAM_0", "", "", True), ("ISIC_1", "BCC", "HAM_0", "", "", True),
        ("ISIC_2", "BKL", "HAM_1", "", "", True), ("ISIC_3", "DF", "HAM_1", "", "", True),
        ("ISIC_4", "MEL", "HAM_2", "", "", True), ("ISIC_5", "NV", "HAM_2", "", "", True),
        ("ISIC_6", "VASC", "HAM_3", "", "", False),
    ],
    "isic2019": [
        ("ISIC_Tr0", "MEL", "BCN_7", "", "train", False),
        ("ISIC_Tr1_downsampled", "NV", "BCN_7", "", "train", False),
        ("ISIC_Tr2", "BCC", "BCN_7", "", "train", False),
        ("ISIC_Tr3", "AKIEC", "BCN_7", "", "train", False),
        ("ISIC_Tr4", "BKL", "BCN_7", "", "train", False),
        ("ISIC_Tr5", "DF", "BCN_7", "", "train", False),
        ("ISIC_Tr6", "VASC", "BCN_7", "", "train", False),
        ("ISIC_Te0", "MEL", "", "", "test", False),
    ],
    "isic2020": [
        ("ISIC_1", "NV", "IL_1", "IP_1", "", False), ("ISIC_2", "MEL", "IL_2", "IP_0", "", False),
        ("ISIC_3", "BKL", "IL_3", "IP_1", "", False), ("ISIC_5", "BKL", "IL_5", "IP_1", "", False),
        ("ISIC_6", "BKL", "IL_6", "IP_0", "", False),
    ],
    "ph2": [
        ("IMD000", "NV", "", "", "", True), ("IMD001", "NV", "", "", "", True),
        ("IMD002", "MEL", "", "", "", True),
    ],
    "bcn20000": [
        ("BCN_0", "NV", "BCN_L0", "", "train", False),
        ("BCN_1", "MEL", "BCN_L0", "", "train", False),
        ("BCN_2", "BCC", "BCN_L1", "", "train", False),
        ("BCN_3", "BKL", "BCN_L1", "", "train", False),
        ("BCN_4", "AKIEC", "BCN_L2", "", "train", False),
        ("BCN_6", "DF", "BCN_L3", "", "train", False),
        ("BCN_7", "VASC", "BCN_L3", "", "train", False),
    ],
    "pad-ufes-20": [
        ("PAT_0_100_0", "AKIEC", "100", "PAT_0", "", False),
        ("PAT_0_101_1", "BCC", "101", "PAT_0", "", False),
        ("PAT_1_102_2", "MEL", "102", "PAT_1", "", False),
        ("PAT_1_103_3", "NV", "103", "PAT_1", "", False),
        ("PAT_2_105_5", "BKL", "105", "PAT_2", "", False),
    ],
}  # fmt: skip
EXCLUDED = {
    "isic2019": ("ISIC_Tr7", "ISIC_Tr8"),
    "isic2020": ("ISIC_0", "ISIC_4", "ISIC_7"),
    "bcn20000": ("BCN_5", "BCN_900"),
    "pad-ufes-20": ("PAT_2_104_4",),
}
LOGGED = {
    "ham10000": "6 of 7 images have a mask",
    "isic2019": "2 of 10 images left out, their diagnosis has no class of ISIC 2018: SCC 1, UNK 1",
    "isic2020": "3 of 8 images left out, their diagnosis has no class of ISIC 2018: unknown 1, "
    "lentigo NOS 1, atypical melanocytic proliferation 1",
    "ph2": "3 image files are not in the table and not read",
    "bcn20000": "2 of 9 images left out, their diagnosis has no class of ISIC 2018: SCC 1, (none)",
    "pad-ufes-20": "clinical photographs taken with smartphones, not dermoscopic images",
}
