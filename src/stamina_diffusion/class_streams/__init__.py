"""Streams of classes: labelled pictures of a data set, cut into tasks of equally many classes in an order of its seed.

Seed 0 is the natural order, others shuffle it as CODA-Prompt's code does (arXiv 2211.13218): their results are of the
same tasks.
"""

from __future__ import annotations

import abc
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, overload

import numpy as np
from PIL import Image

from ..concepts import Task
from ..errors import SettingsError

Order = Literal["coda", "pilot"]


class Pictures(Sequence[Image.Image]):
    """Pictures that are made, or read, when they are looked at."""

    @abc.abstractmethod
    def at(self, place: int) -> Image.Image:
        """The picture at a place from the front, 0 to len − 1."""

    @overload
    def __getitem__(self, place: int) -> Image.Image: ...
    @overload
    def __getitem__(self, place: slice) -> Chosen: ...
    def __getitem__(self, place: int | slice) -> Image.Image | Chosen:
        places = range(len(self))[place]
        return Chosen(self, places) if isinstance(places, range) else self.at(places)


class Chosen(Pictures):
    """Some pictures of a sequence, by place, without copying any: a data set on a disk is read when it is looked at."""

    def __init__(self, pictures: Sequence[Image.Image], places: Sequence[int]) -> None:
        self.pictures, self.places = pictures, places

    def __len__(self) -> int:
        return len(self.places)

    def at(self, place: int) -> Image.Image:
        return self.pictures[self.places[place]]


@dataclass(frozen=True, eq=False)
class Labelled:
    """Pictures and the class of each, as its place in the natural order."""

    pictures: Sequence[Image.Image]
    labels: tuple[int, ...]


class Lesson(tuple[Task, Task]):
    """A task's pictures to learn from, and those it is judged by."""

    __slots__ = ()

    @property
    def taught(self) -> Task:
        return self[0]

    @property
    def asked(self) -> Task:
        return self[1]


@dataclass(frozen=True, eq=False)
class ClassStream:
    """A data set with its classes in their natural order."""

    name: str
    classes: tuple[str, ...]
    train: Labelled
    test: Labelled
    told: str = ""
    """Where the pictures are from and how train and test were told apart, for the report."""

    def __post_init__(self) -> None:
        for part, said in ((self.train, "train"), (self.test, "test")):
            if len(part.pictures) != len(part.labels):
                found = f"{len(part.labels)} labels for {len(part.pictures)} pictures of {said}"
                raise SettingsError(f"stream {self.name} has {found}", do="Give one for each.")
            bare = sorted(set(range(len(self.classes))) - set(part.labels))
            if bare:
                what = f"stream {self.name} has no {said} picture of class {self.classes[bare[0]]!r}"
                raise SettingsError(what, do=f"Give each class a {said} picture, or leave the class out.")

    def lessons(self, tasks: int, seed: int = 0, order: Order = "coda") -> list[Lesson]:
        """The tasks in the order of a seed. Raises SettingsError where the classes cannot be shared out evenly."""
        count = len(self.classes)
        if tasks < 1 or count % tasks:
            fit = ", ".join(str(number) for number in range(1, count + 1) if count % number == 0)
            what = f"{count} classes cannot be shared out evenly to {tasks} tasks"
            raise SettingsError(what, where=self.name, do=f"Choose one of: {fit}.")
        size, ordered = count // tasks, order_of(count, seed, order)
        return [self._lesson(place, ordered[place * size : (place + 1) * size]) for place in range(tasks)]

    def _lesson(self, place: int, own: Sequence[int]) -> Lesson:
        rank = {label: row for row, label in enumerate(own)}

        def task(part: Labelled) -> Task:
            places = [i for i, label in enumerate(part.labels) if label in rank]
            labels = tuple(rank[part.labels[i]] for i in places)
            classes = tuple(self.classes[label] for label in own)
            return Task(f"task-{place + 1}", Chosen(part.pictures, places), classes=classes, labels=labels)

        return Lesson((task(self.train), task(self.test)))


def order_of(count: int, seed: int, order: Order = "coda") -> list[int]:
    """The order of classes: of "coda", natural for seed 0, else Python's shuffle; of "pilot", numpy's permutation.

    >>> order_of(200, 0)[:4], order_of(200, 1)[:10]
    ([0, 1, 2, 3], [33, 146, 79, 19, 23, 131, 12, 187, 174, 32])
    """
    if order == "pilot":
        return np.random.RandomState(seed).permutation(count).tolist()
    ordered = list(range(count))
    if seed:
        random.Random(seed).shuffle(ordered)
    return ordered
