"""Real data sets as streams: from a local folder in the layout that it comes in, or from the hub by its id.

Folders that are understood, whatever the set: `train/CLASS/picture` beside `test/CLASS/picture`; CUB-200-2011's own
(`images/`, `images.txt`, `train_test_split.txt`); DomainNet's own (`DOMAIN/CLASS/picture`, `DOMAIN_train.txt`,
`DOMAIN_test.txt`); and `CLASS/picture` alone, as ImageNet-R is, which somebody has to split. CODA-Prompt's split is
read from a copy of its lists, which the person points at; else four fifths of each class, chosen by a hash of the
file's name and so the same everywhere, are to learn from. `ClassStream.told` says which.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from .. import files
from ..errors import SettingsError
from ..photo_decoding import SUFFIXES
from . import Chosen, ClassStream, Labelled, Pictures

HUB = {"imagenet-r": "axiong/imagenet-r", "cifar-100": "uoft-cs/cifar100", "domainnet": "wltjr1007/DomainNet"}
"""Where each set usually is. CUB-200-2011 has no usual place there: give its folder."""

LABELS = ("label", "fine_label", "wnid", "class_name")
"""Columns of a set on the hub that may hold the class, the best first."""

SHARE = 0.8
Item = tuple[Path, str]
"""A picture and the name of its class."""


class Files(Pictures):
    """Pictures of a disk, opened when they are looked at."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def at(self, place: int) -> Image.Image:
        path = self.paths[place]
        try:
            with Image.open(path) as picture:
                return picture.convert("RGB")
        except (OSError, ValueError, UnidentifiedImageError) as error:
            raise SettingsError(f"is no picture: {error}", where=path, do="Restore it, or delete it.") from error


class Rows(Pictures):
    """Pictures of a table of Hugging Face's `datasets`, decoded when they are looked at."""

    def __init__(self, table: Any, column: str) -> None:
        self.table, self.column = table, column

    def __len__(self) -> int:
        return len(self.table)

    def at(self, place: int) -> Image.Image:
        return self.table[place][self.column].convert("RGB")


def read(name: str, source: str | None = None, lists: Path | None = None) -> ClassStream:
    """The stream `name` from a folder or a hub id; `lists` is a folder with CODA-Prompt's lists of it.

    Raises SettingsError for what is not there, what cannot be understood, and a picture of train and test alike.
    """
    source = source or HUB.get(name)
    if source is None:
        raise SettingsError(f"{name} has no usual place on the hub", do="Give its folder: --set source=FOLDER.")
    folder = Path(source).expanduser()
    if folder.is_dir():
        return of_folder(name, folder, lists)
    if source.count("/") != 1 or source.startswith((".", "/", "~")):
        do = "Give the folder of the data set, or its hub id: --set source=..."
        raise SettingsError("there is no such folder", where=source, do=do)
    return of_hub(name, source)


# -- folders -------------------------------------------------------------------------------------------------------


def of_folder(name: str, folder: Path, lists: Path | None = None) -> ClassStream:
    """See `read`."""
    if lists is not None:
        train, test, classes = _by_lists(name, folder, lists)
        told = f"{name}: split by the lists in {lists.name}"
    elif (folder / "train_test_split.txt").is_file():
        train, test = _cub(folder)
        classes, told = _names(train + test), f"{name}: the split of CUB-200-2011"
    elif any(folder.glob("*_train.txt")):
        train, test = _domains(folder)
        classes, told = _names(train + test), f"{name}: the lists of DomainNet"
    elif (folder / "train").is_dir() and (folder / "test").is_dir():
        train, test = _classes(folder / "train"), _classes(folder / "test")
        classes, told = _names(train + test), f"{name}: split as its folders are"
    else:
        train, test = divided(_classes(folder))
        classes = _names(train + test)
        told = f"{name}: {SHARE:.0%} of each class to learn from, by a hash of the file's name"
    _check_apart(train, test)
    place = {label: row for row, label in enumerate(classes)}
    parts = [
        Labelled(Files([path for path, _ in some]), tuple(place[own] for _, own in some)) for some in (train, test)
    ]
    return ClassStream(name, tuple(classes), *parts, told=told)


