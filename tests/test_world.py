"""The procedural world: deterministic, disjoint, captioned in plain words, as hard as one asks for."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stamina_diffusion import world
from stamina_diffusion.world import FAMILIES, LITTER, POOLS, WorldConcept

families = st.sampled_from(sorted(FAMILIES))
pools = st.sampled_from(sorted(POOLS))
indices = st.integers(0, world.POOL_SIZE - 1)


@settings(deadline=None, max_examples=40)
@given(families, pools, indices, st.integers(0, 50))
def test_the_same_view_is_the_same_picture_with_the_same_words(family: str, pool: str, index: int, view: int) -> None:
    first, again = (WorldConcept(family, pool, index).view(view) for _ in range(2))
    assert first.render(32).tobytes() == again.render(32).tobytes()
    assert first.caption(3) == again.caption(3)


@settings(deadline=None, max_examples=60)
@given(families, pools, indices, st.integers(0, 50))
def test_every_factor_has_a_grade_and_every_caption_is_plain(family: str, pool: str, index: int, view: int) -> None:
    seen = WorldConcept(family, pool, index).view(view)
    grades = world.grades(family)
    assert seen.attributes.keys() == grades.keys()
    assert all(grade in grades[factor] for factor, grade in seen.attributes.items())
    caption = seen.caption(view)
    assert set(caption) <= set("abcdefghijklmnopqrstuvwxyz-, ")
    assert 2 <= len(caption.split()) <= 40


@pytest.mark.parametrize("size", [16, 33, 64, 200])
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_any_size_shows_the_same_thing(family: str, size: int) -> None:
    view = WorldConcept(family, "stream", 4).view(0)
    picture = view.render(size)
    assert (picture.size, picture.mode) == ((size, size), "RGB")
    small, reference = (np.asarray(p.resize((16, 16), 4), dtype=float) for p in (picture, view.render(64)))
    assert np.abs(small - reference).mean() < 12


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_views_of_one_concept_differ_less_than_concepts_do(family: str) -> None:
    concepts = [WorldConcept(family, "stream", i) for i in range(6)]
    identities = [tuple(sorted((k, str(v)) for k, v in concept.identity.items())) for concept in concepts]
    assert len(set(identities)) == len(concepts)
    for concept in concepts:
        pictures = {concept.view(v).render(32).tobytes() for v in range(6)}
        assert len(pictures) == 6
        words = [{k: concept.view(v).attributes[k] for k in FAMILIES[family].IDENTITY_FACTORS} for v in range(6)]
        assert all(some == words[0] for some in words)


def test_pools_never_share_a_seed() -> None:
    ranges = sorted((start, start + world.POOL_SIZE) for start in POOLS.values())
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(ranges))


@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize("similar", [1, 3])
def test_siblings_differ_from_their_ancestor_in_k_parts_only(family: str, similar: int) -> None:
    parts = FAMILIES[family].PARTS
    litter = [WorldConcept(family, "tuning", 10 + i, similar).identity for i in range(LITTER)]
    for a in range(LITTER):
        for b in range(a):
            differing = [p for p, keys in parts.items() if any(litter[a][k] != litter[b][k] for k in keys)]
            assert len(differing) <= 2 * similar


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_part_is_named_once(family: str) -> None:
    module = FAMILIES[family]
    keys = [key for part in module.PARTS.values() for key in part]
    assert len(keys) == len(set(keys))
    assert set(keys) == set(WorldConcept(family, "base", 0).identity)
    assert set(module.IDENTITY_FACTORS) <= set(module.GRADES)


def test_a_wrong_family_pool_or_index_is_named() -> None:
    with pytest.raises(ValueError, match="unknown family 'dogs'"):
        WorldConcept("dogs", "base", 0)
    with pytest.raises(ValueError, match="unknown pool"):
        WorldConcept("faces", "test", 0)
    with pytest.raises(ValueError, match="outside the pool"):
        WorldConcept("faces", "base", world.POOL_SIZE)


def test_the_sheet_has_a_row_a_concept_and_a_column_a_view() -> None:
    picture = world.sheet(concepts=2, views=3, size=16)
    assert picture.size == (3 * 18 + 2, 4 * 18 + 2)
