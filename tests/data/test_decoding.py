"""The kinds of files that photographs come in: depths, colors, profiles, pages, damages."""

import io

import numpy as np
import pytest
from PIL import Image, ImageCms

from didgen.data.images import ImageError, decode_image, fit_image, fit_mask, read_image, read_mask

RNG = np.random.default_rng(0)
DEEP = RNG.integers(0, 65536, (6, 7, 3)).astype(np.uint16)


def encoded(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def photograph(height, width):
    """A smooth picture with an edge, as a photograph is."""
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    lesion = (y - 0.4) ** 2 + (x - 0.45) ** 2 < 0.04
    bands = [120 + 90 * np.sin(5 * y + k) * np.cos(4 * x) - 40 * lesion for k in range(3)]
    return Image.fromarray(np.dstack(bands).clip(0, 255).astype(np.uint8))


def with_exif(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def tiff(array, **options):
    tifffile = pytest.importorskip("tifffile")
    stream = io.BytesIO()
    tifffile.imwrite(stream, array, **options)
    return stream.getvalue()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_gives_the_upright_picture(tmp_path, orientation):
    upright = np.array([[10, 20, 30], [40, 50, 60]], np.uint8)
    # What a camera held so would store: the inverse of what a viewer must do.
    stored = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1],
        5: upright.T, 6: np.rot90(upright), 7: np.rot90(upright, 2).T, 8: np.rot90(upright, -1),
    }[orientation]  # fmt: skip
    path = tmp_path / "i.png"
    Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=with_exif(orientation))
    found = decode_image(path)
    np.testing.assert_array_equal(found.pixels[..., 0], upright)
    assert found.shape == (2, 3)
    assert found.changes == (("turned as EXIF says",) if orientation > 1 else ())


def test_the_upper_eight_of_sixteen_bits_are_kept(tmp_path):
    Image.fromarray(DEEP[..., 0]).save(tmp_path / "gray.png")
    Image.fromarray(DEEP[..., 0]).save(tmp_path / "gray.tif")
    for name in ("gray.png", "gray.tif"):
        found = decode_image(tmp_path / name)
        np.testing.assert_array_equal(found.pixels[..., 2], DEEP[..., 0] >> 8)
        assert found.changes == ("16 bits a channel reduced to 8",)
    white = Image.fromarray(np.array([[65535, 0]], np.uint16))
    pixels = read_image("white.png", io.BytesIO(encoded(white, "PNG")))
    assert pixels[0, :, 0].tolist() == [255, 0]


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"byteorder": ">"}])
def test_sixteen_bit_color_tiff_follows_the_same_rule(options):
    found = decode_image("c.tif", io.BytesIO(tiff(DEEP, photometric="rgb", **options)))
    np.testing.assert_array_equal(found.pixels, DEEP >> 8)
    assert found.changes == ("16 bits a channel reduced to 8",)


def test_twelve_bits_in_sixteen_are_refused_rather_than_shown_black():
    dim = Image.fromarray((DEEP[..., 0] >> 4).astype(np.uint16))
    with pytest.raises(ImageError, match="at most a sixteenth of the range .* 8, 10 or 12 bits"):
        read_image("dim.png", io.BytesIO(encoded(dim, "PNG")))


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (lambda: tiff(np.ones((4, 4), np.float32)), "f.tif", "found F pixels, expected 8 or 16"),
        (lambda: tiff(np.ones((4, 4), np.int32)), "i.tif", "found I pixels, expected 8 or 16"),
        (lambda: tiff(DEEP, planarconfig="separate", photometric="rgb"), "p.tif", "8-bit PNG"),
        (lambda: b"", "a.png", r"a\.png: is empty \(0 bytes\)"),
        (lambda: b"\x89PNG", "a.png", "cannot be read as an image: found none of JPEG, PNG"),
        (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n", "a.eps", "cannot be read as an image: found none"),
        (lambda: bytes(128) + b"DICM" + bytes(9), "a", "found a DICOM file.*convert .*dcmj2pnm"),
        (lambda: b"no preamble", "a.DCM", "found a DICOM file.*names the patient"),
    ],
)
def test_files_that_are_refused_say_what_to_do(content, name, message):
    with pytest.raises(ImageError, match=message):
        read_image(name, io.BytesIO(content()))


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "PNG", "WEBP"])
def test_several_pages_or_frames_are_refused(kind):
    pages = [Image.new("RGB", (4, 4), (40 * i, 0, 0)) for i in range(3)]
    content = encoded(pages[0], kind, save_all=True, append_images=pages[1:])
    with pytest.raises(ImageError, match="found 3 pages or frames, expected one photograph"):
        read_image(f"a.{kind.lower()}", io.BytesIO(content))


