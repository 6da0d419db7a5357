"""Photos as people really have them: every format and mode, and every way for a file to be broken."""

from __future__ import annotations

import builtins
import hashlib
import io
import os
import pickle
import struct
import tempfile
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from stamina_diffusion import photo_decoding
from stamina_diffusion.errors import NameTakenError, PhotoError, StaminaError, nearest
from stamina_diffusion.photos import Examination, Finding, Photo, collect, examine

RED, BLUE = (220, 30, 30), (30, 30, 220)


def noise(width: int = 96, height: int = 96, *, seed: int = 0) -> Image.Image:
    """A colourful picture with no two seeds alike: coarse blocks under fine grain."""
    rng = np.random.default_rng(seed)
    blocks = Image.fromarray(rng.integers(30, 225, (6, 6, 3), dtype=np.uint8))
    coarse = np.asarray(blocks.resize((width, height), Image.Resampling.NEAREST), dtype=np.int16)
    grain = rng.integers(-25, 26, (height, width, 3))
    return Image.fromarray((coarse + grain).clip(0, 255).astype(np.uint8))


def save(path: Path, image: Image.Image | None = None, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    (noise(seed=len(path.name)) if image is None else image).save(path, **options)
    return path


def codes(examination: Examination) -> list[str]:
    return [finding.code for finding in examination.findings]


def only(path: Path, **options: int) -> Photo:
    """The single photo of a file that has no errors."""
    examination = examine(path, **options)
    assert examination.errors == ()
    (photo,) = examination.photos
    return photo


def refused(path: Path) -> Finding:
    """The single error of a file that cannot be used; its words say what and how to mend it."""
    examination = examine(path)
    assert examination.photos == ()
    (error,) = examination.errors
    assert error.path == path
    assert error.what
    assert error.do.endswith(".")
    return error


def pixels(photo: Photo, resolution: int = 16) -> np.ndarray:
    image = photo.load(resolution)
    assert (image.mode, image.size) == ("RGB", (resolution, resolution))
    return np.asarray(image).astype(int)


def png_header(width: int, height: int) -> bytes:
    """A PNG that announces a size and holds next to nothing."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = chunk(b"IDAT", zlib.compress(b"\0" * 100))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + rows + chunk(b"IEND", b"")


# ---- formats and modes


@pytest.mark.parametrize("name", ["a.jpg", "a.JPEG", "a.png", "a.WebP", "a.bmp", "a.tif", "a.TIFF", "a.jfif"])
def test_every_format_is_read_whatever_the_case_of_its_suffix(tmp_path, name):
    path = save(tmp_path / name, Image.new("RGB", (40, 30), RED))
    photo = only(tmp_path)
    assert photo.path == path
    assert photo.size == (40, 30)
    assert photo.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert np.abs(pixels(photo) - RED).max() <= 6


def test_content_decides_and_not_the_name(tmp_path):
    noise().save(tmp_path / "really_png.jpg", format="PNG")
    noise().save(tmp_path / "no_suffix", format="JPEG")
    assert only(tmp_path / "really_png.jpg").size == (96, 96)
    assert only(tmp_path / "no_suffix").size == (96, 96)


def test_exif_orientation_turns_the_pixels(tmp_path):
    stored = Image.new("RGB", (60, 30), BLUE)
    stored.paste(RED, (0, 0, 30, 30))  # red is at the left as stored; orientation 6 brings the left to the top
    exif = Image.Exif()
    exif[0x0112] = 6
    photo = only(save(tmp_path / "turned.png", stored, exif=exif))
    assert photo.size == (30, 60)
    seen = pixels(photo)
    assert (seen[:4] == RED).all()
    assert (seen[-4:] == BLUE).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_orientations_agree_with_pillow(tmp_path, orientation):
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "a.png", noise(48, 48), exif=exif)
    with Image.open(path) as image:
        upright = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    assert (pixels(only(path), 48) == upright).all()


def test_damaged_exif_does_not_cost_the_photo(tmp_path):
    path = save(tmp_path / "a.jpg", Image.new("RGB", (64, 64), RED), exif=b"Exif\0\0II*\0\xff\xff\xff\xff garbage")
    assert np.abs(pixels(only(path)) - RED).max() <= 6


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path, suffix):
    ramp = np.tile(np.linspace(0, 65535, 64).astype(np.uint16), (64, 1))
    path = save(tmp_path / f"deep{suffix}", Image.fromarray(ramp))
    with Image.open(path) as image:
        assert image.mode.startswith("I;16")
    seen = pixels(only(path), 64)
    assert (seen == np.rint(ramp / 257)[:, :, None]).all()  # 65535 / 257 = 255


def test_big_endian_sixteen_bits(tmp_path):
    ramp = np.tile(np.linspace(0, 65535, 64).astype(">u2"), (64, 1))
    path = save(tmp_path / "deep.tif", Image.frombytes("I;16B", (64, 64), ramp.tobytes()))
    assert (pixels(only(path), 64)[:, :, 0] == np.rint(ramp / 257)).all()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.float32([0.0, 0.5, 1.0]), [0, 128, 255]),
        (np.float32([0.0, 100.0, 255.0]), [0, 100, 255]),
        (np.float32([-1.0, 0.0, 1.0]), [0, 128, 255]),
        (np.float32([0.0, np.nan, 1.0]), [0, 0, 255]),
        (np.float32([7.0e8, 7.0e8, 7.0e8]), [0, 0, 0]),  # flat and of no known range: no division by zero
        (np.int32([0, 100, 255]), [0, 100, 255]),
        (np.int32([0, 25700, 65535]), [0, 100, 255]),
        (np.int32([-100, 0, 100]), [0, 128, 255]),
    ],
)
def test_floats_and_long_integers(tmp_path, values, expected):
    picture = np.repeat(np.repeat(values, 32)[None], 96, axis=0)
    path = save(tmp_path / "a.tif", Image.fromarray(picture))
    with Image.open(path) as image:
        assert image.mode in ("F", "I")
    seen = pixels(only(path), 96)
    assert seen[48, [16, 48, 80], 0].tolist() == expected


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("RGBA", (255, 0, 0, 255), (255, 0, 0)),
        ("RGBA", (255, 0, 0, 0), (255, 255, 255)),
        ("RGBA", (255, 0, 0, 51), (255, 204, 204)),  # one fifth of red over white
        ("LA", (0, 51), (204, 204, 204)),
        ("L", 77, (77, 77, 77)),
        ("1", 1, (255, 255, 255)),
    ],
)
def test_transparency_lies_over_white(tmp_path, mode, colour, expected):
    photo = only(save(tmp_path / "a.png", Image.new(mode, (40, 40), colour)))
    assert np.abs(pixels(photo) - expected).max() <= 1


def test_palettes_with_and_without_transparency(tmp_path):
    palette = Image.new("P", (40, 40), 0)
    palette.putpalette([*RED, *BLUE])
    palette.paste(1, (20, 0, 40, 40))
    solid = pixels(only(save(tmp_path / "solid.png", palette)), 40)
    single = pixels(only(save(tmp_path / "single.png", palette, transparency=1)), 40)
    several = pixels(only(save(tmp_path / "several.png", palette, transparency=bytes([0, 255]))), 40)
    assert solid[20, [5, 35]].tolist() == [[*RED], [*BLUE]]
    assert single[20, [5, 35]].tolist() == [[*RED], [255, 255, 255]]
    assert several[20, [5, 35]].tolist() == [[255, 255, 255], [*BLUE]]


def test_a_transparent_colour_without_alpha(tmp_path):
    image = Image.new("RGB", (40, 40), RED)
    image.paste(BLUE, (20, 0, 40, 40))
    seen = pixels(only(save(tmp_path / "a.png", image, transparency=BLUE)), 40)
    assert seen[20, [5, 35]].tolist() == [[*RED], [255, 255, 255]]


@pytest.mark.parametrize(("name", "mode"), [("a.jpg", "CMYK"), ("a.tif", "CMYK")])
def test_colours_for_print(tmp_path, name, mode):
    path = save(tmp_path / name, Image.new("RGB", (64, 64), RED).convert(mode))
    with Image.open(path) as image:
        assert image.mode == mode
    assert np.abs(pixels(only(path)) - RED).max() <= 6


def test_lab_is_read_as_colour(tmp_path):
    seen = pixels(only(save(tmp_path / "a.tif", Image.new("LAB", (64, 64), (128, 128, 128)))))
    assert np.abs(seen - 119).max() <= 4  # lightness 50 without colour is the grey 119 of sRGB


def test_colours_without_a_way_to_rgb_are_an_error_and_not_a_crash(tmp_path, monkeypatch):
    def no_way(_: Image.Image) -> None:
        raise ValueError("conversion not supported")

    path = save(tmp_path / "a.png")
    monkeypatch.setattr(photo_decoding, "_rgb", no_way)
    error = refused(path)
    assert error.code == "unreadable"
    assert "mode RGB" in error.what


def test_the_middle_square_is_used(tmp_path):
    wide = Image.new("RGB", (90, 30), BLUE)
    wide.paste(RED, (30, 0, 60, 30))
    tall = wide.transpose(Image.Transpose.ROTATE_90)
    assert (pixels(only(save(tmp_path / "wide.png", wide))) == RED).all()
    assert (pixels(only(save(tmp_path / "tall.png", tall))) == RED).all()


# ---- broken and hostile files


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.bmp", "a.tif"])
def test_a_truncated_file_is_an_error(tmp_path, name):
    path = save(tmp_path / name)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    assert refused(path).code == "truncated"


@pytest.mark.parametrize(
    ("content", "code", "word"),
    [
        (b"", "unreadable", "empty"),
        (b"only words", "unreadable", "not a picture"),
        (b"<!DOCTYPE html><title>404</title>", "unreadable", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "unreadable", "Git LFS"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "unsupported", "HEIC"),
        (b"\0\0\0\x18ftypavif\0\0\0\0", "unsupported", "AVIF"),
        (b"GIF89a\1\0\1\0", "unsupported", "GIF"),
        (b'<?xml version="1.0"?><svg/>', "unsupported", "SVG"),
        (b"\xff\xd8\xff\xe0", "truncated", "cut off"),
    ],
)
def test_what_is_not_a_photo_is_called_what_it_is(tmp_path, content, code, word):
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    error = refused(path)
    assert error.code == code
    assert word in error.what


def test_a_file_given_by_name_that_is_no_picture(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("words")
    assert refused(path).code == "not-an-image"


@pytest.mark.parametrize("limit", [Image.MAX_IMAGE_PIXELS, None])
@pytest.mark.parametrize(("width", "height"), [(30_000, 30_000), (10_001, 10_000)])
def test_a_bomb_is_refused_by_its_header(tmp_path, monkeypatch, width, height, limit):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("a bomb was decoded"))
    path = tmp_path / "bomb.png"
    path.write_bytes(png_header(width, height))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        error = refused(path)
    assert error.code == "bomb"
    assert "100 megapixels" in error.what
    assert limit == Image.MAX_IMAGE_PIXELS


def test_a_large_header_under_the_limit_is_not_a_bomb(tmp_path):
    path = tmp_path / "large.png"
    path.write_bytes(png_header(9_990, 10_000).replace(b"IDAT", b"IDAX"))  # pillow alone would warn at this size
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert refused(path).code != "bomb"


def test_a_file_above_the_size_limit_is_not_read(tmp_path, monkeypatch):
    path = tmp_path / "big.jpg"
    with open(path, "wb") as file:
        file.truncate(photo_decoding.BYTE_LIMIT + 1)  # sparse: it takes no room on the disk
    monkeypatch.setattr(builtins, "open", lambda *_, **__: pytest.fail("the file was opened"))
    error = refused(path)
    assert error.code == "too-large"
    assert "500 MB" in error.what


def test_links_and_pipes_and_rights(tmp_path, monkeypatch):
    link = tmp_path / "link.jpg"
    link.symlink_to(tmp_path / "gone.jpg")
    assert refused(link).code == "broken-link"
    loop = tmp_path / "loop.jpg"
    loop.symlink_to(loop)
    assert refused(loop).code == "unreadable"
    pipe = tmp_path / "pipe.jpg"
    os.mkfifo(pipe)
    assert refused(pipe).code == "unreadable"
    secret = save(tmp_path / "secret.jpg")

    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(builtins, "open", denied)  # not chmod: root may read everything
    assert refused(secret).code == "no-permission"


def test_a_link_to_a_photo_is_a_photo(tmp_path):
    target = save(tmp_path / "elsewhere" / "a.png")
    (tmp_path / "b.png").symlink_to(target)
    assert only(tmp_path / "b.png").sha256 == hashlib.sha256(target.read_bytes()).hexdigest()


def test_one_pixel_and_one_line_do_not_crash(tmp_path):
    dot = examine(save(tmp_path / "dot.png", Image.new("RGB", (1, 1), RED)))
    assert dot.errors == ()
    assert "too-small" in codes(dot)
    assert (pixels(dot.photos[0], 512) == RED).all()
    line = examine(save(tmp_path / "line.png", noise(20_000, 20)))
    assert line.errors == ()
    assert {"extreme-aspect", "too-small"} <= {finding.code for finding in line.warnings}
    assert pixels(line.photos[0]).shape == (16, 16, 3)


@settings(max_examples=100, deadline=None)
@given(
    start=st.sampled_from(
        [b"", b"\x89PNG\r\n\x1a\n", png_header(8, 8)[:40], b"\xff\xd8\xff", b"II*\0", b"BM", b"RIFF"]
    ),
    rest=st.binary(max_size=200),
)
def test_random_bytes_give_findings_and_never_raise(start, rest):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.png"
        path.write_bytes(start + rest)
        examination = examine(Path(folder))
        assert len(examination.photos) + len(examination.errors) == 1
        assert examination.findings
        assert all(finding.do for finding in examination.findings)


@settings(max_examples=60, deadline=None)
@given(place=st.integers(0, 10_000), value=st.integers(0, 255), name=st.sampled_from(["PNG", "JPEG", "TIFF", "BMP"]))
def test_a_changed_byte_never_raises(place, value, name):
    buffer = io.BytesIO()
    noise(24, 24).save(buffer, format=name)
    data = bytearray(buffer.getvalue())
    data[place % len(data)] = value
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.jpg"
        path.write_bytes(data)
        examination = examine(path)
        assert len(examination.photos) + len(examination.errors) == 1
        for photo in examination.photos:
            assert photo.load(8).size == (8, 8)


# ---- folders


def test_natural_order_and_determinism(tmp_path):
    for number in (10, 2, 1, 33):
        save(tmp_path / f"IMG_{number}.png", noise(seed=number))
    examination = examine(tmp_path)
    assert [photo.path.name for photo in examination.photos] == [f"IMG_{n}.png" for n in (1, 2, 10, 33)]
    assert examine(tmp_path) == examination
    assert examine(sorted(tmp_path.iterdir(), reverse=True)).photos == examination.photos


def test_empty_and_wordy_folders(tmp_path):
    assert refused(tmp_path).code == "empty-folder"
    (tmp_path / "a.txt").write_text("a caption")
    (tmp_path / ".DS_Store").write_bytes(b"x")
    (tmp_path / "Thumbs.db").write_bytes(b"x")
    (tmp_path / "._a.jpg").write_bytes(b"x")
    (tmp_path / "meta.json").write_text("{}")
    assert codes(examine(tmp_path)) == ["empty-folder"]
    with pytest.raises(PhotoError, match="no photos in this folder"):
        collect(tmp_path, skip_bad=True)
    assert codes(examine([])) == ["empty-folder"]


def test_a_missing_folder_is_named(tmp_path):
    for path in (tmp_path / "nowhere", Path("nul\0nul")):
        with pytest.raises(PhotoError, match="no such file or folder") as caught:
            examine(path)
        assert caught.value.where == path
    listed = examine([tmp_path / "nowhere.jpg", save(tmp_path / "a.png"), Path("nul\0nul")])
    assert sorted(finding.code for finding in listed.errors) == ["missing", "unreadable"]
    assert len(listed.photos) == 1


def test_a_folder_that_cannot_be_listed(tmp_path, monkeypatch):
    def denied(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", denied)
    with pytest.raises(PhotoError, match="cannot be listed"):
        examine(tmp_path)
    assert codes(examine([tmp_path])) == ["unreadable"]


def test_one_file_or_several_or_a_folder_among_them(tmp_path):
    first, second = save(tmp_path / "a.png", noise(seed=1)), save(tmp_path / "inner" / "b.png", noise(seed=2))
    (tmp_path / "a.txt").write_text("words")
    assert [photo.path for photo in collect(first, resolution=64)] == [first]
    everything = [*tmp_path.iterdir(), first]  # as a shell's photos/* gives them, and one of them twice
    assert [photo.path for photo in collect(everything, resolution=64)] == [first, second]


def test_photos_only_in_folders_inside(tmp_path):
    save(tmp_path / "mug" / "a.png")
    (error,) = examine(tmp_path).errors
    assert error.code == "empty-folder"
    assert "'mug'" in error.what
    assert str(tmp_path / "mug") in error.do


def test_kohya_folders_are_read(tmp_path):
    save(tmp_path / "10_mug" / "a.png", noise(seed=1))
    save(tmp_path / "5_mug" / "b.png", noise(seed=2))
    (tmp_path / "dataset.toml").write_text("")
    examination = examine(tmp_path, resolution=64)
    assert [photo.path.name for photo in examination.photos] == ["a.png", "b.png"]
    assert codes(examination) == ["few-photos"]
    save(tmp_path / "3_cat" / "c.png", noise(seed=3))
    mixed = examine(tmp_path, resolution=64)
    assert [finding.code for finding in mixed.warnings] == ["several-concepts"]
    assert len(mixed.photos) == 3


@pytest.mark.parametrize(
    ("name", "word"), [("a.heic", "JPEG"), ("a.AVIF", "JPEG"), ("a.gif", "PNG"), ("a.svg", "PNG"), ("a.NEF", "JPEG")]
)
def test_other_kinds_are_named_with_what_to_convert_them_to(tmp_path, name, word):
    (tmp_path / name).write_bytes(b"x")
    (error,) = examine(tmp_path).errors
    assert error.code == "unsupported"
    assert word in error.do
    assert refused(tmp_path / name).code == "unsupported"
    save(tmp_path / "a.jpg")  # a raw file beside its JPEG is not missed
    assert examine(tmp_path).errors == ()


def test_a_raw_file_is_not_read_as_the_tiff_that_it_also_is(tmp_path):
    noise().save(tmp_path / "a.dng", format="TIFF")
    assert refused(tmp_path / "a.dng").code == "unsupported"
    assert [finding.code for finding in examine([tmp_path / "a.dng"]).errors] == ["unsupported"]


# ---- captions


@pytest.mark.parametrize(
    ("content", "caption"),
    [
        (b"  a red mug\n", "a red mug"),
        (b"\xef\xbb\xbfein gr\xc3\xbcner Becher\r\n", "ein grüner Becher"),
        ("ein grüner Becher".encode("utf-16"), "ein grüner Becher"),
        (b"", None),
        (b" \n\t", None),
    ],
)
def test_captions_beside_photos(tmp_path, content, caption):
    save(tmp_path / "a.JPG")
    (tmp_path / "a.txt").write_bytes(content)
    examination = examine(tmp_path, resolution=64)
    assert examination.photos[0].caption == caption
    assert codes(examination) == ["few-photos"]


@pytest.mark.parametrize("content", [b"gr\xfcn", b"\0\1\2", b"word " * 20_000])
def test_a_caption_that_is_no_text_is_left_out_with_a_warning(tmp_path, content):
    save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_bytes(content)
    examination = examine(tmp_path, resolution=64)
    assert examination.photos[0].caption is None
    assert [(finding.code, finding.path) for finding in examination.warnings] == [("bad-caption", tmp_path / "a.txt")]


def test_an_orphan_caption_is_found(tmp_path):
    save(tmp_path / "a.png")
    (tmp_path / "b.txt").write_text("words")
    (orphan,) = [finding for finding in examine(tmp_path).findings if finding.code == "orphan-caption"]
    assert orphan.path == tmp_path / "b.txt"
    assert only(tmp_path / "a.png").caption is None


# ---- quality


def test_good_photos_pass_and_spoiled_ones_do_not(tmp_path):
    """The CC0 and public-domain photos of scikit-image have nothing wrong with them."""
    data = pytest.importorskip("skimage.data")
    for name in ("astronaut", "chelsea", "coffee", "rocket"):
        save(tmp_path / f"{name}.jpg", Image.fromarray(getattr(data, name)()), quality=92)
    good = examine(tmp_path)
    assert [photo.path.stem for photo in good.photos] == ["astronaut", "chelsea", "coffee", "rocket"]
    assert good.findings == ()
    assert all(photo.load(64).size == (64, 64) for photo in good.photos)

    coffee = Image.fromarray(data.coffee())
    save(tmp_path / "dark.png", coffee.point(lambda value: value // 6))
    save(tmp_path / "grey.png", Image.fromarray(data.rocket()).convert("L").transpose(Image.Transpose.ROTATE_90))
    save(tmp_path / "overexposed.png", coffee.point(lambda value: min(255, value * 4 + 240)))
    save(tmp_path / "blurry.png", Image.fromarray(data.chelsea()).rotate(90).filter(ImageFilter.GaussianBlur(8)))
    found = {(finding.path.stem, finding.code) for finding in examine(tmp_path).findings if finding.path}
    for code in ("dark", "grey", "overexposed", "blurry"):
        assert [stem for stem, other in found if other == code] == [code]


def test_duplicates_and_near_duplicates(tmp_path):
    first = save(tmp_path / "a.png", noise(seed=1))
    (tmp_path / "b.png").write_bytes(first.read_bytes())
    save(tmp_path / "c.jpg", noise(seed=1), quality=80)
    save(tmp_path / "d.png", noise(seed=2))
    save(tmp_path / "flat1.png", Image.new("RGB", (64, 64), RED))
    save(tmp_path / "flat2.png", Image.new("RGB", (64, 64), BLUE))
    examination = examine(tmp_path, resolution=64)
    pairs = [(finding.path.name, finding.code) for finding in examination.findings if "duplicate" in finding.code]
    assert pairs == [("b.png", "duplicate"), ("c.jpg", "near-duplicate")]
    assert all("'a.png'" in finding.what for finding in examination.findings if "duplicate" in finding.code)
    assert len(examination.photos) == 6  # they are pointed out, not taken away


def test_few_photos_and_small_ones(tmp_path):
    for number in range(3):
        save(tmp_path / f"{number}.png", noise(256, 255, seed=number))
    assert codes(examine(tmp_path, resolution=512)) == ["too-small"] * 3 + ["few-photos"]
    assert codes(examine(tmp_path, resolution=510)) == ["few-photos"]
    save(tmp_path / "3.png", noise(256, 256, seed=3))
    assert codes(examine(tmp_path, resolution=510)) == []


def test_several_pictures_in_one_file(tmp_path):
    path = save(tmp_path / "a.png", noise(seed=1), save_all=True, append_images=[noise(seed=2)])
    assert "animated" in codes(examine(path))
    assert (pixels(only(path), 96) == np.asarray(noise(seed=1))).all()
    phone = tmp_path / "phone.jpg"
    noise(seed=1).save(phone, format="MPO", save_all=True, append_images=[noise(seed=2)])
    assert "animated" not in codes(examine(phone))
    assert only(phone).size == (96, 96)


# ---- the door to training


def test_collect_names_every_bad_file(tmp_path):
    good = save(tmp_path / "good.png")
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "words.png").write_text("words")
    with pytest.raises(PhotoError) as caught:
        collect(tmp_path, resolution=64)
    message = str(caught.value)
    assert "2 of 3 files" in message
    assert "empty.jpg" in message
    assert "words.png" in message
    assert "--skip-bad" in message
    assert [photo.path for photo in collect(tmp_path, resolution=64, skip_bad=True)] == [good]

    (tmp_path / "words.png").unlink()
    with pytest.raises(PhotoError, match=r"empty\.jpg: the file is empty.*\n.*--skip-bad"):
        collect(tmp_path, resolution=64)

    good.unlink()
    with pytest.raises(PhotoError, match=r"empty\.jpg") as caught:
        collect(tmp_path, resolution=64, skip_bad=True)
    assert "--skip-bad" not in str(caught.value)  # it was tried already


def test_warnings_do_not_bar_the_door(tmp_path):
    save(tmp_path / "tiny.png", noise(30, 8))
    assert {"too-small", "extreme-aspect"} <= set(codes(examine(tmp_path)))
    assert len(collect(tmp_path, resolution=512)) == 1


def test_a_photo_that_changed_or_went_away_is_not_loaded(tmp_path):
    path = save(tmp_path / "a.png", noise(seed=1))
    photo = only(path)
    save(path, noise(seed=2))
    with pytest.raises(PhotoError, match="has changed since"):
        photo.load(64)
    path.unlink()
    with pytest.raises(PhotoError, match=r"a\.png: there is no such file"):
        photo.load(64)
    with pytest.raises(ValueError, match="resolution"):
        photo.load(0)


# ---- errors


def test_errors_say_where_what_and_what_to_do():
    error = NameTakenError("'mug' is learned already", where=Path("studio"), do="Choose another name.")
    assert str(error) == "studio: 'mug' is learned already\nChoose another name."
    assert str(StaminaError("it is so")) == "it is so"
    assert isinstance(error, StaminaError)
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.where, again.do) == (str(error), error.where, error.do)
    assert str(PhotoError("bad", where=Path(os.fsdecode(b"gr\xfcn.jpg")))).encode() == b"gr\\udcfcn.jpg: bad"


def test_the_nearest_known_word():
    assert nearest("rnak", ["rank", "strength"]) == "rank"
    assert nearest("Stamina", ["stamina", "lora"]) == "stamina"
    assert nearest("zebra", ["rank", "strength"]) is None
    assert nearest("any", []) is None
