"""`stamina init` and `stamina learn`: a studio, and the concepts that go into it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import console
from .lesson import teach, tell_memory, tell_plan, tell_report

if TYPE_CHECKING:
    from ..gate import Gate
    from ..settings import Resolved
    from ..studio import Studio

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
    method: Annotated[
        str | None, typer.Option(help="The continual method; the preset's if not given.", show_default=False)
    ] = None,
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
        tell_plan(studio, name, class_word, resolved, found, seen)
        tell_memory(backbone, name, class_word, resolved)
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


def _gate(studio: Studio, limit: float, resolved: Resolved, keep_branch: str | None) -> Gate:
    """A gate that has measured the studio as it is."""
    from ..gate import Gate

    gate = Gate(studio, limit, resolved.draw, resolved.report, keep_branch)
    console.warn("measuring what is known, for the gate")
    gate.prepare()
    return gate
