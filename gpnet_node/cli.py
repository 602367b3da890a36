"""The ``gpnet-node`` command.

Exit status: 0 done; 1 archive, database, peer or program failed; 2 wrong usage; 3 the series is not eligible;
4 the files are not one whole volume; 5 no globus pallidus is found in it; 6 the result is written, but a
person must look at it; 78 the configuration is wrong.
Heavy packages are imported by the verb that needs them, so that ``--help`` is quick and only what segments
loads torch.
"""

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn, get_args

import typer
from rich.console import Console
from rich.progress import Progress, TaskID, TimeElapsedColumn

from gpnet_node.config import NODE_FILE, SHIPPED_MODEL, Configuration, defaults, load
from gpnet_node.errors import (
    ConfigurationError,
    GpnetError,
    InputError,
    NoPallidumError,
    NotEligibleError,
    StorageError,
)
from gpnet_node.result_profile import USUAL_PROFILE, ObjectKind, ResultProfile

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from gpnet_node.parts import Parts
    from gpnet_node.store.jobs import Jobs
    from gpnet_node.store.states import Job

EXIT_FAILED, EXIT_NOT_ELIGIBLE, EXIT_NOT_A_VOLUME, EXIT_NO_PALLIDUM, EXIT_CONFIGURATION = 1, 3, 4, 5, 78
EXIT_NEEDS_REVIEW = 6
USUAL_FOLDER = Path("ae_config")
_FILE_COLUMNS = 250
# What can be made of one series by itself; the others tell of a refusal or of an older result.
OBJECTS = tuple(kind for kind in get_args(ObjectKind) if kind not in ("refusal", "rejection"))

