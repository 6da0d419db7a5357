"""What must hold for every method on every backbone, as functions that the author of a new one can call.

>>> from stamina_diffusion import testing
>>> from stamina_diffusion.backbones.toy import Toy
>>> from stamina_diffusion.methods.c_lora import CLoRA
>>> testing.laws(Toy, CLoRA(rank=2))

Beside the laws stand the things they are shown on: pictures of noise, and (in `testing_pipelines`) a real pipeline of
each family with random weights, small enough that a learning step takes a hundredth of a second.
"""

from __future__ import annotations

import json
import math
import re
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from . import seeds
from .backbones.base import Backbone
from .concepts import Concept, Task
from .deltas import Delta
from .files import write_tensors
from .learn import Learned, Step, learn
from .method import Change, Changes, Memory, Method
from .observe import observe, past_features, seeing
from .plan import Plan
from .sites import Site, changed, fold
from .testing_pipelines import tiny_pipeline as tiny_pipeline

MakeBackbone = Callable[[], Backbone]
"""Makes the same pre-trained network again at every call."""

CLOSE = 1e-5
"""How far two outputs of order 1 may lie apart that mathematics says are equal."""

PLAN = Plan(steps=3, batch=2, prior_images=0, replay_images=2)


def laws(make_backbone: MakeBackbone, method: Method) -> None:
    """Every law, one after another. Raises AssertionError with what was found."""
    for law in LAWS:
        law(make_backbone, method)


def starts_unchanged(make_backbone: MakeBackbone, method: Method) -> None:
    """Attaching a method does not alter the network's output."""
    backbone, concept = make_backbone(), noise_concept("rex")
    sites, deltas, _ = _attached(backbone, concept, method, {})
    plain = outputs(backbone, concept, method)
    with torch.no_grad(), changed(sites, {name: delta() for name, delta in deltas.items()}):
        attached = outputs(backbone, concept, method)
    _check(_distance(plain, attached) <= CLOSE, f"the outputs differ by {_distance(plain, attached):.2g}")


def moves_only_its_own(make_backbone: MakeBackbone, method: Method) -> None:
    """Until the fold every pre-trained tensor is bit-equal, and every trainable parameter has moved."""
    backbone, concept = make_backbone(), noise_concept("rex")
    frozen = _tensors(backbone)
    with tempfile.TemporaryDirectory() as folder, _checkpoints_at_every_step():
        file = Path(folder) / "checkpoint.safetensors"
        early: dict[str, Tensor] = {}

        def watch(step: Step) -> None:
            tables = _tables(backbone, concept)
            for name, tensor in _tensors(backbone).items():
                before = frozen[name]
                _check(torch.equal(tensor[: len(before)] if name in tables else tensor, before), f"{name} moved")
            if step.step == 2:
                early.update(load_file(file))

        learn(backbone, method, concept, {}, PLAN, checkpoint=file, watch=watch)
        late = load_file(file)
    parameters = [name for name in late if name.startswith("parameter/")]
    still = [name for name in parameters if torch.equal(early[name], late[name])]
    _check(bool(parameters), "nothing is trained")
    _check(not still, f"{still} did not move")


def folds_exactly(make_backbone: MakeBackbone, method: Method) -> None:
    """The folded network computes what the network with its changes did, in evaluation mode."""
    backbone, concept = make_backbone(), noise_concept("rex")
    sites, deltas, memory = _attached(backbone, concept, method, {})
    plain = outputs(backbone, concept, method)
    changes = _finished(backbone, method, concept, sites, deltas)
    with changed(sites, {name: change.value for name, change in changes.items()}):
        before = outputs(backbone, concept, method)
    fold(sites, method.fold(changes, memory))
    after = outputs(backbone, concept, method)
    _check(_distance(plain, before) > 10 * CLOSE, "the changes change nothing")
    _check(_distance(before, after) <= CLOSE, f"the outputs differ by {_distance(before, after):.2g}")


def costs_nothing_after(make_backbone: MakeBackbone, method: Method) -> None:
    """After the fold the network is plain: its own modules, names and shapes, and the new rows in each table."""
    backbone, concept = make_backbone(), noise_concept("rex")
    learn(backbone, method, concept, {}, PLAN)
    after = _anatomy(backbone)
    merely_grown = make_backbone()
    shapes = _shapes(merely_grown)
    merely_grown.grow(concept, method, PLAN.seed)
    # Used once, as the other was: transformers' networks set a mark on themselves at their first use.
    outputs(merely_grown, concept, method)
    before = _anatomy(merely_grown)
    _check(list(before) == list(after), f"modules {sorted(set(before) ^ set(after))} appeared or went, or moved")
    for name, anatomy in after.items():
        _check(before[name] == anatomy, f"{name} was {before[name]} and is {anatomy}")
    tables, grown = _tables(backbone, concept), _shapes(backbone)
    for table, new in zip(tables, _new_rows(backbone, concept), strict=True):
        rows, *columns = shapes[table]
        _check(grown[table] in ((rows, *columns), (rows + len(new.value), *columns)), f"{table} became {grown[table]}")
    _check(list(shapes) == list(grown), "the parameters have other names, or another order")
    _check({**shapes, **{table: grown[table] for table in tables}} == grown, "a parameter has another shape")