def test_of_a_multi_picture_jpeg_the_photograph_is_taken():
    photo, gain_map = photograph(64, 96), Image.new("RGB", (24, 16))
    content = encoded(photo, "MPO", save_all=True, append_images=[gain_map])
    found = decode_image("phone.jpg", io.BytesIO(content))
    assert found.pixels.shape == (64, 96, 3)
    assert found.changes == ("first picture of a multi-picture JPEG taken",)


def test_palette_and_gray_transparency_is_laid_on_white():
    palette = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    palette.putpalette([10, 20, 30, 40, 50, 60])
    for image in (palette, Image.fromarray(np.array([[0, 1]], np.uint8))):
        found = decode_image("p.png", io.BytesIO(encoded(image, "PNG", transparency=0)))
        assert found.pixels[0, 0].tolist() == [255, 255, 255]
        assert found.pixels[0, 1, 0] == (40 if image is palette else 1)
        assert found.changes == ("transparency laid on white",)


def test_half_clear_pixels_mix_with_white():
    content = encoded(Image.new("RGBA", (2, 2), (0, 100, 200, 128)), "PNG")
    assert np.abs(read_image("h.png", io.BytesIO(content))[0, 0] - [127, 177, 227]).max() <= 1


def test_cmyk_is_converted_and_said():
    found = decode_image("c.jpg", io.BytesIO(encoded(Image.new("CMYK", (8, 8)), "JPEG")))
    assert (found.pixels == 255).all() and found.changes == ("CMYK converted to RGB",)


def profile(kind):
    return ImageCms.ImageCmsProfile(ImageCms.createProfile(kind)).tobytes()


def swapped_primaries():
    """An sRGB profile with red and blue exchanged, under another name: its effect is known."""
    content = bytearray(profile("sRGB"))
    red, blue = content.index(b"rXYZ"), content.index(b"bXYZ")
    content[red : red + 4], content[blue : blue + 4] = b"bXYZ", b"rXYZ"
    return bytes(content).replace(b"s\0R\0G\0B", b"o\0t\0h\0e").replace(b"sRGB", b"othe")


def test_a_color_profile_is_converted_to_srgb():
    image = Image.new("RGB", (4, 4), (200, 30, 90))
    content = encoded(image, "PNG", icc_profile=swapped_primaries())
    found = decode_image("i.png", io.BytesIO(content))
    assert np.abs(found.pixels[0, 0].astype(int) - [90, 30, 200]).max() <= 1
    assert found.changes == ("color profile converted to sRGB",)
    clear = Image.new("RGBA", (4, 4), (200, 30, 90, 0))
    content = encoded(clear, "PNG", icc_profile=swapped_primaries())
    assert (read_image("clear.png", io.BytesIO(content)) == 255).all()


@pytest.mark.parametrize(
    ("mode", "content", "changes"),
    [
        ("RGB", profile("sRGB"), ()),
        ("RGB", b"not a profile", ("unusable color profile ignored",)),
        ("L", profile("sRGB"), ("unusable color profile ignored",)),
        ("P", swapped_primaries(), ("color profile converted to sRGB",)),
    ],
)
def test_profiles_that_change_nothing_or_cannot_be_used(mode, content, changes):
    image = Image.new("RGB", (3, 3), (90, 90, 90))
    image = image.quantize(2) if mode == "P" else image.convert(mode)
    found = decode_image("i.png", io.BytesIO(encoded(image, "PNG", icc_profile=content)))
    assert found.changes == changes
    assert np.abs(found.pixels.astype(int) - 90).max() <= 1


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "BMP", "GIF", "WEBP"])
def test_no_damage_escapes_as_another_error(kind):
    whole = encoded(photograph(48, 40), kind)
    rng = np.random.default_rng(1)
    for _ in range(60):
        broken = bytearray(whole)
        for place in rng.integers(0, min(len(broken), 600), 4):
            broken[place] = rng.integers(256)
        broken = broken[: rng.integers(1, len(broken) + 1)]
        try:
            assert read_image("x", io.BytesIO(bytes(broken))).shape[2] == 3
        except ImageError as error:
            assert str(error).startswith("x: ")


