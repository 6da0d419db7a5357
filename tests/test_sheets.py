"""Sheets hold every picture where it belongs, at any number of concepts, also when photos are gone."""

import io

import numpy as np
import pytest
from PIL import Image

from stamina_diffusion import sheets
from stamina_diffusion.photos import examine
from stamina_diffusion.sheets import Block


def plain(colour, size=64):
    return Image.new("RGB", (size, size), colour)


def colours(picture):
    return {tuple(colour) for colour in np.asarray(picture).reshape(-1, 3)}


def test_a_sheet_holds_every_picture_at_twice_its_size():
    reds = [(200, k, 0) for k in range(6)]
    blues = [(0, k, 200) for k in range(4)]
    block = Block("<rex>", "kept 1.00", [plain(c) for c in reds], [plain(c) for c in blues], new=True)
    sheet = sheets.concept_sheet("<rex> learned", "version 1", [block], resolution=64)
    pixels = np.asarray(sheet)
    for colour in reds + blues:
        assert (pixels == colour).all(-1).sum() == 128 * 128


def test_photos_stand_above_samples():
    block = Block("<rex>", "", [plain((200, 0, 0))], [plain((0, 0, 200))])
    pixels = np.asarray(sheets.concept_sheet("a", "b", [block], resolution=64))
    red = np.argwhere((pixels == (200, 0, 0)).all(-1))
    blue = np.argwhere((pixels == (0, 0, 200)).all(-1))
    assert red[:, 0].max() < blue[:, 0].min()
    assert red[:, 1].min() == blue[:, 1].min()


def test_a_photo_that_is_gone_leaves_a_gray_tile():
    block = Block("<rex>", "", [plain((200, 0, 0)), None], [plain((0, 0, 200))])
    sheet = sheets.concept_sheet("a", "b", [block], resolution=64)
    assert (0xD4, 0xD7, 0xDC) in colours(sheet)


@pytest.mark.parametrize("resolution", [8, 64, 512])
@pytest.mark.parametrize("count", [1, 3, 50])
def test_any_number_of_concepts_fits(resolution, count):
    photo = plain((200, 0, 0), resolution)
    blocks = [Block(f"<c{k}>", "kept 0.93, like its photos 0.81" * 3, [photo] * 6, [photo] * 4) for k in range(count)]
    sheet = sheets.concept_sheet("x" * 500, "y", blocks, resolution=resolution)
    tile = sheets.tile_width(resolution)
    assert (np.asarray(sheet) == (200, 0, 0)).all(-1).sum() == count * 10 * tile * tile
    assert max(sheet.size) < 4 * min(sheet.size)


@pytest.mark.parametrize(("count", "size"), [(1, (10, 10)), (2, (24, 10)), (4, (24, 24)), (5, (38, 24))])
def test_a_grid_is_as_square_as_it_can_be(count, size):
    picture = sheets.grid([plain((k, 0, 0), 10) for k in range(count)])
    assert picture.size == size
    assert {(k, 0, 0) for k in range(count)} <= colours(picture)


def test_a_grid_goes_row_by_row():
    picture = sheets.grid([plain((k, 0, 0), 10) for k in range(4)], columns=2, gap=0)
    assert [picture.getpixel(place)[0] for place in ((5, 5), (15, 5), (5, 15), (15, 15))] == [0, 1, 2, 3]


def test_a_source_photo_is_found_only_while_it_is_the_same(tmp_path):
    path = tmp_path / "a.png"
    plain((200, 0, 0)).save(path)
    (photo,) = examine(path, resolution=64).photos
    found = sheets.source_photo(path, photo.sha256, 32)
    assert found is not None
    assert (found.size, colours(found)) == ((32, 32), {(200, 0, 0)})
    plain((0, 200, 0)).save(path)
    assert sheets.source_photo(path, photo.sha256, 32) is None
    path.unlink()
    assert sheets.source_photo(path, photo.sha256, 32) is None


def test_a_png_keeps_its_pixels_and_its_notes():
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8))
    opened = Image.open(io.BytesIO(sheets.png(picture, stamina='{"prompt": "a photo of <rex> é"}')))
    assert np.array_equal(np.asarray(opened), np.asarray(picture))
    assert opened.text["stamina"] == '{"prompt": "a photo of <rex> é"}'
