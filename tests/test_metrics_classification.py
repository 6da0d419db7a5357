"""The measures of a classification stream: by hand, by properties, on a public log, and against two oracles."""

import doctest
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stamina_diffusion.metrics import classification as of
from stamina_diffusion.metrics.classification import UNSEEN, Predictions, Undefined, measures, of_matrix

SEEDS = st.integers(0, 9_999)
TASKS = st.integers(1, 6)


def stream(tasks: int, seed: int, told: bool = True) -> Predictions:
    """Predictions at random, of tasks of one to three classes and unequal size."""
    draw = np.random.default_rng(seed)
    task_of = np.repeat(np.arange(tasks), draw.integers(1, 4, tasks))
    truth = draw.permutation(np.repeat(np.arange(len(task_of)), draw.integers(1, 6, len(task_of))))
    task = task_of[truth]
    said = np.full((tasks, len(truth)), UNSEEN)
    within = said.copy()
    for time, place in itertools.product(range(tasks), range(len(truth))):
        if task[place] <= time:
            right = draw.random() < 0.5
            said[time, place] = truth[place] if right else draw.integers(np.sum(task_of <= time))
            own = np.nonzero(task_of == task[place])[0]
            within[time, place] = said[time, place] if said[time, place] in own else draw.choice(own)
    return Predictions(task_of, truth, said, within if told else None)


def accuracies(tasks: int, seed: int) -> np.ndarray:
    scores = np.random.default_rng(seed).random((tasks, tasks))
    scores[np.triu_indices(tasks, 1)] = np.nan
    return scores


def numbers(found: dict) -> dict[str, float]:
    return {name: value for name, value in found.items() if not isinstance(value, Undefined)}


def test_the_examples_in_the_documentation_hold():
    found = doctest.testmod(of, extraglobs={"np": np})
    assert found.attempted > 0
    assert found.failed == 0


# -------------------------------------------------------------------------------------------------------------- by hand

HAND = [[0.9, np.nan, np.nan], [0.5, 0.8, np.nan], [0.6, 0.4, 1.0]]


def test_three_tasks_by_hand():
    # A_1 = 0.9, A_2 = (0.5 + 0.8)/2 = 0.65, A_3 = (0.6 + 0.4 + 1)/3 = 2/3; their mean (0.9 + 0.65 + 2/3)/3.
    # CODA: t = 2: 0.9 − 0.5 = 0.4; t = 3: ((0.5 − 0.6) + (0.8 − 0.4))/2 = 0.15; mean 0.275.
    # Chaudhry: max(0.9, 0.5) − 0.6 = 0.3 and 0.8 − 0.4 = 0.4; mean 0.35. With l = T it is the same here.
    # R[j, j] − R[T, j]: 0.3 and 0.4. All pairs: (0.5 − 0.9), (0.6 − 0.9), (0.4 − 0.8): −1.1/3.
    found = of_matrix(HAND)
    assert numbers(found) == pytest.approx(
        {
            "a_macro": 2 / 3,
            "average_incremental": (0.9 + 0.65 + 2 / 3) / 3,
            "f_coda": 0.275,
            "f_chaudhry": 0.35,
            "f_pilot": 0.35,
            "f_first_last": 0.35,
            "bwt": -0.35,
            "bwt_all_pairs": -1.1 / 3,
        }
    )
    assert found["fwt"] == of.MASKED


def test_a_task_that_gains_is_negative_forgetting_for_chaudhry_and_none_for_pilot():
    # Task 1: 0.2, 0.3, then 0.7: Chaudhry 0.3 − 0.7 = −0.4, PILOT 0.7 − 0.7 = 0, first − last 0.2 − 0.7 = −0.5.
    # Task 2: 0.8, then 0.6: 0.2 each. Means −0.1, 0.1, −0.15.
    found = of_matrix([[0.2, np.nan, np.nan], [0.3, 0.8, np.nan], [0.7, 0.6, 1.0]])
    assert [found[name] for name in ("f_chaudhry", "f_pilot", "f_first_last")] == pytest.approx([-0.1, 0.1, -0.15])


def test_predictions_by_hand():
    # Classes 0, 1 in task 0 and class 2 in task 1. Pictures: 0, 0, 1, 1, 2.
    # After task 0: 0 1 1 1 → 3/4. After task 1: 2 0 1 2 2 → task 0: 0, 1 → 2/4, task 1: 1/1. Micro 3/5, macro 0.75.
    # The task told, after task 1: 0 0 1 0 2 → 3/4 and 1: 0.875. Task inferred: 2 no, 0, 1 yes, 2 no, 2 yes: 3/5.
    found = measures(
        Predictions(
            task_of=np.array([0, 0, 1]),
            truth=np.array([0, 0, 1, 1, 2]),
            said=np.array([[0, 1, 1, 1, UNSEEN], [2, 0, 1, 2, 2]]),
            within=np.array([[0, 1, 1, 1, UNSEEN], [0, 0, 1, 0, 2]]),
        )
    )
    wanted = {"a_macro": 0.75, "a_micro": 0.6, "average_incremental": 0.75, "average_incremental_micro": 0.675}
    wanted |= {"f_coda": 0.25, "bwt": -0.25, "task_incremental": 0.875, "task_inferred": 0.6}
    assert {name: found[name] for name in wanted} == pytest.approx(wanted)