def first_is_free(make_backbone: MakeBackbone, method: Method) -> None:
    """The first concept pays no penalty; later ones never a negative one, and its gradient is finite."""
    backbone = make_backbone()
    sites, deltas, memory = _attached(backbone, noise_concept("rex"), method, {})
    first = _stirred(sites, deltas, training=True)
    price = _number(method.penalty(first, memory))
    _check(price == 0, f"the first concept pays {price}")
    memory = _memory(backbone, method, noise_concept("tom"))
    sites, deltas, memory = _attached(backbone, noise_concept("ann"), method, memory)
    later = _stirred(sites, deltas, training=True)
    cost = method.penalty(later, memory)
    price = _number(cost)
    _check(math.isfinite(price) and price >= 0, f"a later concept pays {price}")
    if isinstance(cost, Tensor) and cost.requires_grad:
        cost.backward()
        gradients = [p.grad for delta in deltas.values() for p in delta.parameters() if p.grad is not None]
        _check(all(bool(gradient.isfinite().all()) for gradient in gradients), "a gradient is not finite")


def remembers_by_value(make_backbone: MakeBackbone, method: Method) -> None:
    """`remember` and `fold` leave their arguments alone; memory holds values of its own, and is a safetensors file."""
    backbone = make_backbone()
    concept, stored_past = noise_concept("tom"), _memory(backbone, method, noise_concept("rex"))
    untouched = {name: value.clone() for name, value in stored_past.items()}
    sites, deltas, memory = _attached(backbone, concept, method, stored_past)
    changes = _finished(backbone, method, concept, sites, deltas)
    values = {name: change.value.clone() for name, change in changes.items()}
    past = {name: value.clone() for name, value in memory.items()}
    kept = method.remember(changes, memory)
    folded = method.fold(changes, memory)
    _check(_equal({name: change.value for name, change in changes.items()}, values), "a change was altered")
    _check(_equal(memory, past) and _equal(stored_past, untouched), "the memory of the past was altered")
    _check(set(folded) <= set(sites), f"fold names {sorted(set(folded) - set(sites))}, which are no sites of its own")
    for name, value in folded.items():
        _check(value.shape == sites[name].shape, f"fold gives {name} the shape {tuple(value.shape)}")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "memory.safetensors"
        write_tensors(file, kept)
        stored = load_file(file)
    for change in changes.values():
        change.value.zero_()
    _check(_equal(kept, stored), "the memory changes with what it was made from, or is not what the file holds")
    names = [name for name in kept if not re.fullmatch(r"[^/]+/.+", name)]
    _check(not names, f"the keys {names} are not '<what>/<site>'")


def repeats(make_backbone: MakeBackbone, method: Method) -> None:
    """The same seed gives the same bytes; so does a run that was interrupted and resumed from its checkpoint."""
    memory = _memory(make_backbone(), method, noise_concept("tom"))
    concept = noise_concept("rex")
    whole = _bytes(learn(make_backbone(), method, concept, memory, PLAN))

    def interrupt(step: Step) -> None:
        if step.step == PLAN.steps - 1:
            raise _InterruptedError

    with tempfile.TemporaryDirectory() as folder, _checkpoints_at_every_step():
        file = Path(folder) / "checkpoint.safetensors"
        with suppress(_InterruptedError):
            learn(make_backbone(), method, concept, memory, PLAN, checkpoint=file, watch=interrupt)
        seen: list[int] = []
        resumed = learn(
            make_backbone(), method, concept, memory, PLAN, checkpoint=file, watch=lambda step: seen.append(step.step)
        )
    _check(seen == [PLAN.steps - 1, PLAN.steps], f"the resumed run did the steps {seen}")
    if _bytes(resumed) != whole:
        again = _bytes(learn(make_backbone(), method, concept, memory, PLAN))
        _check(again == whole, "a second run gave other bytes")
        _check(False, "a second run gives the same bytes, but one that is interrupted and resumed does not")


def is_plain_data(make_backbone: MakeBackbone, method: Method) -> None:
    """A method is built from defaults, prints itself, and its settings pass through JSON and TOML."""
    cls = type(method)
    _check(cls() == cls(), "two methods of defaults differ")
    for one in (cls(), method):
        _check(eval(repr(one), _classes(one)) == one, f"{one!r} does not build it again")
        settings = one.settings()
        _check(cls(**json.loads(json.dumps(settings))) == one, "its settings do not pass through JSON")
        _check(cls(**tomllib.loads(_toml(settings))) == one, "its settings do not pass through TOML")


