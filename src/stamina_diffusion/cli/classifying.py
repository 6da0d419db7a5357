"""`stamina classify`: teach a classifier new classes from folders of pictures, and let it name pictures."""

from __future__ import annotations

import dataclasses
import json
import statistics
from pathlib import Path
from typing import Annotated, Literal

import typer

from . import console
from .faults import STOPPED

app = typer.Typer(
    help="Teach a classifier new classes from folders of pictures, one lot after another, and forget nothing.",
    no_args_is_help=True,
    add_completion=False,
)

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The classifier's folder.", show_default=False)]
Head = Annotated[
    Literal["trained", "aligned", "nearest-mean"] | None,
    typer.Option(
        help="Who decides: the head as it was trained, the same aligned with the statistics of each class, or the "
        "nearest class mean; if not given, aligned after more than one lot.",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def init(
    folder: Folder,
    base: Annotated[
        str, typer.Option(help="The network to begin with: 'embedded', a ViT's folder (transformers, timm), a hub id.")
    ] = "embedded",
    revision: Annotated[
        str | None, typer.Option(help="The revision of a hub id: a branch, a tag or a commit.", show_default=False)
    ] = None,
) -> None:
    """Make a folder that holds a pre-trained network's name and all classes that it learns."""
    console.quiet()
    from ..class_studio import ClassStudio

    studio = ClassStudio.create(folder, base, revision=revision)
    console.say(f"{folder} is a classifier on the base {studio.base['source']} ({studio.base['hash'][:12]}).")
    console.say(f"Next: stamina classify learn {folder} FOLDER_OF_CLASS_FOLDERS")


@app.command()
def learn(
    folder: Folder,
    pictures: Annotated[
        Path,
        typer.Argument(metavar="PICTURES", help="A folder with a folder for each new class.", show_default=False),
    ],
    name: Annotated[
        str | None, typer.Option(help="What to call this lot; task-1, task-2 ... if not given.", show_default=False)
    ] = None,
    method: Annotated[str, typer.Option(help="The continual method.")] = "stamina",
    test: Annotated[
        Path | None,
        typer.Option(
            help="Other pictures in folders of the same kind, to see how many it gets right.", show_default=False
        ),
    ] = None,
    preset: Annotated[str, typer.Option(help="classify, coda, pilot, modern, or a TOML file.")] = "classify",
    epochs: Annotated[
        int | None, typer.Option(min=1, help="How often each picture is seen; the preset's if not given.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Where every random number comes from.")] = 0,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Change a setting of the method or the plan.", show_default=False
        ),
    ] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out pictures that cannot be used.")] = False,
) -> None:
    """Teach it every class of a folder of folders; what it knew stays. Interrupted, the same command goes on."""
    overrides = console.overrides(changes or [])
    console.quiet()
    from ..benchmarks.class_protocol import read_protocol
    from ..class_photos import check_apart, collect_classes
    from ..class_studio import ClassStudio, accuracy
    from ..settings import resolve

    studio = ClassStudio.open(folder)
    resolved = resolve(preset, method, overrides=overrides, seed=seed)
    photos = collect_classes(pictures, skip_bad=skip_bad)
    asked = collect_classes(test, skip_bad=skip_bad) if test else ()
    check_apart(photos, asked, studio.taught)
    names = list(dict.fromkeys(photo.caption or "" for photo in photos))
    studio.check_classes(names)
    strange = sorted({photo.caption or "" for photo in asked} - {*names, *studio.classes})
    if strange:
        raise typer.BadParameter(f"the class {strange[0]!r} is neither known nor among {pictures}", param_hint="--test")
    plan = resolved.plan
    if "steps" not in overrides:
        seen = epochs or read_protocol(preset, "").epochs
        plan = dataclasses.replace(plan, steps=max(1, seen * len(photos) // plan.batch), epochs=seen)
    called = name or studio.pending() or f"task-{len(studio.entries) + 1}"
    console.warn(f"{called}: {len(names)} classes, {len(photos)} pictures, {plan.steps} steps of {method}")
    try:
        with console.progress(called, plan.steps) as advance:
            entry, _ = studio.learn(
                photos,
                called,
                method=resolved.method,
                plan=plan,
                watch=lambda step: advance(step.step, f"loss {step.loss:.3f}"),
            )
    except KeyboardInterrupt:
        console.warn("stopped; nothing was changed, and the same command goes on")
        raise typer.Exit(STOPPED) from None
    console.say(f"version {entry.version}: {called}, {len(studio.classes)} classes in all")
    if asked:
        right = accuracy(studio.classifier(None), asked)
        console.say(f"{len(asked)} test pictures: {statistics.fmean(right.values()):.1%} right, the mean over classes")


@app.command()
def predict(
    folder: Folder,
    pictures: Annotated[
        list[Path], typer.Argument(metavar="PICTURES", help="Pictures, or folders of them.", show_default=False)
    ],
    top: Annotated[int, typer.Option(min=1, help="How many classes to name for each, the likeliest first.")] = 1,
    head: Head = None,
    as_json: AsJson = False,
) -> None:
    """Name pictures: of all classes that were learned, the likeliest, with its share."""
    console.quiet()
    from ..class_studio import ClassStudio, named
    from ..photos import collect

    studio = ClassStudio.open(folder)
    studio.check_taught()
    photos = collect(pictures[0] if len(pictures) == 1 else pictures)
    found = named(studio.classifier(head), photos, top)
    if as_json:
        rows = [
            {"picture": str(photo.path), "classes": [{"name": name, "share": share} for name, share in best]}
            for photo, best in zip(photos, found, strict=True)
        ]
        console.say(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    for photo, best in zip(photos, found, strict=True):
        console.say(f"{photo.path}: " + ", ".join(f"{name} {share:.1%}" for name, share in best))


@app.command()
def log(folder: Folder, as_json: AsJson = False) -> None:
    """Print which classes were learned, when, and by which method."""
    # Not through the studio: this needs no model, and importing what loads one takes seconds.
    from .. import ledger
    from ..errors import StudioError

    if not (folder / ledger.FILE).is_file():
        raise StudioError("is not a studio", where=folder, do=f"Make one with: stamina classify init {folder}")
    record = ledger.read(folder)
    if record.base.network != "vit":
        raise StudioError("is a studio of a text-to-image model", where=folder, do=f"Take: stamina log {folder}")
    base = record.base.record()
    if as_json:
        tasks = [dataclasses.asdict(entry) for entry in record.entries]
        console.say(json.dumps({"base": base, "version": record.version, "tasks": tasks}, indent=2, ensure_ascii=False))
        return
    console.say(f"base {base['source']} ({base['hash'][:12]}), version {record.version}")
    for pending in sorted((folder / "unfinished").glob("*/request.json")):
        console.say(f"{pending.parent.name} is half learned; the same learn command goes on with it")
    if not record.entries:
        console.say(f"Nothing has been learned yet. Next: stamina classify learn {folder} FOLDER_OF_CLASS_FOLDERS")
    for entry in record.entries:
        classes = entry.classes or []
        shown = ", ".join(classes[:8]) + (f" and {len(classes) - 8} more" if len(classes) > 8 else "")
        console.say(
            f"{entry.version} {entry.title}: {len(classes)} classes of {len(entry.photos)} pictures by {entry.method}, "
            f"{entry.steps} steps, {console.clock(entry.seconds)}: {shown}"
        )


@app.command()
def export(
    folder: Folder,
    to: Annotated[Path, typer.Option(metavar="FOLDER", help="A new folder for it.", show_default=False)],
    layout: Annotated[
        Literal["transformers", "timm"], typer.Option(help="Who is to read it: transformers, or timm.")
    ] = "transformers",
    head: Head = None,
) -> None:
    """Write the classifier as a plain vision transformer, which its own library reads without this program."""
    console.quiet()
    from ..class_studio import ClassStudio
    from ..errors import StudioError

    studio = ClassStudio.open(folder)
    studio.check_taught()
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise StudioError("is not an empty folder", where=to, do="Give a new folder.")
    classifier = studio.classifier(head)
    to.mkdir(parents=True, exist_ok=True)
    if layout == "timm":
        classifier.save_timm(to)
        how = "timm.create_model and load_state_dict, with the architecture and model_args of its config.json"
    else:
        classifier.save(to)
        how = f"ViTForImageClassification.from_pretrained('{to}')"
    console.say(f"{to}: {len(studio.classes)} classes; read it with {how}")
