"""The command line: the one file that sees all four packages.

It checks which flags go together, and leaves all else to the packages. What a person gave that
can't work comes up as ValueError or OSError: its message goes to the standard error and the exit
code is 2. Work that broke off for a reason that is known comes up as BrokeOff, likewise; then it is
1. Packages are imported by the command that needs them, so that `milpa --help` is there at once.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cluster.experiment import Dtype, experiment_from, with_flags
from cluster.judge import Endpoint, JudgeModel, JudgeUrl
from cluster.process import BrokeOff, set_up
from models.lines import shown

if TYPE_CHECKING:
    from models.registry import Registry

app = typer.Typer(
    name="milpa",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Run = Annotated[Path, typer.Argument(help="The folder of a search.", show_default=False)]
RunOption = Annotated[Path, typer.Option("--run", help="The folder of a search.")]
User = Annotated[str, typer.Argument(help="A user id, as in the data.", show_default=False)]
Users = Annotated[list[str] | None, typer.Argument(help="User ids, as in the data.")]
UsersFile = Annotated[Path | None, typer.Option(help="A file of more user ids, one a line.")]
Seed = Annotated[int, typer.Option(help="Decides every random draw.")]
Address = Annotated[str | None, typer.Option(help="An existing Ray cluster's.")]


@app.callback()
def about() -> None:
    """A personal language model for every user, from one frozen base."""


@app.command()
@with_flags
def search(
    out: Annotated[Path | None, typer.Option(help="The run's folder; a new one in runs/.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the run was.")] = False,
    address: Address = None,
    storage: Annotated[str | None, typer.Option(help="sqlite:///FILE or postgresql://...")] = None,
    examples: Annotated[bool, typer.Option(help="Quote users in the report.")] = True,
    **given: Any,
) -> None:
    """Search every user's memory, publish the winners, and write a report."""
    experiment = experiment_from(given)
    if out is None and resume:
        raise ValueError("--resume: expected the run's folder, give it with --out")
    began = time.strftime("%Y%m%d-%H%M%S")
    folder = out or Path("runs") / f"{Path(experiment.data).resolve().stem}-{began}"
    from cluster import run

    try:
        run.search(
            experiment, folder, resume=resume, address=address, storage=storage, examples=examples
        )
    except KeyboardInterrupt:
        typer.echo(f"interrupted: go on with the same command, --out {folder} --resume", err=True)
        raise typer.Exit(130) from None


