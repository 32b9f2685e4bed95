"""Decoding whatever people keep in photo folders into plain 8-bit RGB, or a reason why not.

Only JPEG, PNG, WebP and TIFF are tried (other Pillow plug-ins start programs or are rarely fuzzed), and the
pixel count is read from the header and checked before anything is decompressed. Of a file with several
frames or pages the first is taken. Embedded colour profiles are ignored: values are read as sRGB. Grey values of more
than eight bits are read by their type and what the file says of it (`data.photos.deep`).
"""

from __future__ import annotations

import stat
import warnings
from pathlib import Path

from PIL import Image, ImageChops

from data.photos import deep

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF")  # JPEG includes MPO, what phones call two JPEGs in one file
Image.MAX_IMAGE_PIXELS = None  # Pillow's own limit would refuse what a larger `max_pixels` allows
NEUTRAL = 128  # transparent pixels show middle grey: neither white nor black edges where there were none
SIGNATURES = {  # first bytes of what people also keep in photo folders, `?` for any, and what it is
    b"????ftyphe": "a HEIC picture",  # of iPhones
    b"????ftypmif1": "a HEIC picture",
    b"????ftypmsf1": "a HEIC picture",
    b"????ftypavi": "an AVIF picture",
    b"????ftypcrx": "a CR3 raw picture",
    b"????ftyp": "a film",
    b"\xff\x0a": "a JPEG XL picture",
    b"\0\0\0\x0cJXL ": "a JPEG XL picture",
    b"\0\0\0\x0cjP  ": "a JPEG 2000 picture",
    b"GIF8": "a GIF picture",
    b"BM": "a BMP picture",
    b"8BPS": "a Photoshop document",
    b"%PDF": "a PDF document",
    b"PK\x03\x04": "a ZIP archive",
}
TURNS = {  # EXIF orientation to what makes the picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class Unusable(Exception):
    """Why a file cannot be used, in a few words without its name."""


def size_of(path: Path, max_pixels: int) -> tuple[int, int]:
    """Width and height as stored (before any rotation), from the header alone. Raises Unusable."""
    with _open(path, max_pixels) as picture:
        return picture.size


def load(path: Path, max_pixels: int) -> Image.Image:
    """The photograph upright as 8-bit RGB. Raises Unusable with the reason."""
    with _open(path, max_pixels) as picture, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd metadata; pixels that cannot be had raise
        try:
            picture.load()
            upright = TURNS.get(_orientation(picture))
            rgb = to_rgb(picture)
            return rgb if upright is None else rgb.transpose(upright)
        except deep.Ambiguous as error:
            raise Unusable(str(error)) from None
        except Exception as error:  # decoders raise anything from struct.error to SyntaxError on broken bytes
            raise Unusable(f"cannot be decoded: {_first_line(error)}") from None


def to_rgb(picture: Image.Image) -> Image.Image:
    """8-bit RGB from grey, palette, 16-bit, float, CMYK, YCbCr or Lab pixels; alpha lies on middle grey.

    deep.Ambiguous where the file does not say what its values mean.
    """
    if picture.mode.startswith("I") or picture.mode == "F":
        return deep.grey(picture).convert("RGB")
    if picture.mode == "CMYK" and picture.format in ("JPEG", "MPO") and "adobe" not in picture.info:
        # Pillow takes every CMYK JPEG for one of Adobe's, whose inks are stored inverted; this one says it is not.
        return ImageChops.invert(picture).convert("RGB")
    if picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        rgba = picture.convert("RGBA")
        ground = Image.new("RGBA", rgba.size, (NEUTRAL, NEUTRAL, NEUTRAL, 255))
        return Image.alpha_composite(ground, rgba).convert("RGB")
    return picture.convert("RGB")


def _open(path: Path, max_pixels: int) -> Image.Image:
    try:
        about = path.stat()
    except OSError as error:
        raise Unusable(f"cannot be opened: {error.strerror}") from None
    if not stat.S_ISREG(about.st_mode):
        raise Unusable("is not a regular file")  # opening a pipe would wait for ever
    if about.st_size == 0:
        raise Unusable("is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata
            picture = Image.open(path, formats=FORMATS)
    except Image.UnidentifiedImageError:
        known = _kind(path)
        said = f"is {known}; convert it to JPEG or PNG: it " if known else ""
        raise Unusable(f"{said}is not a JPEG, PNG, WebP or TIFF picture that can be read") from None
    except OSError as error:
        raise Unusable(f"cannot be opened: {error.strerror or _first_line(error)}") from None
    except Exception as error:  # header parsers raise anything on broken bytes
        raise Unusable(f"has a broken header: {_first_line(error)}") from None
    width, height = picture.size
    if width * height > max_pixels:
        picture.close()
        raise Unusable(f"has {width} x {height} pixels, more than {max_pixels}")
    return picture


def _kind(path: Path) -> str | None:
    """What a file is by its first bytes, if that is known."""
    with path.open("rb") as file:
        start = file.read(max(map(len, SIGNATURES)))
    for signature, kind in SIGNATURES.items():
        if len(start) >= len(signature) and all(s in (ord("?"), b) for s, b in zip(signature, start, strict=False)):
            return kind
    return None


def _orientation(picture: Image.Image) -> int:
    try:
        return int(picture.getexif().get(0x0112, 1))
    except Exception:  # a broken EXIF block: the photograph itself may be fine
        return 1


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
