"""Decoding: whatever people keep in photo folders becomes upright RGB, or a reason why not."""

import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from data.photos import decode
from data.photos.decode import Unusable

MANY = 10_000_000


def corner_colours(picture):
    """A picture whose quarters are red, green / blue, white."""
    pixels = np.zeros((20, 30, 3), np.uint8)
    pixels[:10, :15], pixels[:10, 15:], pixels[10:, :15], pixels[10:, 15:] = (255, 0, 0), (0, 255, 0), (0, 0, 255), 255
    return pixels


def saved(tmp_path, picture, name, **options):
    path = tmp_path / name
    picture.save(path, **options)
    return path


def pixels_of(path):
    picture = decode.load(path, MANY)
    assert picture.mode == "RGB"
    return np.asarray(picture).astype(int)


QUARTERS = Image.fromarray(corner_colours(None))


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.tiff"])
def test_the_four_formats_give_the_same_picture(tmp_path, name):
    found = pixels_of(saved(tmp_path, QUARTERS, name))
    assert found.shape == (20, 30, 3)
    for row, column in ((4, 7), (4, 22), (14, 7), (14, 22)):  # middles of the quarters; JPEG and WebP are lossy
        assert np.abs(found[row, column] - corner_colours(None)[row, column]).max() < 40


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(tmp_path, orientation):
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # what turns an upright picture into the stored one
    stored = QUARTERS.transpose(Image.Transpose(undo[orientation])) if orientation > 1 else QUARTERS
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = pixels_of(saved(tmp_path, stored, "a.png", exif=exif))
    assert np.array_equal(found, corner_colours(None))


@pytest.mark.parametrize(
    ("picture", "expected"),
    [
        (Image.new("L", (20, 20), 100), (100, 100, 100)),
        (Image.new("1", (20, 20), 1), (255, 255, 255)),
        (Image.fromarray(np.full((20, 20), 257 * 100, np.uint16)), (100, 100, 100)),
        (Image.new("RGB", (20, 20), (10, 20, 30)).quantize(), (10, 20, 30)),
        (Image.new("RGBA", (20, 20), (255, 0, 0, 0)), (128, 128, 128)),
        (Image.new("RGBA", (20, 20), (255, 0, 0, 255)), (255, 0, 0)),
        (Image.new("LA", (20, 20), (200, 0)), (128, 128, 128)),
    ],
    ids=["grey", "bilevel", "16-bit grey", "palette", "transparent", "opaque", "transparent grey"],
)
def test_pixel_kinds_of_png_become_rgb(tmp_path, picture, expected):
    found = pixels_of(saved(tmp_path, picture, "a.png"))
    assert np.abs(found - expected).max() <= 3


def test_a_transparent_palette_colour_lies_on_middle_grey(tmp_path):
    picture = Image.new("P", (20, 20), 0)
    picture.putpalette([255, 0, 0, 0, 255, 0])
    found = pixels_of(saved(tmp_path, picture, "a.png", transparency=0))
    assert (found == decode.NEUTRAL).all()


def tiff(tmp_path, values, **tags):
    ifd = TiffImagePlugin.ImageFileDirectory_v2()
    for number, (kind, value) in tags.items():
        ifd.tagtype[int(number[1:])], ifd[int(number[1:])] = kind, value
    return saved(tmp_path, Image.fromarray(values), "a.tiff", tiffinfo=ifd)


FLOAT, SHORT = 11, 3  # types of TIFF's tags
RAMP = np.linspace(0, 1, 400, dtype=np.float32).reshape(20, 20)


@pytest.mark.parametrize(
    "values",
    [RAMP, np.where(RAMP == 1, np.float32(1.001), RAMP), np.where(RAMP == 0, np.float32(-0.2), RAMP), RAMP * 255],
    ids=["0 to 1", "a little more", "a little less", "0 to 255"],
)
def test_floats_are_read_from_0_to_1_or_to_255(tmp_path, values):
    assert np.abs(pixels_of(tiff(tmp_path, values))[..., 0] - RAMP * 255).max() <= 1


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (RAMP * 3, "floating-point values from 0 to 3 and does not say which is white"),
        (RAMP * 3000, "does not say which is white"),
        (np.where(RAMP < 0.995, RAMP, np.float32(40)), "does not say which is white"),
        (RAMP * 2 - 1, "those below black have no meaning"),
        (np.full((20, 20), np.nan, np.float32), "has 100% pixels that are no numbers"),
        (np.full((20, 20), np.inf, np.float32), "has 100% pixels that are no numbers"),
        ((RAMP * 60_000).astype(np.int32), "signed values"),
        ((RAMP * 60_000).astype(np.int16), "signed values"),
    ],
    ids=["dim radiance", "elevation", "highlights", "normals", "nan", "inf", "32-bit", "16-bit signed"],
)
def test_values_that_could_mean_several_things_are_not_guessed_at(tmp_path, values, reason):
    with pytest.raises(Unusable, match=reason):
        decode.load(tiff(tmp_path, values), MANY)


def test_a_dead_pixel_is_black(tmp_path):
    values = RAMP.copy()
    values[10, 10], values[12, 12] = np.nan, np.inf
    found = pixels_of(tiff(tmp_path, values))[..., 0]
    assert found[10, 10] == found[12, 12] == 0
    assert found[10, 11] > 100


