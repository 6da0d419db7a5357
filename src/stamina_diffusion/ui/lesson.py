"""One teaching as a process of its own: `learn`, then its report, told to the page as lines of JSON.

A process, so that it can be stopped like `stamina learn` with Ctrl-C, and so that its crash leaves the page standing.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .wording import words_of

MARK = "stamina-lesson "
"""What our lines begin with; a library may print lines of its own."""
PEEKS = 3
"""How often samples are drawn while a concept is learned: at each quarter."""


@dataclass(frozen=True)
class Request:
    """What is to be taught."""

    studio: str
    photos: list[str]
    name: str
    class_word: str | None
    method: str
    preset: str | None
    steps: int | None
    seed: int | None
    samples: str
    """The folder for the samples drawn on the way."""
    max_forgetting: float | None = None
    """Let it in only if no earlier concept falls by more."""
    consent: str | None = None
    licence: str | None = None


def run(request: Request) -> None:
    """Teach and report, telling every stage. Raises what `Studio.learn` raises."""
    tell(stage="loading")
    from ..cli import console

    console.quiet()
    from .. import report
    from ..gate import Gate
    from ..learn import check_rank
    from ..photos import collect
    from ..settings import preset_for, resolve
    from ..studio import Studio
    from ..validating import sampler

    studio = Studio.open(Path(request.studio))
    studio.check_name(request.name)
    resolved = resolve(
        request.preset or preset_for(studio.base), request.method, steps=request.steps, seed=request.seed
    )
    check_rank(resolved.method, studio.backbone().weight_sites(resolved.method.scope))
    photos = collect([Path(photo) for photo in request.photos])
    steps, word = resolved.plan.steps, f"<{request.name}>"
    peek = sampler(
        word,
        resolved.draw.guidance,
        Path(request.samples),
        lambda step, pictures, path: tell(sample=path.name, at=step),
    )
    gate = None
    if request.max_forgetting is not None:
        gate = Gate(studio, request.max_forgetting, resolved.draw, resolved.report)
        gate.prepare()
    entry, backbone = studio.learn(
        photos,
        request.name,
        method=resolved.method,
        plan=resolved.plan,
        class_word=request.class_word,
        consent=request.consent,
        licence=request.licence,
        watch=lambda at: tell(stage="learning", step=at.step, steps=at.steps, loss=round(at.loss, 4)),
        peek=peek,
        peek_at={steps * part // (PEEKS + 1) for part in range(1, PEEKS + 1)},
        accept=gate or (lambda entry, backbone: None),
    )
    tell(stage="drawing", version=entry.version)
    drawn = gate.drawn if gate else None
    report.after_learning(studio, backbone, draw=resolved.draw, report=resolved.report, drawn=drawn)
    tell(stage="done", version=entry.version)


def tell(**event: Any) -> None:
    print(MARK + json.dumps(event), flush=True)


def encode(request: Request) -> str:
    return json.dumps(asdict(request))


def main() -> int:
    """The request comes as JSON on standard input: names and paths never pass through a command line."""
    try:
        run(Request(**json.loads(sys.stdin.readline())))
    except KeyboardInterrupt:
        tell(stage="stopped")
        return 130
    except Exception as error:
        tell(stage="failed", words=words_of(error))
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