def test_what_is_not_defined_says_why():
    alone = measures(stream(1, seed=0, told=False))
    forgetting = ("f_coda", "f_chaudhry", "f_pilot", "f_first_last", "bwt", "bwt_all_pairs")
    assert {alone[name] for name in forgetting} == {of.ONE_TASK}
    assert alone["task_incremental"] == of.NOT_ASKED
    assert str(alone["fwt"]).startswith("undefined: classes that were not learned yet")
    assert all(isinstance(alone[name], float) for name in ("a_macro", "a_micro", "average_incremental"))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"said": np.zeros((2, 2), int)}, "predictions are"),
        ({"said": np.array([[0, UNSEEN, UNSEEN]])}, "another number"),
        ({"said": np.array([[0, 0, UNSEEN], [0, 1, 1]])}, "before its class was learned, or not judged after"),
        ({"said": np.array([[1, UNSEEN, UNSEEN], [0, 1, 1]])}, "predicted before it was learned"),
        ({"within": np.array([[0, UNSEEN, UNSEEN], [1, 1, 1]])}, "of a class outside it"),
    ],
)
def test_predictions_that_cannot_be_are_refused(wrong, said):
    right = {
        "task_of": np.array([0, 1]),
        "truth": np.array([0, 1, 1]),
        "said": np.array([[0, UNSEEN, UNSEEN], [0, 1, 0]]),
        "within": np.array([[0, UNSEEN, UNSEEN], [0, 1, 1]]),
    }
    assert measures(Predictions(**right))["a_micro"] == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match=said):
        Predictions(**{**right, **wrong})


def test_right_among_all_is_right_among_few():
    # What is ahead of all classes is ahead of its task's: a run that says otherwise was pieced together.
    with pytest.raises(ValueError, match="right among all classes and wrong among those of its task"):
        Predictions(np.array([0, 0]), np.array([0, 1]), np.array([[0, 1]]), np.array([[1, 1]]))


@pytest.mark.parametrize("bad", [[[1.0, 2.0]], [[1.0, np.nan], [np.nan, 1.0]], []])
def test_what_is_no_matrix_of_accuracies_is_refused(bad):
    with pytest.raises(ValueError, match="a matrix of accuracies"):
        of_matrix(bad)


# ----------------------------------------------------------------------------------------------------------- properties


@given(tasks=st.integers(2, 8), seed=SEEDS)
def test_what_the_definitions_are_to_one_another(tasks, seed):
    found = numbers(of_matrix(accuracies(tasks, seed)))
    assert found["f_pilot"] >= found["f_chaudhry"] - 1e-12
    assert found["f_chaudhry"] >= found["f_first_last"] - 1e-12
    assert found["bwt"] == -found["f_first_last"]
    assert found["f_pilot"] >= 0


@given(tasks=st.integers(2, 8), score=st.floats(0, 1))
def test_what_stays_is_not_forgotten(tasks, score):
    found = numbers(of_matrix(np.full((tasks, tasks), score)))
    assert found.pop("a_macro") == pytest.approx(score)
    assert found.pop("average_incremental") == pytest.approx(score)
    assert found == pytest.approx(dict.fromkeys(found, 0.0), abs=1e-12)


@given(seed=SEEDS)
def test_of_two_tasks_the_definitions_agree(seed):
    found = numbers(of_matrix(accuracies(2, seed)))
    drop = found["f_first_last"]
    assert [found["f_coda"], found["f_chaudhry"], -found["bwt"], -found["bwt_all_pairs"]] == pytest.approx([drop] * 4)
    assert found["f_pilot"] == pytest.approx(max(drop, 0))


@settings(deadline=None)
@given(tasks=TASKS, seed=SEEDS)
def test_the_measures_of_predictions_are_their_definitions(tasks, seed):
    made = stream(tasks, seed)
    pictures = range(len(made.truth))
    seen = [[place for place in pictures if made.tasks[place] <= time] for time in range(tasks)]
    shares = [np.mean([made.said[time, place] == made.truth[place] for place in seen[time]]) for time in range(tasks)]
    found = measures(made)
    assert found["a_micro"] == pytest.approx(shares[-1])
    assert found["average_incremental_micro"] == pytest.approx(np.mean(shares))
    matrix = made.matrix()
    for time, task in itertools.combinations_with_replacement(range(tasks), 2):
        right = [made.said[task, p] == made.truth[p] for p in pictures if made.tasks[p] == time]
        assert matrix[task, time] == pytest.approx(np.mean(right))
    assert np.isnan(matrix[np.triu_indices(tasks, 1)]).all()
    assert found["task_incremental"] >= found["a_macro"]
    assert found["task_inferred"] >= found["a_micro"]


