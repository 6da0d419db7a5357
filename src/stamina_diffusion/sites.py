"""A site is a tensor of a pre-trained network that may change while a concept is learned.

`changed` lets the network see its sites plus their changes, for as long as a forward and backward pass takes; `fold`
adds the changes for good. Both add the very same tensors, so the folded network computes what the changed one did.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .compact import added

Role = Literal["weight", "token", "head"]
_NEW = re.compile(r"(token(_\d+)?|head(_bias)?)/")
_START = re.compile(r"start(_\d+|_head(_bias)?)?")


@dataclass(frozen=True, eq=False)
class Site:
    """One tensor of a backbone: a whole parameter, or some of its rows (a new word, the classes of a task)."""

    name: str
    """Stable across runs: the key in every file that we write."""
    role: Role
    module: nn.Module
    parameter: str
    rows: tuple[int, int] | None = None
    """First row and the row after the last, where only a part of the parameter is the site."""
    inputs: Tensor | None = None
    """Of a weight, if the method's `input_batches` asks: the mean of x xᵀ, (in, in), over all x that its layer sees of
    the concept before it is learned."""

    @property
    def value(self) -> Tensor:
        """The pre-trained tensor, a view; what is written to it stays."""
        whole = getattr(self.module, self.parameter).data
        return whole if self.rows is None else whole[self.rows[0] : self.rows[1]]

    @property
    def shape(self) -> torch.Size:
        return self.value.shape


def is_word(name: str) -> bool:
    """Whether a site's name is that of rows made for the concept: 'token/<rex>', 'token_2/<rex>' in a second encoder,
    'head/birds' and 'head_bias/birds' of the classes of a task.

    >>> is_word("token_2/<rex>"), is_word("head_bias/birds"), is_word("unet.token_embedding.weight")
    (True, True, False)
    """
    return _NEW.match(name) is not None


def start_key(name: str) -> str:
    """The name in a concept's file of what the rows made for it were before it was learned.

    >>> start_key("token/<rex>"), start_key("token_2/<rex>"), start_key("head/birds")
    ('start', 'start_2', 'start_head')
    """
    table = name.partition("/")[0].removeprefix("token")
    return "start" + (f"_{table}" if table and not table.startswith("_") else table)


def changes_in(recorded: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A concept's file by site, without what its word's rows were before."""
    return {name: value for name, value in recorded.items() if not _START.fullmatch(name)}


@contextmanager
def changed(sites: Mapping[str, Site], changes: Mapping[str, Tensor]) -> Iterator[None]:
    """Inside, the network computes with site + change for every change; backward passes must end inside too.

    A backward pass inside sees the same draw of a stochastic change as the forward pass, also where activation
    checkpointing computes the forward pass again.
    """
    with ExitStack() as stack:
        for name, change in changes.items():
            site = sites[name]
            if site.role == "token":
                stack.enter_context(_rows_added_on_lookup(site, change))
            else:
                stack.enter_context(_parameter_added(site, change))
        yield


@contextmanager
def _parameter_added(site: Site, change: Tensor) -> Iterator[None]:
    parameters: dict[str, Any] = site.module._parameters
    original = parameters[site.parameter]
    if site.rows is None:
        tensor = added(original, change)
    else:
        first, end = site.rows
        tensor = torch.cat([original[:first], original[first:end] + change, original[end:]])
    # Put in the parameter's own place, as torch.func.functional_call does: taken out and put back, it would end up
    # last in its module, and whatever asks the network for its dtype or device would find nothing meanwhile.
    parameters[site.parameter] = tensor
    try:
        yield
    finally:
        parameters[site.parameter] = original


@contextmanager
def _rows_added_on_lookup(site: Site, change: Tensor) -> Iterator[None]:
    # Adding to the looked-up vectors, not to the table: a table of 49,408 words must not be copied at every step.
    assert site.rows is not None
    first, end = site.rows

    def add(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        for place, row in enumerate(range(first, end)):
            output = torch.where((args[0] == row).unsqueeze(-1), output + change[place].to(output.dtype), output)
        return output

    handle = site.module.register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()


@torch.no_grad()
def fold(sites: Mapping[str, Site], changes: Mapping[str, Tensor]) -> None:
    """Add the changes to their sites for good. After it the network is plain again.

    Raises ValueError, and changes nothing, for a change of no site, or of another shape or kind than its site.
    """
    for name, change in changes.items():
        if name not in sites:
            raise ValueError(f"there is no site {name[:200]!r}")
        if change.shape != sites[name].shape or not change.is_floating_point():
            found = f"{change.dtype} of {list(change.shape)}"
            raise ValueError(f"the change of {name} is {found}, and its site has {list(sites[name].shape)}")
    for name, change in changes.items():
        value = sites[name].value
        value.copy_(value + change.to(value))