def _names(items: Iterable[Item]) -> list[str]:
    return sorted({label for _, label in items})


def _classes(folder: Path) -> list[Item]:
    """The pictures of a folder of class folders."""
    found: list[Item] = []
    inside = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    for path in inside:
        pictures = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
        if not pictures:
            raise SettingsError(
                "the class has no picture", where=path, do="Restore its pictures, or delete the folder."
            )
        found += [(file, path.name) for file in pictures]
    if not found:
        do = "Give a folder with a folder for each class, or one with train/ and test/ of such folders."
        raise SettingsError("has no folders of pictures", where=folder, do=do)
    return found


def divided(items: Sequence[Item]) -> tuple[list[Item], list[Item]]:
    """Of each class the first four fifths in the order of a hash of 'CLASS/FILE', and the rest; no seed is in it."""
    train: list[Item] = []
    test: list[Item] = []
    by_class: dict[str, list[Item]] = {}
    for item in items:
        by_class.setdefault(item[1], []).append(item)
    for label, own in by_class.items():
        own = sorted(own, key=lambda item: hashlib.sha256(f"{label}/{item[0].name}".encode()).hexdigest())
        count = min(max(1, round(SHARE * len(own))), len(own) - 1)
        if count < 1:
            do = "Add another picture, or leave the class out."
            raise SettingsError(f"class {label!r} has one picture, to learn from and to be tested on", do=do)
        train += own[:count]
        test += own[count:]
    return train, test


