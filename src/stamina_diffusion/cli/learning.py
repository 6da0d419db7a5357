"""`stamina init` and `stamina learn`: a studio, and the concepts that go into it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The studio's folder.", show_default=False)]


def init(
    folder: Folder,
    base: Annotated[
        str,
        typer.Option(help="The model to begin with: 'embedded', a pipeline folder, a .safetensors file or a hub id."),
    ] = "embedded",
    revision: Annotated[
        str | None, typer.Option(help="The revision of a hub id: a branch, a tag or a commit.", show_default=False)
    ] = None,
    variant: Annotated[
        str | None, typer.Option(help="The variant of the base's files, such as fp16.", show_default=False)
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            help="Of a .safetensors file: a pipeline folder of its family, for what the file does not say.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Make a studio: one folder that holds a base model's name and all that it learns."""
    console.quiet()
    from ..studio import Studio

    studio = Studio.create(folder, base, revision=revision, variant=variant, config=config)
    console.say(f"{folder} is a studio on the base {studio.base['source']} ({studio.base['hash'][:12]}).")
    console.say(f"Next: stamina learn {folder} PHOTOS --name NAME")


def learn(
    folder: Folder,
    photos: Annotated[
        list[Path] | None, typer.Argument(metavar="PHOTOS", help="A folder of photos, or photos.", show_default=False)
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="What to call it: 'rex' makes the word <rex>.", show_default=False)
    ] = None,
    method: Annotated[str, typer.Option(help="The continual method.")] = "stamina",
    class_word: Annotated[
        str | None, typer.Option("--class", metavar="WORD", help="What kind of thing it is.", show_default=False)
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Training steps; the preset's if not given.", show_default=False)
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="Where every random number comes from; 0 if not given.", show_default=False),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="By model and memory, such as sd15-8gb or sdxl-12gb, or a TOML file; by the base if not given.",
            show_default=False,
        ),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Change a setting of the method or the plan.", show_default=False
        ),
    ] = None,
    stream: Annotated[
        Path | None,
        typer.Option(help="A TOML of concepts to learn in order, in place of PHOTOS and --name.", show_default=False),
    ] = None,
    tracker: Annotated[
        str | None,
        typer.Option(help="Where curves go: tensorboard (if installed), wandb ..., or none.", show_default=False),
    ] = None,
    validate: Annotated[
        int | None,
        typer.Option(
            min=0, metavar="N", help="Draw samples of it after every N steps, while it is learned.", show_default=False
        ),
    ] = None,
    consent: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Who agreed that it is learned; stays with the concept.", show_default=False),
    ] = None,
    licence: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="What it may be used for; stays with the concept.", show_default=False),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and write nothing.")] = False,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out photos that cannot be used.")] = False,
    no_report: Annotated[
        bool, typer.Option("--no-report", help="Draw no pictures and measure nothing afterwards.")
    ] = False,
    from_lora: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Adopt a LoRA file in place of photos.", show_default=False),
    ] = None,
    max_forgetting: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="X",
            help="Let the concept in only if no earlier one falls by more than X: of its kept score (0 to 1) where the "
            "base has an encoder, else as the share by which its denoising loss rises. Exit code 2 if not let in.",
            show_default=False,
        ),
    ] = None,
    keep_branch: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="With --max-forgetting: keep a concept that is not let in on a new branch of this name.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Teach the studio's model one concept from photos, and fold it in; or adopt a LoRA as one."""
    if stream is not None:
        from .streaming import learn_stream

        given = photos or name or changes or class_word or from_lora or steps or seed is not None or validate
        if given or consent or licence or max_forgetting is not None or keep_branch:
            raise typer.BadParameter("a stream says everything itself: give neither photos nor settings beside it")
        learn_stream(
            folder, stream, preset=preset, tracker=tracker, skip_bad=skip_bad, dry_run=dry_run, no_report=no_report
        )
        return
    if max_forgetting is not None and from_lora is not None:
        raise typer.BadParameter("an adopted LoRA is not gated: leave one of the two out", param_hint="--from-lora")
    if keep_branch is not None and max_forgetting is None:
        raise typer.BadParameter(
            "it needs --max-forgetting, since nothing is refused without", param_hint="--keep-branch"
        )
    if (not photos and not from_lora) or name is None:
        missing = "--name" if photos or from_lora else "PHOTOS"
        raise typer.BadParameter(f"{missing} is missing (or give a whole stream with --stream FILE)")
    overrides = console.overrides(changes or [])
    if from_lora is not None:
        from .adopting import adopt

        terms = {"consent": consent, "licence": licence}
        adopt(folder, from_lora, name, photos, class_word, preset, method, overrides, dry_run, no_report, terms)
        return
    assert photos
    console.quiet()
    from ..errors import NameTakenError, SettingsError
    from ..learn import check_rank
    from ..photos import collect, examine
    from ..settings import preset_for, resolve
    from ..studio import Studio
    from ..trackers import check

    studio = Studio.open(folder)
    word = studio.check_name(name)
    tracker = check(tracker)
    resolved = resolve(preset or preset_for(studio.base), method, overrides=overrides, steps=steps, seed=seed)
    source = photos[0] if len(photos) == 1 else photos
    if validate is not None:
        resolved = replace(resolved, report=replace(resolved.report, validation_every=validate))
    found = collect(source, skip_bad=skip_bad)
    if resolved.method.word_start == "class" and not class_word:
        raise SettingsError("word_start is 'class' but no class word was given", do="Add --class WORD.")
    studio.store(resolved.plan.storage)
    backbone = studio.backbone()
    if word in backbone.words:
        raise NameTakenError(f"the base's tokenizer already has the word {word}", do="Take another name.")
    check_rank(resolved.method, backbone.weight_sites(resolved.method.scope))
    seen = examine(source, resolution=resolved.plan.resolution or backbone.resolution)
    if dry_run:
        _tell_plan(studio, name, class_word, resolved, found, seen)
        _tell_memory(backbone, name, class_word, resolved)
        console.say("nothing was written")
        return
    for finding in (*seen.errors, *seen.warnings):
        skipped = "left out: " if finding.severity == "error" else ""
        console.warn(f"{finding.path}: {skipped}{finding.what}. {finding.do}")
    gate = None if max_forgetting is None else _gate(studio, max_forgetting, resolved, keep_branch)
    entry, backbone = teach(
        studio,
        found,
        name,
        class_word=class_word,
        resolved=resolved,
        tracker=tracker,
        consent=consent,
        licence=licence,
        gate=gate,
    )
    took = f"{entry.steps} steps, {console.clock(entry.seconds)}"
    console.say(f"{entry.word} is learned: version {studio.version}, {took}.")
    if gate and gate.falls:
        word, fall = max(gate.falls.items(), key=lambda item: item[1])
        console.say(f"The gate let it in: <{word}> falls most, by {fall:.3g} (limit {max_forgetting:.3g}).")
    if not no_report:
        tell_report(studio, backbone, resolved, gate)
    console.say(f'Next: stamina draw {folder} "a photo of {entry.word} at sunset" --out {entry.name}.png')


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


def _gate(studio: Studio, limit: float, resolved: Resolved, keep_branch: str | None) -> Gate:
    """A gate that has measured the studio as it is."""
    from ..gate import Gate

    gate = Gate(studio, limit, resolved.draw, resolved.report, keep_branch)
    console.warn("measuring what is known, for the gate")
    gate.prepare()
    return gate


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


def _tell_plan(
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


def _tell_memory(backbone: TextToImage, name: str, class_word: str | None, resolved: Resolved) -> None:
    """What a step would take on the device, for --dry-run."""
    from ..estimate import estimate

    found = estimate(backbone, resolved.method, resolved.plan, name, class_word)
    parts = {"weights": found.weights, "what is learned": found.learned, "a step": found.step}
    told = ", ".join(f"{part} {_size(size)}" for part, size in parts.items())
    console.say(f"memory while learning: about {_size(found.whole)} on the device ({told})")


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
