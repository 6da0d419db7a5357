"""A concept taught from the command line: with a bar, and what is told before, meanwhile and after."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from . import console
from .faults import STOPPED, is_memory

if TYPE_CHECKING:
    from PIL import Image

    from ..backbones.diffusion.text_to_image import TextToImage
    from ..gate import Gate
    from ..learn import Step
    from ..photos import Examination, Photo
    from ..settings import Resolved
    from ..studio import Entry, Studio


def teach(
    studio: Studio,
    photos: tuple[Photo, ...],
    name: str,
    *,
    class_word: str | None,
    resolved: Resolved,
    tracker: str = "none",
    consent: str | None = None,
    licence: str | None = None,
    gate: Gate | None = None,
) -> tuple[Entry, TextToImage]:
    """Learn with a bar; when the person stops it, say where the same command goes on."""
    from ..trackers import tracking
    from ..validating import sampler, steps_of

    settings = {**resolved.plan.settings(), **resolved.method.settings(), "method": resolved.method.name}
    with (
        console.progress(f"learning <{name}>", resolved.plan.steps) as advance,
        tracking(tracker, studio.folder, f"{studio.version + 1:04d}-{name}", settings) as track,
    ):
        advance(0, "getting ready")

        def watch(step: Step) -> None:
            penalty = f", penalty {step.penalty:.3g}" if step.penalty else ""
            advance(step.step, f"loss {step.loss:.3f}{penalty}")
            track({"loss": step.loss, "penalty": step.penalty}, step.step)

        def show(step: int, pictures: list[Image.Image], path: Path) -> None:
            track.show("samples", pictures, step)
            console.warn(f"samples after {step} steps: {path}")

        at = steps_of(resolved.report.validation_every, resolved.plan.steps)
        try:
            return studio.learn(
                photos,
                name,
                method=resolved.method,
                plan=resolved.plan,
                class_word=class_word,
                consent=consent,
                licence=licence,
                watch=watch,
                peek=sampler(f"<{name}>", resolved.draw.guidance, track.folder, show),
                peek_at=at,
                **({"accept": gate, "keep_branch": gate.keep_branch} if gate else {}),
            )
        except KeyboardInterrupt:
            console.warn(f"stopped; nothing was changed; the same command goes on from step {saved_step(studio, name)}")
            raise typer.Exit(STOPPED) from None


def tell_report(
    studio: Studio, backbone: TextToImage, resolved: Resolved, gate: Gate | None = None
) -> dict[str, list[Image.Image]]:
    """Draw and measure every concept, write the sheet and the page, and print a line for each concept.

    The answer is what was drawn of each, by its name; nothing where the memory was full.
    """
    from .. import page, summary
    from ..report import after_learning

    try:
        with console.progress("drawing what is known", len(studio.entries) + 1) as advance:
            written = after_learning(
                studio,
                backbone,
                draw=resolved.draw,
                report=resolved.report,
                drawn=gate.drawn if gate else None,
                watch=lambda done, _: advance(done, ""),
            )
        found = summary.summarize(studio)
        page.write(studio.folder / page.FILE, studio, found)
    except KeyboardInterrupt:
        newest = studio.entries[-1].word
        console.warn(f"stopped; {newest} is learned and safe, only its sheet was not drawn")
        raise typer.Exit(STOPPED) from None
    except (RuntimeError, MemoryError) as error:
        if not is_memory(error):
            raise
        newest = studio.entries[-1].word
        console.warn(f"the memory is full; {newest} is learned and safe, only its sheet was not drawn")
        console.warn(f"Draw it with: stamina report {studio.folder} --preset NAME, of a preset for less memory")
        return {}
    width = max(len(row.word) for row in written.rows)
    for row in written.rows:
        console.say(f"  {row.word:<{width}}  {row.words}")
    for warning in found["forecast"]["warnings"]:
        console.warn(f"warning: {warning}")
    console.say(f"Sheet: {written.sheet}")
    console.say(f"Report: {studio.folder / page.FILE}")
    return written.pictures


def saved_step(studio: Studio, name: str) -> int:
    """The step of the last checkpoint of an unfinished concept, 0 when there is none."""
    from safetensors import SafetensorError, safe_open

    from .. import files

    try:
        with safe_open(studio.unfinished(name) / "checkpoint.safetensors", framework="pt") as file:
            return int(files.parse_json(file.metadata()["progress"])["step"])
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        return 0


def tell_plan(
    studio: Studio,
    name: str,
    class_word: str | None,
    resolved: Resolved,
    found: tuple[Photo, ...],
    seen: Examination,
) -> None:
    """Everything that would be done, for --dry-run."""
    console.say(f"would learn <{name}>{f' ({class_word})' if class_word else ''} as version {studio.version + 1}")
    tables = {
        f"method {resolved.method.name}": resolved.method.settings(),
        f"plan, from preset {resolved.preset}": resolved.plan.settings(),
        "report": vars(resolved.report),
    }
    for title, values in tables.items():
        console.say(f"{title}:")
        for key, value in values.items():
            console.say(f"  {key} = {value}")
    console.say(f"photos: {len(found)}")
    for photo in found:
        caption = f"  {photo.caption!r}" if photo.caption else ""
        console.say(f"  {photo.path}  {photo.size[0]} x {photo.size[1]}{caption}")
    console.say(f"findings: {len(seen.findings)}")
    for finding in seen.findings:
        place = f"{finding.path}: " if finding.path else ""
        console.say(f"  {finding.severity}: {place}{finding.what}. {finding.do}")


def tell_memory(backbone: TextToImage, name: str, class_word: str | None, resolved: Resolved) -> None:
    """What a step would take on the device, for --dry-run."""
    from ..estimate import estimate

    found = estimate(backbone, resolved.method, resolved.plan, name, class_word)
    parts = {"weights": found.weights, "what is learned": found.learned, "a step": found.step}
    told = ", ".join(f"{part} {_size(size)}" for part, size in parts.items())
    console.say(f"memory while learning: about {_size(found.whole)} on the device ({told})")


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