def old_words_stay(make_backbone: MakeBackbone, method: Method) -> None:
    """While a later concept is learned, the rows of earlier words and of the whole table stay to the bit."""
    backbone, first, second = make_backbone(), noise_concept("rex"), noise_concept("tom")
    plain = _tensors(backbone)
    memory = learn(backbone, method, first, {}, PLAN).memory
    before = {table: _tensors(backbone)[table] for table in _tables(backbone, first)}
    for table, rows in before.items():
        _check(
            torch.equal(rows[: len(plain[table])], plain[table]), "the first concept moved a row that is not its own"
        )
    own = [word.value.clone() for word in _new_rows(backbone, first)]
    learn(backbone, method, second, memory, PLAN)
    after = _tensors(backbone)
    kept = [word.value for word in _new_rows(backbone, first)]
    _check(all(map(torch.equal, kept, own)), "the second concept moved the first one's word")
    for table, rows in before.items():
        _check(torch.equal(after[table][: len(rows)], rows), "the second concept moved a row that is not its own")


def knows_its_source(make_backbone: MakeBackbone, method: Method) -> None:
    """The papers are named by their numbers, and the documentation of the method or its module cites each."""
    papers = re.findall(r"arXiv \d{4}\.\d{4,5}|doi:\S+", method.paper)
    text = " ".join(f"{sys.modules[type(method).__module__].__doc__} {type(method).__doc__}".split())
    _check(bool(papers), f"{method.paper!r} names no paper as 'arXiv 2311.18763' or 'doi:...'")
    for paper in papers:
        _check(paper in text, f"no docstring cites {paper}")


LAWS = (
    starts_unchanged,
    moves_only_its_own,
    folds_exactly,
    costs_nothing_after,
    first_is_free,
    remembers_by_value,
    repeats,
    is_plain_data,
    old_words_stay,
    knows_its_source,
)


# -- what the laws are shown on ------------------------------------------------------------------------------------


def noise_pictures(count: int, side: int = 8) -> tuple[Image.Image, ...]:
    """`count` pictures of nothing, always the same."""
    draws = [np.random.default_rng(place) for place in range(count)]
    return tuple(Image.fromarray(draw.integers(0, 256, (side, side, 3), dtype=np.uint8)) for draw in draws)


def noise_concept(name: str) -> Task:
    """A concept of three pictures of nothing, which are of two classes where the network tells classes apart."""
    return Task(name, noise_pictures(3), class_word="dog", classes=(f"{name} a", f"{name} b"), labels=(0, 1, 0))


@torch.no_grad()
def outputs(backbone: Backbone, concept: Concept, method: Method) -> list[Tensor]:
    """What each network of the backbone answers to one batch of a grown concept."""
    answers: list[Tensor] = []

    def hear(module: nn.Module, args: Any, answer: Any) -> None:
        answers.append((answer if isinstance(answer, Tensor) else answer[0]).clone())

    material = backbone.material(concept, method, PLAN)
    with ExitStack() as stack:
        for network in backbone.modules.values():
            stack.callback(network.register_forward_hook(hear).remove)
        backbone.loss(backbone.batch(material, PLAN, "outputs"))
    return answers


# -- how the laws look ---------------------------------------------------------------------------------------------


class _InterruptedError(Exception):
    """What stops a run in the middle."""


def _check(holds: bool, found: str) -> None:
    if not holds:
        raise AssertionError(found)


def _number(cost: Tensor | float) -> float:
    return float(cost.detach() if isinstance(cost, Tensor) else cost)


def _attached(
    backbone: Backbone, concept: Concept, method: Method, memory: Memory
) -> tuple[dict[str, Site], dict[str, Delta], Memory]:
    """The sites that the method changes in the grown backbone, its deltas as they start, and what they begin with."""
    backbone.grow(concept, method, PLAN.seed)
    sites = backbone.sites(concept, method.scope)
    if method.input_batches:
        sites = seeing(backbone, method, concept, PLAN, backbone.material(concept, method, PLAN), sites)
    past = past_features(backbone, method, concept, PLAN)
    memory = memory if past is None else method.begin(memory, past)
    with seeds.drawing_for(PLAN.seed, concept.name, "start"):
        made = {name: method.delta(site, memory) for name, site in sites.items()}
    deltas = {name: delta.to(backbone.device) for name, delta in made.items() if delta is not None}
    return {name: sites[name] for name in deltas}, deltas, memory


