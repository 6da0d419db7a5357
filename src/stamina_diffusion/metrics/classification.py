"""What a classifier's predictions over a stream of tasks say: every definition in use, each under its own name.

R[i, j] is the accuracy on task j after task i was learned, nan where j > i; T tasks. The literature calls several
numbers "forgetting": on one run the one-step mean of CODA-Prompt, C-LoRA and STAMINA is four to five times smaller than
that of Chaudhry et al. Here they stand side by side, and what a run does not define is answered by why.

A classifier is asked once for each test picture of the classes it has seen: no task is told, and no batch is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import continual

Array = NDArray[np.float64]
Places = NDArray[np.int64]

UNSEEN = -1
"""What stands for the prediction of a picture whose class was not learned yet."""


class Undefined(NamedTuple):
    """A measure that this run does not define, and why."""

    reason: str

    def __str__(self) -> str:
        return f"undefined: {self.reason}"


Measure = float | Undefined

ONE_TASK = Undefined("there is one task, and nothing comes after it")
MASKED = Undefined("classes that were not learned yet are no candidates, so nothing is known of a task beforehand")
NOT_ASKED = Undefined("the predictions among a task's own classes were not recorded")


@dataclass(frozen=True, eq=False)
class Predictions:
    """What was predicted of each test picture of a stream, after each task: all that the measures are made from."""

    task_of: Places
    """The task, from 0, that each class belongs to: (classes,)."""
    truth: Places
    """The class of each picture: (pictures,)."""
    said: Places
    """The class predicted among all that were learned, after each task, `UNSEEN` before: (tasks, pictures)."""
    within: Places | None = None
    """The same among the classes of the picture's own task only, as if the task were told."""

    def __post_init__(self) -> None:
        tasks = self.said.shape[0]
        if self.said.shape != (tasks, len(self.truth)) or not tasks:
            raise ValueError(f"predictions are (tasks, pictures), and these are {self.said.shape}")
        if sorted(set(self.task_of[self.truth].tolist())) != list(range(tasks)):
            raise ValueError(f"there are predictions after {tasks} tasks, and pictures of another number of them")
        if not np.array_equal(self.said != UNSEEN, self.learned):
            raise ValueError("a picture was judged before its class was learned, or not judged after")
        if (self.task_of[self.said[self.learned]] > np.nonzero(self.learned)[0]).any():
            raise ValueError("a class was predicted before it was learned")
        if self.within is not None:
            self._check_within(self.within)

    def _check_within(self, within: Places) -> None:
        asked = self.learned
        told = np.broadcast_to(self.tasks, self.said.shape)
        if within.shape != self.said.shape or (self.task_of[within[asked]] != told[asked]).any():
            raise ValueError("a prediction within a task is of a class outside it")
        # The best of all classes is the best of its task too; a run that says otherwise was not one run.
        if ((self.said == self.truth) & asked & (within != self.truth)).any():
            raise ValueError("a picture is right among all classes and wrong among those of its task")

    @property
    def tasks(self) -> Places:
        """The task of each picture: (pictures,)."""
        return self.task_of[self.truth]

    @property
    def learned(self) -> NDArray[np.bool_]:
        """Whether a picture's class was learned, after each task: (tasks, pictures)."""
        return self.tasks[None] <= np.arange(self.said.shape[0])[:, None]

    def matrix(self, within: bool = False) -> Array:
        """R, (tasks, tasks), in [0, 1]. With `within` the task is told; ValueError where that was not recorded."""
        said = self.within if within else self.said
        if said is None:
            raise ValueError(NOT_ASKED.reason)
        right, tasks = said == self.truth, len(said)
        scores = np.full((tasks, tasks), np.nan)
        for task in range(tasks):
            scores[task:, task] = right[task:, self.tasks == task].mean(axis=1)
        return scores

    def micro(self) -> Array:
        """The share of all pictures of learned classes that is right, after each task: (tasks,)."""
        return ((self.said == self.truth) & self.learned).sum(axis=1) / self.learned.sum(axis=1)


def macro(matrix: ArrayLike) -> Array:
    """A_i after each task, the mean over tasks j ≤ i of R[i, j], each task alike: (tasks,). The last is A_N.

    >>> macro([[0.8, np.nan], [0.4, 0.6]]).tolist()
    [0.8, 0.5]
    """
    return np.array([row[: place + 1].mean() for place, row in enumerate(_whole(matrix))])