def _by_lists(name: str, folder: Path, lists: Path) -> tuple[list[Item], list[Item], list[str]]:
    """CODA-Prompt's lists, `NAME_train.yaml` and `NAME_test.yaml`: their order of classes, their pictures."""
    import yaml

    found: list[list[tuple[Path, int]]] = []
    for part in ("train", "test"):
        path = lists / f"{name}_{part}.yaml"
        try:
            told = yaml.load(path.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
            pairs = zip(told["data"], told["targets"], strict=True)
            # The lists name 'data/imagenet-r/WNID/FILE': the last two parts are in the folder.
            found.append([(folder / Path(*Path(str(file)).parts[-2:]), int(target)) for file, target in pairs])
        except OSError as error:
            do = "Point split at the folder dataloaders/splits of a copy of CODA-Prompt."
            raise SettingsError(f"cannot be read ({error.strerror})", where=path, do=do) from error
        except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
            raise SettingsError(
                f"is no list of CODA-Prompt: {error}", where=path, do="Take an unchanged copy."
            ) from error
    gone = next((path for part in found for path, _ in part if not path.is_file()), None)
    if gone is not None:
        raise SettingsError("the lists name it, and it is not there", where=gone, do="Give the whole data set.")
    named: dict[int, str] = {}
    for path, target in (*found[0], *found[1]):
        if named.setdefault(target, path.parent.name) != path.parent.name:
            what = f"target {target} is of {named[target]} and of {path.parent.name}"
            raise SettingsError(what, where=lists, do="Take an unchanged copy.")
    classes = [named[target] for target in sorted(named)]
    train, test = ([(path, named[target]) for path, target in part] for part in found)
    return train, test, classes


def _cub(folder: Path) -> tuple[list[Item], list[Item]]:
    """CUB-200-2011's own files: 'NUMBER CLASS/FILE' and 'NUMBER 1' for what is to learn from."""
    pictures, flags = (_table(folder / file) for file in ("images.txt", "train_test_split.txt"))
    parts: dict[str, list[Item]] = {"1": [], "0": []}
    for number, file in pictures.items():
        if flags.get(number) not in parts:
            do = "Restore the file from the data set."
            raise SettingsError(f"says nothing of picture {number}", where=folder / "train_test_split.txt", do=do)
        parts[flags[number]].append((folder / "images" / file, Path(file).parts[0]))
    return parts["1"], parts["0"]


def _table(path: Path) -> Mapping[str, str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return {line.split(" ", 1)[0]: line.split(" ", 1)[1].strip() for line in lines if line.strip()}
    except (OSError, IndexError, UnicodeError) as error:
        do = "Restore the file from the data set."
        raise SettingsError("is no list of 'NUMBER VALUE' lines", where=path, do=do) from error


def _domains(folder: Path) -> tuple[list[Item], list[Item]]:
    """DomainNet's own lists, 'DOMAIN/CLASS/FILE NUMBER' a line, of every domain that has both."""
    parts: dict[str, list[Item]] = {"train": [], "test": []}
    for part, own in parts.items():
        for path in sorted(folder.glob(f"*_{part}.txt")):
            for line in path.read_text(encoding="utf-8").splitlines():
                if line.strip():
                    file = Path(line.rsplit(" ", 1)[0])
                    own.append((folder / file, file.parts[-2]))
    return parts["train"], parts["test"]


def _check_apart(train: Sequence[Item], test: Sequence[Item]) -> None:
    """Raise SettingsError for a picture, by its bytes, that is to learn from and to be tested on."""
    try:
        sizes = {path.stat().st_size for path, _ in train} & {path.stat().st_size for path, _ in test}
        # Only files of equal size can be equal.
        known = {files.sha256(path): path for path, _ in train if path.stat().st_size in sizes}
        twins = ((path, known.get(files.sha256(path))) for path, _ in test if path.stat().st_size in sizes)
        for path, twin in twins:
            if twin is not None:
                do = "Remove one of the two: a test on it would say nothing."
                raise SettingsError(f"is the same picture as {twin}, which is learned from", where=path, do=do)
    except OSError as error:
        raise SettingsError("cannot be read", where=error.filename, do="Give the whole data set.") from error


# -- the hub -------------------------------------------------------------------------------------------------------


def of_hub(name: str, source: str) -> ClassStream:
    """A set by its hub id. Raises SettingsError where `datasets` is not installed or the set cannot be had."""
    try:
        from datasets import load_dataset  # type: ignore[import-not-found]
    except ImportError as error:
        do = "Run: pip install datasets; or give a folder: --set source=FOLDER"
        raise SettingsError(f"{name} comes from the hub, for which the package datasets is needed", do=do) from error
    try:
        found = load_dataset(source)
    except Exception as error:  # the hub's client raises a dozen kinds, from network to licence
        do = "Check the name and the network, or give a folder: --set source=FOLDER"
        raise SettingsError(f"cannot be had from the hub: {error}", where=source, do=do) from error
    return of_tables(name, source, found)


def of_tables(name: str, source: str, tables: Mapping[str, Any]) -> ClassStream:
    """The stream of a mapping of splits to tables with a column of pictures and one of classes.

    With 'train' and 'test' these are taken (a 'validation' stands in for 'test'); one split alone is divided by a hash
    of each picture's place, which is the same everywhere.
    """
    first = next(iter(tables.values()))
    pictures = next((column for column in ("image", "img") if column in first.column_names), None)
    labels = next((column for column in LABELS if column in first.column_names), None)
    if pictures is None or labels is None:
        found = ", ".join(first.column_names)
        raise SettingsError(
            f"its columns are {found}", where=source, do=f"image and one of {', '.join(LABELS)} are wanted."
        )
    second = next((split for split in ("test", "validation") if split in tables), None)
    if "train" in tables and second is not None:
        parts = [(tables[split], list(range(len(tables[split])))) for split in ("train", second)]
        told = f"{name}: {source}, splits train and {second}"
    else:
        own = first[labels]
        items = [(Path(f"{place:09}"), str(label)) for place, label in enumerate(own)]
        parts = [(first, sorted(int(path.name) for path, _ in some)) for some in divided(items)]
        told = f"{name}: {source}, {SHARE:.0%} of each class to learn from, by a hash of the picture's place"
    columns = [[table[labels][place] for place in places] for table, places in parts]
    kinds = sorted({label for column in columns for label in column})
    place = {label: row for row, label in enumerate(kinds)}
    named = getattr(first.features[labels], "names", None)
    classes = tuple(str(named[label]) if named and isinstance(label, int) else str(label) for label in kinds)
    made = [
        Labelled(Chosen(Rows(table, pictures), places), tuple(place[label] for label in column))
        for (table, places), column in zip(parts, columns, strict=True)
    ]
    return ClassStream(name, classes, *made, told=told)