def test_a_tiff_may_say_which_value_is_white(tmp_path):
    assert np.abs(pixels_of(tiff(tmp_path, RAMP * 3, t341=(FLOAT, 255.0)))[..., 0] - RAMP * 3).max() <= 1
    whole = (RAMP * 65_535).astype(np.uint32).astype(np.int32)
    unsigned = tiff(tmp_path, whole, t341=(FLOAT, 65_535.0))
    of_type = struct.pack("<HHIH", 339, SHORT, 1, 2)  # signed, says Pillow of all 32-bit pictures
    assert unsigned.read_bytes().count(of_type) == 1
    unsigned.write_bytes(unsigned.read_bytes().replace(of_type, struct.pack("<HHIH", 339, SHORT, 1, 1)))
    assert np.abs(pixels_of(unsigned)[..., 0] - RAMP * 255).max() <= 1


def test_where_white_is_zero_the_picture_is_turned_round(tmp_path):
    values = (RAMP * 65_535).astype(np.uint16)
    assert np.abs(pixels_of(tiff(tmp_path, values, t262=(SHORT, 0)))[..., 0] - (1 - RAMP) * 255).max() <= 1


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a HEIC picture"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "a HEIC picture"),
        (b"\0\0\0\x1cftypavif\0\0\0\0avifmif1", "an AVIF picture"),
        (b"\0\0\0\x1cftypisom\0\0\x02\0isomiso2", "a film"),
        (b"\xff\x0a" + bytes(30), "a JPEG XL picture"),
        (b"GIF89a" + bytes(30), "a GIF picture"),
        (b"8BPS" + bytes(30), "a Photoshop document"),
    ],
)
def test_what_is_known_but_not_read_is_named_whatever_its_name_says(tmp_path, start, kind):
    path = tmp_path / "IMG_0001.jpg"
    path.write_bytes(start)
    with pytest.raises(Unusable, match=f"^is {kind}; convert it to JPEG or PNG: it is not a JPEG, PNG, WebP or TIFF"):
        decode.load(path, MANY)


def test_cmyk_is_read_with_and_without_adobes_inversion(tmp_path):
    cyan = Image.new("CMYK", (32, 32), (255, 0, 0, 0))
    path = saved(tmp_path, cyan, "a.jpg", quality=95)
    adobe = path.read_bytes()
    start = adobe.index(b"\xff\xee")
    assert adobe[start + 4 : start + 9] == b"Adobe"
    plain = tmp_path / "plain.jpg"  # without the marker the same bytes mean the opposite inks
    plain.write_bytes(adobe[:start] + adobe[start + 2 + struct.unpack(">H", adobe[start + 2 : start + 4])[0] :])
    assert np.abs(pixels_of(path) - (0, 255, 255)).max() < 12
    assert np.abs(pixels_of(plain) - pixels_of(saved(tmp_path, cyan, "a.tiff"))).max() > 100


def test_only_the_first_frame_of_several_is_taken(tmp_path):
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    found = pixels_of(saved(tmp_path, frames[0], "a.webp", save_all=True, append_images=frames[1:], lossless=True))
    assert np.abs(found - (255, 0, 0)).max() < 3


def huge_png(side):
    """A PNG of a few bytes whose header promises side x side pixels."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"just some words", "is not a JPEG, PNG, WebP or TIFF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "is not a JPEG, PNG, WebP or TIFF"),
        (b"\x89PNG\r\n\x1a\n", "is not a JPEG|broken header|cannot be"),
        (huge_png(5_000), "has 5000 x 5000 pixels, more than 10000000"),
        (huge_png(200_000), "has 200000 x 200000 pixels, more than 10000000"),
    ],
    ids=["empty", "text", "postscript", "bare signature", "large", "bomb"],
)
def test_what_cannot_be_used_says_why(tmp_path, content, reason):
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    with pytest.raises(Unusable, match=reason):
        decode.load(path, MANY)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.tiff"])
def test_truncated_files_are_found_out(tmp_path, name):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    path = saved(tmp_path, noise, name)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(Unusable):
        decode.load(path, MANY)


def test_pipes_folders_and_dangling_links_do_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "link.jpg").symlink_to(tmp_path / "nowhere")
    for name, reason in (("pipe.jpg", "not a regular file"), ("link.jpg", "cannot be opened"), (".", "not a regular")):
        with pytest.raises(Unusable, match=reason):
            decode.load(tmp_path / name, MANY)


def test_a_larger_limit_than_pillows_own_is_honoured(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(huge_png(20_000))
    assert decode.size_of(path, 20_000**2) == (20_000, 20_000)


def test_random_bytes_behind_a_valid_start_never_raise_anything_else(tmp_path):
    rng = np.random.default_rng(1)
    for name in ("a.png", "a.jpg", "a.webp", "a.tiff"):
        good = saved(tmp_path, QUARTERS, name).read_bytes()
        for _ in range(40):
            broken = bytearray(good)
            for place in rng.integers(4, len(good), 6):
                broken[place] = rng.integers(256)
            path = tmp_path / "broken"
            path.write_bytes(bytes(broken))
            try:
                decode.size_of(path, MANY)
                decode.load(path, MANY)
            except Unusable:
                pass