def _stirred(sites: Mapping[str, Site], deltas: Mapping[str, Delta], *, training: bool) -> Changes:
    """Changes of deltas whose parameters all were moved at random, as if something had been learned."""
    with seeds.drawing_for("stir"):
        with torch.no_grad():
            for delta in deltas.values():
                for parameter in delta.parameters():
                    parameter.add_(0.1 * torch.randn_like(parameter))
        values = {name: delta.train(training)() for name, delta in deltas.items()}
    return {
        name: Change(sites[name], deltas[name], value if training else value.detach()) for name, value in values.items()
    }


def _finished(
    backbone: Backbone, method: Method, concept: Concept, sites: Mapping[str, Site], deltas: Mapping[str, Delta]
) -> Changes:
    """Changes as if something had been learned, with what the method asks to see of them."""
    material, past = backbone.material(concept, method, PLAN), past_features(backbone, method, concept, PLAN)
    return observe(backbone, method, concept, PLAN, material, _stirred(sites, deltas, training=False), past)


def _memory(backbone: Backbone, method: Method, concept: Concept) -> dict[str, Tensor]:
    """What the method remembers of one made-up concept."""
    sites, deltas, memory = _attached(backbone, concept, method, {})
    changes = _finished(backbone, method, concept, sites, deltas)
    return dict(method.remember(changes, memory))


def _new_rows(backbone: Backbone, concept: Concept) -> list[Site]:
    return [site for site in backbone.sites(concept, "tokens").values() if site.role != "weight"]


def _tables(backbone: Backbone, concept: Concept) -> list[str]:
    """The full names of the parameters that hold rows of words or classes, the grown concept's among them."""
    names = {module: path for path, module in _named_modules(backbone)}
    for word in _new_rows(backbone, concept):
        _check(word.module in names, f"{word.name} lies outside the backbone's modules")
    return [f"{names[word.module]}.{word.parameter}" for word in _new_rows(backbone, concept)]


def _named_modules(backbone: Backbone) -> Iterator[tuple[str, nn.Module]]:
    for prefix, network in backbone.modules.items():
        for path, module in network.named_modules():
            yield ".".join(filter(None, (prefix, path))), module


def _tensors(backbone: Backbone) -> dict[str, Tensor]:
    """A copy of every parameter and buffer."""
    return {
        f"{path}.{name}": tensor.detach().clone()
        for path, module in _named_modules(backbone)
        for name, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
    }


def _shapes(backbone: Backbone) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in _tensors(backbone).items()}


def _anatomy(backbone: Backbone) -> dict[str, tuple[Any, ...]]:
    """For every module: its class, its attributes' names, how many hooks it has, and what trains or is no parameter."""
    return {
        path: (
            type(module).__name__,
            sorted(vars(module)),
            sum(len(hooks) for name, hooks in vars(module).items() if name.endswith("_hooks") and hooks),
            [name for name, some in module._parameters.items() if some is not None and type(some) is not nn.Parameter],
            [name for name, some in module.named_parameters(recurse=False) if some.requires_grad],
        )
        for path, module in _named_modules(backbone)
    }


def _distance(some: list[Tensor], others: list[Tensor]) -> float:
    """The largest difference of an entry, in units of the larger of 1 and the largest entry."""
    _check(len(some) == len(others) > 0, "the networks were called another number of times")
    return max(
        float((one.double() - other.double()).abs().max() / max(1.0, float(one.abs().max())))
        for one, other in zip(some, others, strict=True)
    )


def _equal(some: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> bool:
    return some.keys() == others.keys() and all(torch.equal(some[name], others[name]) for name in some)


def _bytes(learned: Learned) -> dict[str, bytes]:
    """Everything that was learned, to the bit."""
    tensors = {f"change/{name}": value for name, value in learned.changes.items()}
    tensors |= {f"memory/{name}": value for name, value in learned.memory.items()}
    tensors |= learned.start
    return {name: value.contiguous().numpy().tobytes() for name, value in tensors.items()}


@contextmanager
def _checkpoints_at_every_step() -> Iterator[None]:
    module: Any = import_module(f"{__package__}.learn")
    before, module.CHECKPOINT_SECONDS = module.CHECKPOINT_SECONDS, -1.0
    try:
        yield
    finally:
        module.CHECKPOINT_SECONDS = before


def _toml(settings: Mapping[str, Any]) -> str:
    """Settings as a TOML table; TOML has no null, so a field that is None is left to its default."""
    return "\n".join(f"{name} = {_toml_value(value)}" for name, value in settings.items() if value is not None)


def _toml_value(value: Any) -> str:
    return f"{{{', '.join(_toml(value).splitlines())}}}" if isinstance(value, Mapping) else json.dumps(value)


def _classes(method: Method) -> dict[str, type]:
    """The classes that the method's `repr` names: its own, and those of the methods that it holds."""
    held = [value for value in vars(method).values() if isinstance(value, Method)]
    return {type(one).__name__: type(one) for one in (method, *held)} | {
        name: cls for one in held for name, cls in _classes(one).items()
    }