def forgetting_step(matrix: ArrayLike) -> Measure:
    """F_N of CODA-Prompt, C-LoRA and STAMINA: 1/(T−1) Σ_t 1/(t−1) Σ_{i<t} (R[t−1, i] − R[t, i]), t = 2 ... T.

    The mean drop in one step, not since a task was learned.

    >>> round(forgetting_step([[0.8, np.nan, np.nan], [0.6, 0.9, np.nan], [0.7, 0.5, 0.9]]), 3)
    0.175
    """
    scores = _whole(matrix)
    steps = [(scores[t - 1, :t] - scores[t, :t]).mean() for t in range(1, len(scores))]
    return float(np.mean(steps)) if steps else ONE_TASK


def forgetting_before(matrix: ArrayLike) -> Measure:
    """F of Chaudhry et al. (arXiv 1801.10112): mean_{j<T} ( max_{l<T} R[l, j] − R[T, j] ). A task may have gained.

    L2P, DualPrompt and HiDe-Prompt ("FFM") report it.

    >>> round(forgetting_before([[0.8, np.nan, np.nan], [0.6, 0.9, np.nan], [0.9, 0.5, 0.9]]), 3)
    0.15
    """
    scores = _whole(matrix)
    if len(scores) < 2:
        return ONE_TASK
    return float((np.nanmax(scores[:-1, :-1], axis=0) - scores[-1, :-1]).mean())


def transfer_back(matrix: ArrayLike) -> Measure:
    """BWT of GEM (arXiv 1706.08840): mean_{j<T} (R[T, j] − R[j, j]); its negative is avalanche's forgetting.

    >>> round(transfer_back([[0.8, np.nan], [0.6, 0.9]]), 3)
    -0.2
    """
    scores = _whole(matrix)
    return -continual.forgetting_since(scores) if len(scores) > 1 else ONE_TASK


def transfer_back_all(matrix: ArrayLike) -> Measure:
    """BWT of Díaz-Rodríguez et al. (arXiv 1810.13166): the mean over all i > j of R[i, j] − R[j, j].

    >>> round(transfer_back_all([[0.8, np.nan, np.nan], [0.6, 0.9, np.nan], [0.7, 0.5, 0.9]]), 3)
    -0.233
    """
    scores = _whole(matrix)
    later = np.tril_indices(len(scores), -1)
    moved = (scores - np.diagonal(scores))[later]
    return float(moved.mean()) if len(moved) else ONE_TASK


def of_matrix(matrix: ArrayLike) -> dict[str, Measure]:
    """Every measure that a matrix of accuracies alone defines, by the name it has in results."""
    scores = _whole(matrix)
    later = len(scores) > 1
    return {
        "a_macro": continual.average(scores),
        "average_incremental": float(macro(scores).mean()),
        "f_coda": forgetting_step(scores),
        "f_chaudhry": forgetting_before(scores),
        "f_pilot": continual.forgetting_max(scores) if later else ONE_TASK,
        "f_first_last": continual.forgetting_since(scores) if later else ONE_TASK,
        "bwt": transfer_back(scores),
        "bwt_all_pairs": transfer_back_all(scores),
        "fwt": MASKED,
    }


def measures(predictions: Predictions) -> dict[str, Measure]:
    """Every measure of a run, by the name it has in results; accuracies are shares of 1.

    `a_micro` and `average_incremental_micro` weigh each picture alike (PILOT, InfLoRA), the others each task (CODA).
    `task_incremental` is the macro accuracy with the task told; `task_inferred` the share of pictures whose predicted
    class lies in the right task.
    """
    micro, final = predictions.micro(), predictions.said[-1]
    told = NOT_ASKED if predictions.within is None else continual.average(predictions.matrix(within=True))
    return {
        **of_matrix(predictions.matrix()),
        "a_micro": float(micro[-1]),
        "average_incremental_micro": float(micro.mean()),
        "task_incremental": told,
        "task_inferred": float((predictions.task_of[final] == predictions.tasks).mean()),
    }


def _whole(matrix: ArrayLike) -> Array:
    """A square matrix whose lower half is there; the upper half, which nobody learned yet, is left out."""
    scores = np.array(matrix, dtype=float)
    if scores.ndim != 2 or scores.shape[0] != scores.shape[1] or not len(scores):
        raise ValueError(f"a matrix of accuracies is (tasks, tasks), and this one is {scores.shape}")
    if np.isnan(scores[np.tril_indices(len(scores))]).any():
        raise ValueError("a matrix of accuracies needs every task after every later one, and one of them is nan")
    scores[np.triu_indices(len(scores), 1)] = np.nan
    return scores