@app.command()
def serve(
    run: Annotated[Path | None, typer.Option(help="The folder of a search.")] = None,
    registry: Annotated[Path | None, typer.Option(help="Instead of --run: a registry.")] = None,
    base: Annotated[str | None, typer.Option(help="With --registry: the base.")] = None,
    host: Annotated[str, typer.Option(help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 8000,
    keys: Annotated[Path | None, typer.Option(help="File of keys and their users.")] = None,
    address: Address = None,
) -> None:
    """Answer over HTTP as every user's model, in OpenAI's form."""
    if (run is None) == (registry is None or base is None):
        raise ValueError("expected --run RUN, or --registry DIR with --base PATH")
    if run is not None:
        from cluster.folder import RunFolder

        folder = RunFolder(run)
        registry, base = folder.registry, folder.searched_base()
    assert registry is not None
    assert base is not None
    from serve.app import serve_registry

    serve_registry(registry, base, host, port, keys, address, lambda url: typer.echo(f"at {url}"))


@app.command(context_settings={"ignore_unknown_options": True})
def submit(
    arguments: Annotated[list[str], typer.Argument(help="After --: milpa's own arguments.")],
    address: Annotated[str, typer.Option(help="The dashboard's, http://HOST:8265.")],
    follow: Annotated[bool, typer.Option(help="Show its output, and exit as it does.")] = True,
) -> None:
    """Run a command of milpa as a job on a Ray cluster."""
    from cluster.submit import submit as run_job

    raise typer.Exit(run_job(address, arguments, follow))


@app.command()
def compare(
    run: Annotated[Path | None, typer.Option(help="A finished search: measure that.")] = None,
    data: Annotated[str | None, typer.Option(help="Instead: interactions, as for search.")] = None,
    base: Annotated[str | None, typer.Option(help="With --data: the base model.")] = None,
    methods: Annotated[str | None, typer.Option(help="With --data: all, or names: a,b,c.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where to write; RUN if not given.")] = None,
    seed: Seed = 0,
    items: Annotated[int, typer.Option(help="Most test items answered for a user.")] = 32,
    strangers: Annotated[int | None, typer.Option(help="With --run: strangers a user; 4.")] = None,
    users: Annotated[int | None, typer.Option(help="Users: 12 of --data; all of a --run.")] = None,
    skip: Annotated[int | None, typer.Option(help="Skip the first N users of the draw; 0.")] = None,
    seeds: Annotated[int | None, typer.Option(help="Final trainings of each user; 3.")] = None,
    trials: Annotated[int | None, typer.Option(help="Trials a user, of every method; 8.")] = None,
    default_budget: Annotated[
        bool | None,
        typer.Option("--default-budget", help="The main method with a search's trials, too."),
    ] = None,
    reference: Annotated[
        str | None, typer.Option(help="The row that differences are taken to; the method none.")
    ] = None,
    min_items: Annotated[int | None, typer.Option(help="Fewest items of a user; 30.")] = None,
    population: Annotated[
        Literal["auto", "off"] | None, typer.Option(help="Learn first what users share; auto.")
    ] = None,
    user_said: Annotated[
        Literal["response", "query", "both"] | None,
        typer.Option(help="Which text is the user's own; response."),
    ] = None,
    dtype: Annotated[Dtype | None, typer.Option(help="The base's numbers; auto.")] = None,
    injection_epochs: Annotated[int | None, typer.Option(help="As for search; 3.")] = None,
    tuning_epochs: Annotated[int | None, typer.Option(help="As for search; 3.")] = None,
    epoch_tokens: Annotated[int | None, typer.Option(help="As for search; 8192.")] = None,
    encoder: Annotated[str | None, typer.Option(help="What reads texts as vectors; base.")] = None,
    slots: Annotated[int | None, typer.Option(help="Most trainings at once.")] = None,
    address: Address = None,
    judge: JudgeUrl = None,
    judge_model: JudgeModel = None,
    examples: Annotated[bool, typer.Option(help="With --data: quote users in a page.")] = True,
) -> None:
    """Measure a run on its test words; or methods against each other, on equal terms.

    With --run: base, own memory, strangers' memories. With --data, --base, --methods and --out:
    every method tuned, trained and tested on the same users; the same command goes on.
    """
    set_for_methods: dict[str, Any] = {
        "users": users, "seeds": seeds, "trials": trials, "default_budget": default_budget,
        "min_items": min_items, "population": population, "user_said": user_said, "dtype": dtype,
        "injection_epochs": injection_epochs, "tuning_epochs": tuning_epochs,
        "epoch_tokens": epoch_tokens, "encoder": encoder, "skip": skip,
    }  # fmt: skip
    of_methods = {name: value for name, value in set_for_methods.items() if value is not None}
    given = {"data": data, "base": base, "methods": methods}
    from cluster.terms import refuse_with

    if run is not None:
        alone = {**given, **of_methods, "users": None, "reference": reference, "slots": slots,
                 "address": address, "judge": judge, "judge_model": judge_model,
                 "no_examples": None if examples else True}  # fmt: skip
        from cluster import compare as measuring

        refuse_with("--run", alone)
        count = measuring.STRANGERS if strangers is None else strangers
        measuring.compare(run, seed, count, out, items, users=users)
        return
    if data is None or base is None or methods is None or out is None:
        raise ValueError("expected --run RUN, or --data, --base, --methods and --out together")
    refuse_with("--data", {"strangers": strangers})
    from cluster.contest import contest
    from cluster.entrant import CONTROL, methods_of
    from cluster.terms import Terms

    terms = Terms(data, base, methods_of(methods), seed=seed, items=items, **of_methods)
    if (judge is None) != (judge_model is None):
        raise ValueError("expected --judge URL and --judge-model MODEL together, got one of them")
    endpoint = None if judge is None or judge_model is None else Endpoint(judge, judge_model)
    try:
        contest(terms, out, reference or CONTROL, address, slots, None, endpoint, examples)
    except KeyboardInterrupt:
        typer.echo("interrupted: go on with the same command", err=True)
        raise typer.Exit(130) from None


@app.command()
def report(
    run: RunOption,
    examples: Annotated[bool, typer.Option(help="Quote users.")] = True,
) -> None:
    """Write a run's report again."""
    from cluster.report import write

    typer.echo(write(run, examples))


@app.command()
def export(
    run: Run,
    user: User,
    folder: Annotated[Path, typer.Argument(help="A new folder.", show_default=False)],
    onto: Annotated[
        Literal["searched", "original"],
        typer.Option(help="The base searched on, or the one before the population was merged."),
    ] = "searched",
) -> None:
    """Write a user's memory as a plain PEFT adapter."""
    population = run / "population"
    merged = population if (population / "adapter_config.json").is_file() else None
    with registry_of(run, user) as registry:
        registry.export(user, folder, onto, merged)


@app.command()
def withdraw(run: Run, user: User) -> None:
    """Take a user's published memory back; the one before it counts again."""
    with registry_of(run, user) as registry:
        before = registry.withdraw(user)
    typer.echo("the user is unknown now" if before is None else f"{before.digest} is current now")


@app.command()
def forget(run: Run, user: Users = None, users: UsersFile = None) -> None:
    """Remove users from a run or a comparison: registries, records, answers, report and data."""
    from cluster import forget as forgetting

    typer.echo("\n".join(forgetting.forget(run, *(user or ()), *forgetting.ids_in(users))))


@app.command()
def pretrain(
    data: Annotated[str, typer.Option(help="Interactions to learn to talk from.")],
    out: Annotated[Path, typer.Option(help="The new base's folder.")],
    seed: Seed = 0,
) -> None:
    """Train a small base from nothing on the interactions of others."""
    from models import pretrain as learning

    settings = learning.PretrainSettings(seed=seed)
    learning.pretrain(data, out, settings, learning.every_tenth(typer.echo))


@app.command()
def examples(
    out: Annotated[Path, typer.Option(help="Where users/ and population/ are written.")],
    users: Annotated[int, typer.Option(help="Users with facts, to search.")] = 4,
    population: Annotated[int, typer.Option(help="Other people, to pretrain on.")] = 400,
    seed: Seed = 0,
) -> None:
    """Write invented users with facts and manners, the same for the same seed."""
    from examples.generate import write

    write(out, users, seed, population)


@contextmanager
def registry_of(run: Path, user: str) -> Iterator[Registry]:
    """A run's registry; where it doesn't know the user, that is said."""
    from cluster.folder import RunFolder
    from models.registry import Registry, UnknownUser

    RunFolder(run).check()
    try:
        yield Registry(RunFolder(run).registry)
    except UnknownUser as error:
        raise ValueError(f"{shown(user)}: {error}") from error


def main() -> None:
    """Runs a command; exits with 2 where what was given can't work, with 1 where it broke off."""
    set_up()
    try:
        app()
    except (BrokeOff, ValueError, OSError) as error:
        typer.echo(f"milpa: {error}", err=True)
        sys.exit(1 if isinstance(error, BrokeOff) else 2)


if __name__ == "__main__":
    main()
