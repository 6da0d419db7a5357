"""Real data sets, on small folders and tables laid out as they are."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from stamina_diffusion.class_streams.real import HUB, divided, of_folder, of_tables, read
from stamina_diffusion.errors import SettingsError


def picture(path: Path, number: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def imagenet_r(folder: Path, classes=("n01443537", "n01484850", "n02007558"), count: int = 5) -> Path:
    """As the set unpacks: a folder for each WordNet id, and a README."""
    for place, name in enumerate(classes):
        for number in range(count):
            picture(folder / name / f"art_{number}.jpg", 100 * place + number)
    (folder / "README.txt").write_text("ImageNet-R\n")
    return folder


def test_imagenet_r_is_divided_by_names_the_same_everywhere(tmp_path):
    stream = read("imagenet-r", str(imagenet_r(tmp_path / "imagenet-r")))
    assert stream.classes == ("n01443537", "n01484850", "n02007558")
    assert (len(stream.train.pictures), len(stream.test.pictures)) == (12, 3)
    assert sorted(stream.test.labels) == [0, 1, 2]
    assert "by a hash of the file's name" in stream.told
    elsewhere = of_folder("imagenet-r", imagenet_r(tmp_path / "other" / "place"))
    names = [[path.name for path in one.test.pictures.paths] for one in (stream, elsewhere)]
    assert names[0] == names[1]
    seen = stream.lessons(3)[1].taught
    assert seen.images[0].size == (16, 12)
    assert seen.images[0].mode == "RGB"


def test_codas_lists_say_which_pictures_and_which_order_of_classes(tmp_path):
    folder = imagenet_r(tmp_path / "imagenet-r")
    lists = tmp_path / "splits"
    lists.mkdir()
    order = {"n02007558": 0, "n01443537": 1, "n01484850": 2}  # targets are not in the order of the ids
    for part, numbers in (("train", range(4)), ("test", range(4, 5))):
        named = [(f"data/imagenet-r/{name}/art_{n}.jpg", target) for name, target in order.items() for n in numbers]
        lines = ["data:", *(f"- {file}" for file, _ in named), "targets:", *(f"- {target}" for _, target in named)]
        (lists / f"imagenet-r_{part}.yaml").write_text("\n".join(lines))
    stream = read("imagenet-r", str(folder), lists)
    assert stream.classes == ("n02007558", "n01443537", "n01484850")
    assert [path.name for path in stream.test.pictures.paths] == ["art_4.jpg"] * 3
    assert stream.test.labels == (0, 1, 2)
    assert "the lists in splits" in stream.told
    (folder / "n01443537" / "art_2.jpg").unlink()
    with pytest.raises(SettingsError, match=r"art_2\.jpg: the lists name it, and it is not there"):
        read("imagenet-r", str(folder), lists)
    (lists / "imagenet-r_test.yaml").write_text("data: 3\n")
    with pytest.raises(SettingsError, match="is no list of CODA-Prompt"):
        read("imagenet-r", str(folder), lists)
    with pytest.raises(SettingsError, match=r"cannot be read(.|\n)*Point split at"):
        read("imagenet-r", str(folder), tmp_path)


def test_folders_that_are_divided_already_stay_so(tmp_path):
    for part, count in (("train", 3), ("test", 2)):
        for place, name in enumerate(("apple", "bear")):
            for number in range(count):
                picture(tmp_path / part / name / f"{number}.png", 50 * count + 10 * place + number)
    stream = read("cifar-100", str(tmp_path))
    assert stream.classes == ("apple", "bear")
    assert stream.train.labels == (0, 0, 0, 1, 1, 1)
    assert stream.test.labels == (0, 0, 1, 1)


def test_cub_is_read_by_its_own_files(tmp_path):
    names = ("001.Black_footed_Albatross", "002.Laysan_Albatross")
    rows, flags = [], []
    for place, name in enumerate(names):
        for number in range(3):
            identity = 3 * place + number + 1
            picture(tmp_path / "images" / name / f"{number}.jpg", identity)
            rows.append(f"{identity} {name}/{number}.jpg")
            flags.append(f"{identity} {int(number > 0)}")
    (tmp_path / "images.txt").write_text("\n".join(rows))
    (tmp_path / "train_test_split.txt").write_text("\n".join(flags))
    stream = read("cub-200", str(tmp_path))
    assert stream.classes == names
    assert [path.name for path in stream.test.pictures.paths] == ["0.jpg", "0.jpg"]
    assert stream.train.labels == (0, 0, 1, 1)
    (tmp_path / "train_test_split.txt").write_text("\n".join(flags[:-1]))
    with pytest.raises(SettingsError, match="says nothing of picture 6"):
        read("cub-200", str(tmp_path))
    with pytest.raises(SettingsError, match="no usual place on the hub"):
        read("cub-200")


def test_domainnet_joins_its_domains(tmp_path):
    for place, domain in enumerate(("clipart", "sketch")):
        for part, numbers in (("train", (0, 1)), ("test", (2,))):
            lines = []
            for label, name in enumerate(("aircraft_carrier", "zebra")):
                for number in numbers:
                    picture(tmp_path / domain / name / f"{number}.jpg", 100 * place + 10 * label + number)
                    lines.append(f"{domain}/{name}/{number}.jpg {label}")
            (tmp_path / f"{domain}_{part}.txt").write_text("\n".join(lines) + "\n")
    stream = read("domainnet", str(tmp_path))
    assert stream.classes == ("aircraft_carrier", "zebra")
    assert len(stream.train.pictures) == 8
    assert {path.parent.parent.name for path in stream.test.pictures.paths} == {"clipart", "sketch"}


def test_a_picture_of_train_and_test_alike_is_refused(tmp_path):
    for part in ("train", "test"):
        picture(tmp_path / part / "apple" / f"{part}.png", 1)
        picture(tmp_path / part / "bear" / f"{part}.png", 2 if part == "train" else 3)
    with pytest.raises(SettingsError, match=r"test\.png: is the same picture as .*train\.png, which is learned from"):
        read("cifar-100", str(tmp_path))


def test_what_cannot_be_a_data_set_is_told(tmp_path):
    with pytest.raises(SettingsError, match="there is no such folder"):
        read("imagenet-r", str(tmp_path / "nowhere"))
    with pytest.raises(SettingsError, match="has no folders of pictures"):
        read("imagenet-r", str(tmp_path))
    (tmp_path / "empty").mkdir()
    with pytest.raises(SettingsError, match="empty: the class has no picture"):
        read("imagenet-r", str(tmp_path))
    (tmp_path / "empty").rmdir()
    picture(tmp_path / "lonely" / "0.png", 0)
    with pytest.raises(SettingsError, match="class 'lonely' has one picture"):
        read("imagenet-r", str(tmp_path))
    (tmp_path / "lonely" / "1.png").write_bytes(b"no picture")
    stream = read("imagenet-r", str(tmp_path))
    with pytest.raises(SettingsError, match=r"1\.png: is no picture"):
        list(stream.train.pictures) + list(stream.test.pictures)


# ------------------------------------------------------------------------------------------------------------ the hub


class Table:
    """What `datasets.Dataset` is to us: columns by name, rows by place."""

    def __init__(self, columns, names=None):
        self.columns, self.column_names = columns, list(columns)
        self.features = {name: SimpleNamespace(names=names) for name in columns}

    def __len__(self):
        return len(self.columns["image"])

    def __getitem__(self, what):
        if isinstance(what, str):
            return self.columns[what]
        return {name: values[what] for name, values in self.columns.items()}


def shown(count: int):
    return [Image.new("L", (4, 4), place) for place in range(count)]


def test_a_set_of_the_hub_with_two_splits_keeps_them():
    names = ["apple", "bear"]
    train = Table({"image": shown(4), "fine_label": [1, 0, 1, 0], "coarse_label": [0, 0, 0, 0]}, names)
    test = Table({"image": shown(2), "fine_label": [0, 1], "coarse_label": [0, 0]}, names)
    stream = of_tables("cifar-100", HUB["cifar-100"], {"train": train, "test": test})
    assert stream.classes == ("apple", "bear")
    assert stream.train.labels == (1, 0, 1, 0)
    assert stream.train.pictures[2].getpixel((0, 0)) == (2, 2, 2)
    assert "splits train and test" in stream.told


def test_a_set_of_the_hub_with_one_split_is_divided():
    table = Table({"image": shown(10), "wnid": ["n1", "n2"] * 5, "class_name": ["a", "b"] * 5})
    stream = of_tables("imagenet-r", HUB["imagenet-r"], {"test": table})
    assert stream.classes == ("n1", "n2")
    assert (len(stream.train.pictures), len(stream.test.pictures)) == (8, 2)
    again = of_tables("imagenet-r", HUB["imagenet-r"], {"test": table})
    assert list(again.test.pictures.places) == list(stream.test.pictures.places)
    assert {*stream.train.pictures.places} & {*stream.test.pictures.places} == set()
    with pytest.raises(SettingsError, match=r"its columns are image, text(.|\n)*wanted"):
        of_tables("imagenet-r", "some/where", {"test": Table({"image": shown(2), "text": ["a", "b"]})})


def test_the_share_to_learn_from_is_four_fifths_of_each_class():
    items = [(Path(f"{number}.jpg"), label) for label in "ab" for number in range(20)]
    train, test = divided(items)
    assert len(train) == 32
    assert sum(label == "a" for _, label in test) == 4


def test_the_hubs_own_package_reads_a_folder(tmp_path):
    """Where `datasets` is installed, a local folder of it is a stream as a hub id would be."""
    datasets = pytest.importorskip("datasets")
    for part, count in (("train", 2), ("test", 1)):
        for place, name in enumerate(("apple", "bear")):
            for number in range(count):
                picture(tmp_path / part / name / f"{number}.png", 10 * place + 5 * count + number)
    found = datasets.load_dataset("imagefolder", data_dir=str(tmp_path))
    stream = of_tables("cifar-100", "local", found)
    assert stream.classes == ("apple", "bear")
    assert len(stream.train.pictures) == 4
