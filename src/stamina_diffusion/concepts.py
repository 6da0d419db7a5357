"""A concept: a name, the word that stands for it in a prompt, and the photos it is learned from."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from .errors import SettingsError, UnknownWordError, UnsafeNameError, nearest

LONGEST_NAME = 40
_SAFE = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_WORD = re.compile(r"<[^<>\s]+>")


def word_of(name: str) -> str:
    """`rex` → `<rex>`. Raises UnsafeNameError for a name that is no plain word."""
    if not _SAFE.fullmatch(name) or len(name) > LONGEST_NAME:
        raise UnsafeNameError(
            f"{name!r} cannot be a concept's name",
            do=f"Take letters, digits, - and _, a letter first, at most {LONGEST_NAME} in all: 'rex' or 'tower-2'.",
        )
    return f"<{name}>"


def check_words(prompt: str, known: Sequence[str]) -> None:
    """Raise UnknownWordError for the first `<word>` of a prompt that is not known, with the nearest that is.

    Raises SettingsError for a prompt that is no text.
    """
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        what = "the prompt holds half of a character (a surrogate without its other half)"
        raise SettingsError(what, do="Write it anew.") from error
    for word in _WORD.findall(prompt):
        if word not in known:
            near = nearest(word, known)
            hint = f"Did you mean {near}? " if near else ""
            have = f"Known words: {', '.join(known)}." if known else "Nothing has been learned yet."
            raise UnknownWordError(f"the prompt has the unknown word {word}", do=f"{hint}{have}")


@dataclass(frozen=True, eq=False)
class Concept:
    """What one call of `learn` teaches."""

    name: str
    images: Sequence[Image.Image]
    """RGB, square, at the backbone's resolution."""
    captions: tuple[str | None, ...] = ()
    class_word: str | None = None

    def __post_init__(self) -> None:
        if not self.images:
            raise SettingsError(
                f"concept {self.name} has no pictures", do="Give at least one; four or more are better."
            )
        if self.captions and len(self.captions) != len(self.images):
            found = f"{len(self.captions)} captions for {len(self.images)} pictures"
            raise SettingsError(f"concept {self.name} has {found}", do="Give one for each, None where there is none.")

    @property
    def word(self) -> str:
        return word_of(self.name)

    def subject(self, with_class: bool) -> str:
        """What stands in a prompt for the concept: `<rex>`, or `<rex> dog`."""
        return f"{self.word} {self.class_word}" if with_class and self.class_word else self.word

    def prompts(self, templates: Sequence[str], with_class: bool) -> list[list[str]]:
        """For each image the prompts it may be shown with."""
        subject = self.subject(with_class)
        captions = self.captions or (None,) * len(self.images)
        return [
            [template.format(subject) for template in templates] if caption is None else [self._in(caption, subject)]
            for caption in captions
        ]

    def _in(self, caption: str, subject: str) -> str:
        """A photo's own caption with the subject where its author put it, else in front."""
        for place in (self.word, "[trigger]", "{}"):
            if place in caption:
                return caption.replace(place, subject)
        return f"a photo of {subject}, {caption}"


@dataclass(frozen=True, eq=False)
class Task(Concept):
    """A concept of classes: what one call of `learn` teaches a classifier."""

    classes: tuple[str, ...] = ()
    """Their names, in the order of their rows."""
    labels: tuple[int, ...] = ()
    """Of each picture, the place of its class in `classes`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        twice = sorted({name for name in self.classes if self.classes.count(name) > 1})
        if twice:
            raise SettingsError(f"task {self.name} has the class {twice[0]!r} twice", do="Name each class once.")
        if len(self.labels) != len(self.images):
            found = f"{len(self.labels)} labels for {len(self.images)} pictures"
            raise SettingsError(f"task {self.name} has {found}", do="Give one for each.")
        if set(self.labels) != set(range(len(self.classes))):
            found = f"{len(self.classes)} classes, and its pictures' labels are {sorted(set(self.labels))}"
            raise SettingsError(f"task {self.name} has {found}", do="Give each class a picture, each picture a class.")