def test_a_huge_text_chunk_is_refused():
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("bomb", "0" * 3_000_000, zip=True)
    content = encoded(Image.new("RGB", (2, 2)), "PNG", pnginfo=info)
    with pytest.raises(ImageError, match=r"bomb\.png: cannot be read as an image"):
        read_image("bomb.png", io.BytesIO(content))


def test_a_mask_turned_otherwise_than_its_image_is_told_from_a_wrong_size():
    content = encoded(Image.fromarray(np.eye(4, 6, dtype=np.uint8) * 255), "PNG")
    with pytest.raises(ImageError, match=r"6x4 pixels, expected 4x6 .*turn it, as the image's EX"):
        read_mask("m.png", (6, 4), io.BytesIO(content))
    with pytest.raises(ImageError, match=r"6x4 pixels, expected 9x9 .*nearest neighbour"):
        read_mask("m.png", (9, 9), io.BytesIO(content))


@pytest.mark.parametrize(
    ("size", "at_least", "decoded"),
    [
        ((800, 600), 64, (75, 100)),
        ((800, 600), 76, (150, 200)),
        ((800, 600), 301, (600, 800)),
        ((803, 601), 300, (301, 402)),
        ((60, 50), 64, (50, 60)),
    ],
)
def test_a_jpeg_is_decoded_at_the_smallest_size_that_suffices(size, at_least, decoded):
    content = encoded(photograph(size[1], size[0]), "JPEG")
    found = decode_image("i.jpg", io.BytesIO(content), at_least)
    assert found.pixels.shape[:2] == decoded
    assert found.shape == size[::-1]


def test_only_jpeg_is_decoded_smaller_and_turning_keeps_the_full_shape():
    content = encoded(photograph(60, 80), "PNG")
    assert read_image("i.png", io.BytesIO(content), at_least=8).shape == (60, 80, 3)
    content = encoded(photograph(60, 80), "JPEG", exif=with_exif(6))
    found = decode_image("i.jpg", io.BytesIO(content), at_least=16)
    assert found.pixels.shape[:2] == (40, 30) and found.shape == (80, 60)


@pytest.mark.parametrize("fit", ["crop", "pad", "squash"])
@pytest.mark.parametrize("shape", [(403, 605), (601, 402), (512, 512)])
def test_a_reduced_image_fits_as_the_full_one_does(fit, shape):
    content = encoded(photograph(*shape), "JPEG", quality=95)
    full = fit_image(read_image("i.jpg", io.BytesIO(content)), 64, fit)
    found = decode_image("i.jpg", io.BytesIO(content), at_least=128)
    assert max(found.pixels.shape) < max(shape) and found.shape == shape
    reduced = fit_image(found.pixels, 64, fit, found.shape)
    difference = np.abs(full.astype(int) - reduced.astype(int))
    assert difference.mean() < 0.6
    # Where the padding begins, full and reduced blend the same px with black a little differently.
    assert np.percentile(difference, 96) <= 6


@pytest.mark.parametrize("fit", ["crop", "pad", "squash"])
def test_a_mask_stays_on_its_lesion_when_the_image_is_reduced(fit):
    lesion = np.zeros((401, 603), np.uint8)
    lesion[101:301, 151:401] = 255
    content = encoded(Image.fromarray(lesion), "JPEG", quality=95)
    found = decode_image("i.jpg", io.BytesIO(content), at_least=100)
    assert found.pixels.shape[:2] == (101, 151)
    image = fit_image(found.pixels, 50, fit, found.shape)[..., 0]
    mask = fit_mask(lesion > 0, 50, fit)
    # They may differ on the outline alone, whose px are partly lesion.
    unsure = (image > 64) & (image < 192)
    assert ((image >= 192) == mask)[~unsure].all()
    assert unsure.mean() < 0.08
