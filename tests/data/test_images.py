import io
import zlib
from zipfile import BadZipFile

import numpy as np
import pytest
from PIL import Image

from didgen.data.images import ImageError, fit_image, fit_mask, read_image, read_mask


def save(path, array, **options):
    Image.fromarray(np.asarray(array, dtype=np.uint8)).save(path, **options)
    return path


def test_exif_orientation_is_honoured(tmp_path):
    image = Image.fromarray(np.zeros((4, 8, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert read_image(tmp_path / "turned.jpg").shape == (8, 4, 3)


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "RGBA", "LA", "1"])
def test_every_common_mode_becomes_rgb(tmp_path, mode):
    suffix = "tif" if mode == "CMYK" else "png"
    Image.new("RGB", (6, 5), (255, 255, 255)).convert(mode).save(tmp_path / f"i.{suffix}")
    pixels = read_image(tmp_path / f"i.{suffix}")
    assert pixels.shape == (5, 6, 3) and pixels.dtype == np.uint8
    assert pixels.min() >= 250


def test_transparency_is_laid_on_white(tmp_path):
    Image.new("RGBA", (3, 3), (10, 20, 30, 0)).save(tmp_path / "clear.png")
    assert (read_image(tmp_path / "clear.png") == 255).all()


def test_unusable_images_say_what_to_do(tmp_path):
    (tmp_path / "no.jpg").write_text("not an image")
    with pytest.raises(ImageError, match="cannot be read as an image"):
        read_image(tmp_path / "no.jpg")
    with pytest.raises(ImageError, match="no such file"):
        read_image(tmp_path / "absent.jpg")
    whole = save(tmp_path / "w.png", np.random.default_rng(0).integers(0, 255, (64, 64, 3)))
    (tmp_path / "cut.png").write_bytes(whole.read_bytes()[:3000])
    with pytest.raises(ImageError, match="cannot be read"):
        read_image(tmp_path / "cut.png")
    (tmp_path / "void.jpg").write_bytes(b"")
    with pytest.raises(ImageError, match=r"void\.jpg: is empty \(0 bytes\); replace"):
        read_image(tmp_path / "void.jpg")


def test_too_many_pixels_name_the_file(tmp_path, monkeypatch):
    path = save(tmp_path / "big.png", np.zeros((40, 40, 3)))
    with monkeypatch.context() as patch:
        patch.setattr(Image, "MAX_IMAGE_PIXELS", 400)
        with pytest.raises(ImageError, match=r"big\.png: found more pixels .*1600 pixels"):
            read_image(path)


@pytest.mark.parametrize("error", [zlib.error("bad"), BadZipFile("Bad CRC-32"), EOFError("cut")])
def test_faults_of_a_stream_name_the_file(error):
    class Broken(io.BytesIO):
        def read(self, *_):
            raise error

    with pytest.raises(ImageError, match=r"a\.zip/b\.jpg: cannot be read as an image"):
        read_image("a.zip/b.jpg", Broken())


def test_masks_of_0_and_255_or_0_and_1_are_read(tmp_path):
    expected = np.eye(4, dtype=bool)
    for high in (1, 255):
        found = read_mask(save(tmp_path / "m.png", expected * high), (4, 4))
        np.testing.assert_array_equal(found, expected)


def test_a_mask_may_have_an_alpha_channel_only_if_it_is_opaque(tmp_path):
    lesion = np.eye(4, dtype=np.uint8) * 255
    opaque = np.dstack([lesion, lesion, lesion, np.full((4, 4), 255)])
    found = read_mask(save(tmp_path / "m.png", opaque), (4, 4))
    np.testing.assert_array_equal(found, lesion > 0)
    message = "found an image with transparency, expected a gray mask of 0 and 255"
    with pytest.raises(ImageError, match=message):
        read_mask(save(tmp_path / "m.png", np.dstack([lesion] * 4)), (4, 4))
    # A gray value that counts as clear is transparency too.
    with pytest.raises(ImageError, match=message):
        read_mask(save(tmp_path / "m.png", lesion, transparency=0), (4, 4))


@pytest.mark.parametrize(
    ("pixels", "shape", "message"),
    [
        (np.eye(4) * 255, (4, 5), r"found a mask of 4x4 pixels, expected 5x4"),
        (np.arange(16).reshape(4, 4), (4, 4), r"not binary: found 16 gray values"),
        (np.zeros((4, 4)), (4, 4), r"empty \(no lesion pixel\)"),
        (np.dstack([np.eye(4) * 255, np.zeros((4, 4)), np.zeros((4, 4))]), (4, 4), "color image"),
    ],
)
def test_bad_masks_are_refused(tmp_path, pixels, shape, message):
    with pytest.raises(ImageError, match=message):
        read_mask(save(tmp_path / "m.png", pixels), shape)


def test_crop_keeps_the_center_pad_keeps_all_squash_keeps_nothing_out():
    image = np.zeros((4, 8, 3), np.uint8)
    image[:, 2:6] = 200
    assert (fit_image(image, 4, "crop") == 200).all()
    padded = fit_image(image, 8, "pad")
    assert padded.shape == (8, 8, 3) and (padded[:2] == 0).all() and (padded[2:6, 2:6] == 200).all()
    mask = image[..., 0] > 0
    assert fit_mask(mask, 4, "crop").all()
    assert fit_mask(mask, 8, "pad").sum() == 16
    assert fit_mask(mask, 8, "squash").mean() == 0.5


def test_an_image_of_the_right_size_is_untouched():
    image = np.random.default_rng(0).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    assert fit_image(image, 8, "crop") is image