app = typer.Typer(
    help=(
        "A DICOM node that segments the globus pallidus (GPi, GPe) in 7 Tesla MR series. "
        "Research use only; not a medical device."
    ),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
errors = Console(stderr=True, highlight=False)

ConfigFolder = Annotated[
    Path | None,
    typer.Option(
        "--config",
        envvar="GPNET_CONFIG",
        help="Folder with node.toml, peers.toml and routes.toml. [default: ./ae_config]",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Write JSON for a program instead of tables.")]
AtlasFolder = Annotated[
    Path, typer.Option("--atlases", help="Folder with synthseg/, allen/, bigbrain/ and cit168/.")
]
ModelFolder = Annotated[Path, typer.Option("--model", help="Folder with the model's card and weights.")]
PlanFile = Annotated[
    Path | None,
    typer.Option(help="TOML file that tells where AC, PC and a midline point lie; the report then uses it."),
]
JobUid = Annotated[str, typer.Argument(metavar="JOB", help="The job's UID, as `status` shows it.")]


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command line and exit; neither a library's warning nor a bug repeats a value of a data set."""
    from gpnet_node import log

    log.configure(style="console", level="warning", stream=sys.stderr)
    with log.BugLine():
        sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; what goes wrong is told on standard error, and the exit status returned."""
    try:
        app(args=None if arguments is None else list(arguments), standalone_mode=True)
    except SystemExit as exc:
        return exc.code if isinstance(exc.code, int) else EXIT_FAILED
    except GpnetError as exc:
        errors.print(str(exc), style="red", markup=False, soft_wrap=True)
        return _status_of(exc)
    return 0


def _out() -> Console:
    """Standard output: as wide as the terminal, or wide enough for whole UIDs where it is a file."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else _FILE_COLUMNS)


def _status_of(error: GpnetError) -> int:
    if isinstance(error, NotEligibleError):
        return EXIT_NOT_ELIGIBLE
    if isinstance(error, NoPallidumError):
        return EXIT_NO_PALLIDUM
    if isinstance(error, InputError):
        return EXIT_NOT_A_VOLUME
    return EXIT_CONFIGURATION if isinstance(error, ConfigurationError) else EXIT_FAILED


def _configuration(folder: Path | None) -> Configuration:
    if folder is None and not (USUAL_FOLDER / NODE_FILE).is_file():
        raise ConfigurationError(
            f"there is no {USUAL_FOLDER / NODE_FILE}: name the folder with --config or GPNET_CONFIG"
        )
    return load(folder or USUAL_FOLDER)


@contextmanager
def _parts(folder: Path | None, *, make: bool = False) -> Iterator["Parts"]:
    """Archive and database of a node that has run; ``make``: made if need be."""
    from gpnet_node.parts import attach, build

    parts = (build if make else attach)(_configuration(folder), owner="operator")
    try:
        yield parts
    finally:
        parts.close()


# -- running -------------------------------------------------------------------------------------------------


@app.command()
def serve(
    config: ConfigFolder = None,
    role: Annotated[
        str | None, typer.Option(help="Play one role only, here: receiver, worker, courier or web.")
    ] = None,
) -> None:
    """Run the node until SIGTERM or Ctrl-C; then finish what is open, for at most drain_seconds."""
    from gpnet_node import log, supervisor
    from gpnet_node.lifetime import LastWords
    from gpnet_node.node import play
    from gpnet_node.parts import Role

    configuration = _configuration(config)
    log.configure(style=configuration.node.log_format, level=configuration.node.log_level, stream=sys.stderr)
    if role is None:
        supervisor.serve(configuration)
        return
    if role not in set(Role):
        raise typer.BadParameter(f"there is no role {role!r}: {', '.join(Role)}")
    with LastWords(Role(role)):
        play(Role(role), configuration)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder that everything is left in.")] = Path("demo-output"),
    seed: Annotated[int, typer.Option(help="Another seed draws another head.")] = 7,
) -> None:
    """Play the whole route on this machine: scanner, node and PACS over real associations."""
    from gpnet_node import demo as demonstration
    from gpnet_node import display

    console = _out()
    shown = demonstration.run(out, seed=seed, say=lambda sentence: console.print(f"[dim]·[/dim] {sentence}"))
    console.print(display.measurements(shown.measurements))
    console.print(f"Series        {shown.series}")
    console.print(f"Segmentation  {shown.segmentation}")
    console.print(f"Report        {shown.report}")
    console.print(f"Picture       {shown.picture}")
    console.print(f"{shown.seconds:.1f} s from the last image to all objects at the PACS", style="dim")


# -- without the node ----------------------------------------------------------------------------------------


@app.command()
def segment(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder with the DICOM files of one series.")],
    out: Annotated[
        Path,
        typer.Option(
            help="Folder for the objects (seg.dcm, sr.dcm) and segmentation.png; inside DIR, it is not read."
        ),
    ],
    config: ConfigFolder = None,
    no_gate: Annotated[
        bool, typer.Option("--no-gate", help="Segment even what the routes would not.")
    ] = False,
    objects: Annotated[
        list[str] | None,
        typer.Option("--object", help=f"What to write; once for each. One of {', '.join(OBJECTS)}."),
    ] = None,
    plan: PlanFile = None,
    as_json: AsJson = False,
) -> None:
    """Segment one series without a network: files in, SEG, structured report and picture out.

    Exit status 3: not eligible; 4: not one whole volume; 5: no globus pallidus found; 6: written, but the
    result is doubtful and a person must look at it. The reason is on stderr.
    """
    from gpnet_node import display, offline
    from gpnet_node.results.acpc import read_plan

    usual = config or (USUAL_FOLDER if (USUAL_FOLDER / NODE_FILE).is_file() else None)
    configuration = load(usual) if usual else defaults(out)  # nothing is archived
    with errors.status("reading, segmenting, writing"):
        written = offline.segment(
            folder,
            out,
            configuration,
            gate=not no_gate,
            profile=_profile(objects),
            plan=None if plan is None else read_plan(plan),
        )
    if as_json:
        display.print_json(display.written_as_json(written))
    else:
        console = _out()
        console.print(display.measurements(written.measurements))
        for line in (*written.notes, *map(str, written.paths)):
            console.print(line, markup=False)
    for reason in written.reasons:
        errors.print(f"needs review: {reason}", style="yellow", markup=False, soft_wrap=True)
    if written.reasons:
        raise typer.Exit(EXIT_NEEDS_REVIEW)


def _profile(objects: Sequence[str] | None) -> ResultProfile:
    if objects is None:
        return USUAL_PROFILE
    unknown = sorted(set(objects) - set(OBJECTS))
    if unknown:
        raise ConfigurationError(f"--object: {', '.join(unknown)} is none of {', '.join(OBJECTS)}")
    return ResultProfile.model_validate({"objects": objects})


@app.command()
def send(
    peer: Annotated[str, typer.Argument(metavar="PEER", help="The peer's name in peers.toml.")],
    files: Annotated[list[Path], typer.Argument(metavar="FILES...", help="DICOM files, or folders of them.")],
    config: ConfigFolder = None,
    as_json: AsJson = False,
) -> None:
    """Send files to a peer by C-STORE on one association. Exit status 1 if one was not stored."""
    from gpnet_node import display
    from gpnet_node.audit.trail import open_trail
    from gpnet_node.dimse import sender
    from gpnet_node.imaging.frames import find_files
    from gpnet_node.parts import now

    configuration = _configuration(config)
    paths = [found for path in files for found in (find_files(path) if path.is_dir() else (path,))]
    outcomes = []
    trail = open_trail(configuration.node, owner="operator", clock=now)
    with closing(trail), Progress(console=errors, transient=True) as progress:
        for outcome in progress.track(
            sender.send(configuration.peer(peer), paths, node=configuration.node, trail=trail),
            total=len(paths),
            description=f"sending to {peer}",
        ):
            outcomes.append(outcome)
    if as_json:
        display.print_json([display.outcome_as_json(outcome) for outcome in outcomes])
    else:
        _out().print(display.outcomes(outcomes))
    if any(outcome.verdict is not sender.Verdict.DELIVERED for outcome in outcomes):
        raise typer.Exit(EXIT_FAILED)


@app.command()
def train(
    config: Annotated[
        Path,
        typer.Option(help="Settings (train.toml); weights, card and curves.png are written beside them."),
    ] = Path("model_weights") / SHIPPED_MODEL / "train.toml",
    atlases: Annotated[
        Path | None,
        typer.Option(help="Folder with synthseg/, allen/ and bigbrain/, which samples are drawn from."),
    ] = None,
    cohort: Annotated[
        Path | None,
        typer.Option(
            help="Own images for the segmenter, BIDS derivatives: sub-*/anat/*_T2w.nii.gz with *_dseg.nii.gz "
            "and dseg.tsv; the settings say under cohort how they are used."
        ),
    ] = None,
    work: Annotated[
        Path, typer.Option(help="Folder for what a stopped run goes on from; repeat the command to go on.")
    ] = Path("build/train"),
    only: Annotated[
        Literal["segmenter", "localiser"] | None,
        typer.Option(
            help="Train one network; the other may be trained at the same time in the same work folder."
        ),
    ] = None,
    device: Annotated[
        str, typer.Option(help="auto (a GPU if there is one), cpu, cuda:0 ...; for several GPUs: torchrun.")
    ] = "auto",
) -> None:
    """Train GP-net on drawn heads, or on images of one's own as well. Needs the train extra.

    A run that is stopped goes on when the command is repeated, and ends in the same weights.
    Several GPUs: torchrun --nproc-per-node 2 -m gpnet_node train ...
    """
    _need_train_extra()
    from gpnet_node.model.training.train import train as train_model

    missing = train_model(config, atlases, work, cohort=cohort, only=only, device=device)
    if missing:
        _out().print(f"Still to be trained before weights can be written: {', '.join(missing)}.")
    else:
        _out().print(f"Weights and card are in {config.parent}.")


@app.command()
def synthesise(
    atlases: AtlasFolder,
    out: Annotated[Path, typer.Option(help="Folder for the images, in the layout of BIDS derivatives.")],
    people: Annotated[
        Literal["test", "validate"], typer.Option(help="The fixed cohort of these people.")
    ] = "test",
    model: ModelFolder = Path("model_weights") / SHIPPED_MODEL,
    work: Annotated[Path, typer.Option(help="Folder for the people's anatomies.")] = Path("build/evaluate"),
    limit: Annotated[int | None, typer.Option(help="Only the first images.", show_default=False)] = None,
) -> None:
    """Write a fixed cohort of drawn images with their truth, to look at. Needs the train extra."""
    _need_train_extra()
    from gpnet_node.model.card import read_card
    from gpnet_node.model.drawing import atlas
    from gpnet_node.model.evaluation import cohort
    from gpnet_node.model.evaluation.cohort_files import write_cohort
    from gpnet_node.model.training.release import code_version

    cases = (cohort.set_a() if people == "test" else cohort.validation())[:limit]
    named = sorted({case.person for case in cases})
    with Progress(console=errors, transient=True) as progress:
        task = progress.add_task("anatomies", total=len(named))
        judged = cohort.TEST_PEOPLE
        atlas.build(atlases, named, work / "anatomies", lambda _: progress.advance(task), judged=judged)
        written = write_cohort(cases, work / "anatomies", out, read_card(model), code_version())
        for _ in progress.track(written, total=len(cases), description="drawing"):
            pass
    typer.echo(f"{len(cases)} images of {len(named)} people in {out}")


@app.command()
def evaluate(
    atlases: AtlasFolder,
    model: ModelFolder = Path("model_weights") / SHIPPED_MODEL,
    cohort: Annotated[
        Literal["test", "validate"],
        typer.Option(help="test: the model's table. validate: fit the predicted Dice, compare settings."),
    ] = "test",
    work: Annotated[
        Path, typer.Option(help="Folder for what a stopped run goes on from; repeat the command to go on.")
    ] = Path("build/evaluate"),
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for figures and tables. [default: the model's]", show_default=False),
    ] = None,
    network_only: Annotated[
        bool,
        typer.Option("--network-only", help="Leave out atlases and fusion, which take most of the time."),
    ] = False,
) -> None:
    """Repeat the model's table from scratch: drawn cohorts, atlases, real images. Needs the train extra."""
    _need_train_extra()
    from gpnet_node import display
    from gpnet_node.model.evaluation.evaluate import evaluate_test, evaluate_validation
    from gpnet_node.model.evaluation.stages import Evaluation, processes
    from gpnet_node.parts import now

    columns = (*Progress.get_default_columns(), TimeElapsedColumn())
    with processes() as pool, Progress(*columns, console=errors) as progress:
        tasks: dict[str, TaskID] = {}

        def advance(stage: str, done: int, total: int) -> None:
            task = tasks.get(stage)
            if task is None:
                task = tasks[stage] = progress.add_task(stage, total=total)
            progress.update(task, completed=done)

        evaluation = Evaluation(
            model=model,
            atlases=atlases,
            work=work,
            out=out or model,
            now=now(),
            command=f"gpnet-node evaluate --cohort {cohort}{' --network-only' if network_only else ''}",
            progress=advance,
            pool=pool,
            network_only=network_only,
        )
        bars = evaluate_test(evaluation) if cohort == "test" else evaluate_validation(evaluation)
    _out().print(display.bars(bars))


def _need_train_extra() -> None:
    for module in ("ants", "monai"):  # asked now: they are needed long after the start
        if find_spec(module) is None:
            raise ConfigurationError(f"{module} is not installed: pip install 'gpnet_node[train]'")


# -- the operator --------------------------------------------------------------------------------------------


@app.command()
def status(
    uid: Annotated[
        str | None, typer.Argument(metavar="[UID]", help="A job's or a series' UID: tells its history.")
    ] = None,
    config: ConfigFolder = None,
    limit: Annotated[int, typer.Option(help="How many of the newest series and jobs.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Show series and what they wait for, jobs, and what is owed to whom. No patient data."""
    from gpnet_node import display, overview

    with _parts(config) as parts:
        seen = overview.look(parts, uid=uid, limit=limit)
    if as_json:
        display.print_json(overview.as_json(seen))
    else:
        _out().print(display.overview(seen))


@app.command()
def retry(job: JobUid, config: ConfigFolder = None) -> None:
    """Let a failed or parked job go on: sending, if its objects are written; else from the start."""
    _move("retry", config, lambda jobs, now: jobs.retry(job, now=now))


@app.command()
def release(job: JobUid, config: ConfigFolder = None) -> None:
    """Let the objects of a job that needs review leave."""
    _move("release", config, lambda jobs, now: jobs.release(job, now=now))


@app.command()
def reject(job: JobUid, config: ConfigFolder = None) -> None:
    """Keep the objects of a job that needs review from leaving, for good."""
    _move("reject", config, lambda jobs, now: jobs.reject(job, now=now))


@app.command()
def cancel(job: JobUid, config: ConfigFolder = None) -> None:
    """Stop a job that has not reached its end; nothing more of it is sent."""
    _move("cancel", config, lambda jobs, now: jobs.cancel(job, now=now))


@app.command()
def reprocess(
    series: Annotated[str, typer.Argument(metavar="SERIES_UID", help="The Series Instance UID.")],
    plan: PlanFile = None,
    config: ConfigFolder = None,
) -> None:
    """Segment a series that was received again, as a new job; it takes the place of the earlier one."""
    from gpnet_node.results.acpc import read_plan

    told = None if plan is None else read_plan(plan).model_dump_json()
    _move("reprocess", config, lambda jobs, now: jobs.reprocess(series, plan=told, now=now))


def _move(verb: str, config: Path | None, how: "Callable[[Jobs, datetime], Job]") -> None:
    from gpnet_node.audit.trail import Traced
    from gpnet_node.parts import now

    with _parts(config) as parts:
        job = how(parts.jobs, now())
        if parts.trail.is_on:
            held = parts.catalogue.held(series_uids=[job.series_uid])
            parts.trail.decided(verb, Counter(map(Traced.of, held)))
    typer.echo(f"job {job.uid} is {job.state}")


@app.command()
def check(
    config: ConfigFolder = None,
    echo: Annotated[bool, typer.Option("--echo", help="Verify each destination by C-ECHO.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check the configuration, and show what the node would run with. Exit status 78 if it is wrong."""
    from gpnet_node import display, overview

    checked = overview.check(_configuration(config), echo=echo)
    if as_json:
        display.print_json(checked)
    else:
        _out().print(display.checked(checked))
    if any(peer.get("fault") for peer in checked["peers"]) or any(m.get("fault") for m in checked["models"]):
        raise typer.Exit(EXIT_FAILED)


@app.command()
def reindex(config: ConfigFolder = None, as_json: AsJson = False) -> None:
    """Fill the index up from the archive, which is the truth for what was received."""
    from gpnet_node import display
    from gpnet_node.parts import now
    from gpnet_node.store import reindex as filling

    with _parts(config, make=True) as parts, Progress(console=errors, transient=True) as progress:
        task = progress.add_task("reading the archive", total=None)
        found = filling.reindex(
            parts.archive,
            parts.index,
            now=now(),
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    for path in found.unreadable:
        errors.print(f"{path} cannot be read", style="red", markup=False, soft_wrap=True)
    if as_json:
        unreadable = [str(path) for path in found.unreadable]
        display.print_json({"found": found.found, "added": found.added, "unreadable": unreadable})
    else:
        typer.echo(f"{found.found} instances in the archive, {found.added} added to the index")
    if found.unreadable:
        raise StorageError(f"{len(found.unreadable)} files of the archive cannot be read")