# ----------------------------------------------------------------------------------------------------------- a real run

# The accuracies that the authors' public log of SD-LoRA on ImageNet-R in 10 tasks prints after each task (arXiv
# 2501.13198; backbone augreg2, seed 1995), and its totals over all pictures.
LOG = """
89.24
86.97 86.60
85.00 85.76 88.81
83.79 83.25 88.45 80.80
80.91 82.08 86.32 80.10 82.66
78.94 81.07 86.68 78.53 82.66 78.44
78.18 80.07 83.48 78.18 81.00 79.10 78.36
77.12 78.39 82.24 77.84 80.44 78.77 77.16 83.11
77.27 78.06 81.17 77.66 79.34 76.45 77.01 83.79 80.27
75.61 77.22 80.28 76.96 78.97 75.29 76.42 82.25 80.10 79.28
"""
TOTALS = [89.24, 86.79, 86.43, 84.04, 82.35, 80.95, 79.68, 79.29, 78.93, 78.17]


def test_a_public_log_gives_the_figures_that_were_made_from_it_elsewhere():
    rows = [[float(number) for number in line.split()] for line in LOG.split("\n") if line]
    scores = np.array([row + [np.nan] * (10 - len(row)) for row in rows])
    found = numbers(of_matrix(scores))
    wanted = {"a_macro": 78.24, "f_coda": 1.22, "f_chaudhry": 5.17, "f_first_last": 5.02, "bwt_all_pairs": -4.33}
    assert {name: round(found[name], 2) for name in wanted} == wanted
    # The log's own mean of its totals is 82.587: each picture alike, where ours weighs each task alike.
    assert np.mean(TOTALS) == pytest.approx(82.587)
    assert found["average_incremental"] == pytest.approx(82.587, abs=0.3)
    # No task ends above its past: with the final time among those that may be the best, it is the same here.
    assert found["f_pilot"] == found["f_chaudhry"]
    # The log's own "Forgetting" is 6.11: it sorts its tasks as text, "100-119" before "20-39". In that order it is.
    as_text = [sorted(range(step + 1), key=lambda task: f"{20 * task:02d}-{20 * task + 19}") for step in range(10)]
    mixed = np.zeros((10, 10))
    for step, order in enumerate(as_text):
        mixed[step, : step + 1] = scores[step, order]
    assert (mixed.max(axis=0) - mixed[-1])[:-1].mean() == pytest.approx(6.1122, abs=1e-4)


# -------------------------------------------------------------------------------------------------------------- oracles


def lists(made: Predictions) -> tuple[list, list, list]:
    """Predictions, targets and tasks of the pictures seen after each task, as continuum takes them."""
    seen = made.learned
    return (
        [row[some] for row, some in zip(made.said, seen, strict=True)],
        [made.truth[some] for some in seen],
        [made.tasks[some] for some in seen],
    )


@settings(deadline=None, max_examples=50)
@given(tasks=st.integers(2, 6), seed=SEEDS)
def test_continuum_says_the_same(tasks, seed):
    continuum = pytest.importorskip("continuum.metrics")
    made = stream(tasks, seed)
    found, matrix = measures(made), made.matrix()
    said, truth, of_task = lists(made)
    assert continuum.accuracy(said[-1], truth[-1]) == pytest.approx(found["a_micro"])
    assert continuum.accuracy_A(said, truth, of_task) == pytest.approx(np.nanmean(matrix))
    # Its forgetting (1.2.7) leaves out the last old task and the time before the last, and divides by all: with one
    # more time before the last, a copy, those are the ones left out. Its mean is then over T instead of T − 1.
    padded = [[*parts[:-1], parts[-2], parts[-1]] for parts in (said, truth, of_task)]
    assert continuum.forgetting(*padded) * tasks / (tasks - 1) == pytest.approx(found["f_chaudhry"])
    # Its backward transfer leaves out the pairs of neighbours, and divides by all pairs.
    pairs = tasks * (tasks - 1) / 2
    neighbours = sum(matrix[task, task - 1] - matrix[task - 1, task - 1] for task in range(1, tasks))
    assert continuum.backward_transfer(said, truth, of_task) + neighbours / pairs == pytest.approx(
        found["bwt_all_pairs"]
    )


@settings(deadline=None, max_examples=50)
@given(tasks=st.integers(2, 6), seed=SEEDS)
def test_avalanche_says_the_same(tasks, seed):
    avalanche = pytest.importorskip("avalanche.evaluation.metrics")
    made = stream(tasks, seed)
    found, matrix = measures(made), made.matrix()
    forgetting, transfer = avalanche.Forgetting(), avalanche.BWT()
    for metric, task in itertools.product((forgetting, transfer), range(tasks)):
        metric.update(task, matrix[task, task], initial=True)
        metric.update(task, matrix[-1, task])
    last = tasks - 1
    assert np.mean([forgetting.result()[task] for task in range(last)]) == pytest.approx(found["f_first_last"])
    assert np.mean([transfer.result()[task] for task in range(last)]) == pytest.approx(found["bwt"])
