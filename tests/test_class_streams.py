"""Streams of classes: orders that published code has, tasks that share nothing, the atlas and what it is drawn from."""

import numpy as np
import pytest
from PIL import Image

from stamina_diffusion.class_streams import ClassStream, Labelled, order_of
from stamina_diffusion.class_streams.atlas import TRAIN, Atlas, atlas
from stamina_diffusion.class_streams.digits import digits, of_arrays
from stamina_diffusion.errors import SettingsError
from stamina_diffusion.world import POOLS, WorldConcept
from stamina_diffusion.world.renditions import RENDITIONS, redraw


def small(classes: int = 6, views: int = 2) -> ClassStream:
    pictures = [Image.new("RGB", (4, 4), (label, view, 0)) for label in range(classes) for view in range(views)]
    labels = tuple(label for label in range(classes) for _ in range(views))
    names = tuple(f"class {label}" for label in range(classes))
    return ClassStream("small", names, Labelled(pictures, labels), Labelled(pictures, labels))


def test_the_order_of_a_seed_is_that_of_codas_code():
    # Python's own shuffle of seed 1, as CODA-Prompt's trainer draws it.
    assert order_of(200, 1)[:10] == [33, 146, 79, 19, 23, 131, 12, 187, 174, 32]
    assert order_of(200, 0) == list(range(200))
    assert sorted(order_of(200, 7)) == list(range(200))


def test_the_order_of_pilot_is_numpys_permutation():
    state = np.random.RandomState(1993)
    assert order_of(100, 1993, "pilot") == state.permutation(100).tolist()


def test_tasks_share_no_class_and_label_their_own_rows():
    stream = small()
    lessons = stream.lessons(3, seed=1)
    named = [name for lesson in lessons for name in lesson.taught.classes]
    assert sorted(named) == sorted(stream.classes)
    assert named != list(stream.classes)
    for lesson in lessons:
        assert lesson.taught.classes == lesson.asked.classes
        for picture, label in zip(lesson.taught.images, lesson.taught.labels, strict=True):
            assert f"class {picture.getpixel((0, 0))[0]}" == lesson.taught.classes[label]


def test_classes_that_cannot_be_shared_out_are_told_with_what_fits():
    with pytest.raises(SettingsError, match=r"6 classes cannot be shared out evenly to 4 tasks(.|\n)*1, 2, 3, 6"):
        small().lessons(4)


def test_a_class_without_a_picture_is_refused():
    one = Labelled([Image.new("RGB", (4, 4))], (0,))
    with pytest.raises(SettingsError, match="no train picture of class 'b'"):
        ClassStream("bare", ("a", "b"), one, one)


def test_the_atlas_is_of_identities_that_nothing_was_trained_on(tmp_path):
    stream = atlas(Atlas(classes=4, train=4, test=2), tmp_path)
    assert stream.classes == ("face-0", "landmark-0", "face-1", "landmark-1")
    assert len(stream.train.pictures) == 16
    assert len(stream.test.pictures) == 8
    assert {Atlas().concept(label).seed for label in range(200)} & set(range(POOLS["prior"])) == set()
    # The third picture of the first face is its third view as pixel art.
    own = np.asarray(WorldConcept("faces", "stream", 0).view(2).render(64))
    assert np.array_equal(np.asarray(stream.train.pictures[2]), redraw(own, "pixel"))
    assert np.array_equal(
        np.asarray(stream.test.pictures[0]), np.asarray(WorldConcept("faces", "stream", 0).view(TRAIN).render(64))
    )


def test_the_atlas_is_drawn_once_and_kept(tmp_path, monkeypatch):
    described = Atlas(classes=2, train=2, test=1)
    drawn = list(atlas(described, tmp_path).train.pictures)
    monkeypatch.setattr(Atlas, "views", lambda self, label: pytest.fail("it was drawn again"))
    pairs = zip(drawn, atlas(described, tmp_path).train.pictures, strict=True)
    assert all(np.array_equal(np.asarray(one), np.asarray(other)) for one, other in pairs)


def test_a_kept_atlas_that_was_cut_short_is_drawn_again(tmp_path):
    described = Atlas(classes=2, train=2, test=1)
    assert len(list(atlas(described, tmp_path).train.pictures)) == 4
    file = next(tmp_path.glob("*.npy"))
    file.write_bytes(file.read_bytes()[:300])
    whole = np.asarray(WorldConcept("landmarks", "stream", 0).view(0).render(64))
    assert np.array_equal(np.asarray(atlas(described, tmp_path).train.pictures[2]), whole)


def test_a_negative_is_what_is_left_of_white():
    plain, negative = (atlas(Atlas(2, 2, 1, negative=look)) for look in (False, True))
    for part in ("train", "test"):
        one, other = (np.asarray(getattr(stream, part).pictures[1]) for stream in (plain, negative))
        assert (one.astype(int) + other == 255).all()
    assert "negatives" in negative.told
    assert "negatives" not in plain.told


def test_the_tuning_atlas_has_other_identities():
    ours, theirs = (np.asarray(atlas(Atlas(2, 1, 1, pool)).train.pictures[0]) for pool in ("stream", "tuning"))
    assert not np.array_equal(ours, theirs)


def test_renditions_alter_a_picture_each_in_its_way():
    plain = np.asarray(WorldConcept("faces", "prior", 0).view(0).render(64))
    drawn = {rendition: redraw(plain, rendition) for rendition in RENDITIONS}
    assert np.array_equal(drawn["plain"], plain)
    assert all(picture.shape == plain.shape and picture.dtype == np.uint8 for picture in drawn.values())
    assert np.ptp(drawn["sketch"].astype(int), axis=-1).max() < 12  # grey on paper
    cells = drawn["pixel"].reshape(32, 2, 32, 2, 3)
    assert np.array_equal(cells[:, 0], cells[:, 1])
    assert len(np.unique(drawn["pixel"])) <= 5
    assert drawn["night"].mean() < 0.75 * plain.mean()
    together = redraw(np.stack([plain, plain]), "sketch")
    assert np.array_equal(together[1], drawn["sketch"])
    with pytest.raises(ValueError, match="unknown rendition 'dawn'"):
        redraw(plain, "dawn")


def test_each_fifth_digit_is_for_the_test():
    labels = np.tile(np.arange(10), 10)
    pixels = np.zeros((100, 8, 8), dtype=np.uint8)
    stream = of_arrays(pixels, labels)
    assert stream.classes == tuple("0123456789")
    assert len(stream.test.pictures) == 20
    assert [len(lesson.taught.labels) for lesson in stream.lessons(5)] == [16] * 5


def test_digits_come_from_scikit_learn_or_it_is_named():
    try:
        import sklearn  # type: ignore[import-not-found]  # noqa: F401
    except ImportError:
        with pytest.raises(SettingsError, match="needs the package scikit-learn"):
            digits()
    else:
        assert len(digits().train.pictures) + len(digits().test.pictures) == 1797
