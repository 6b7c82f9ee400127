"""The command line: the one file that sees all four packages.

It checks nothing and does nothing itself. What a person gave that can't work comes up as ValueError
or OSError: its message goes to the standard error and the exit code is 2. Packages are imported by
the command that needs them, so that `milpa --help` is there at once.
"""

from __future__ import annotations

import inspect
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from cluster.experiment import experiment_from, flags

app = typer.Typer(
    name="milpa",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Run = Annotated[Path, typer.Argument(help="The folder of a finished search.", show_default=False)]
RunOption = Annotated[Path, typer.Option("--run", help="The folder of a finished search.")]
User = Annotated[str, typer.Argument(help="A user id, as in the data.", show_default=False)]
Seed = Annotated[int, typer.Option(help="Decides every random draw.")]


def with_flags(command: Callable[..., None]) -> Callable[..., None]:
    """The command with one flag for every field of `Experiment`, given to it by name."""
    own = [
        parameter
        for parameter in inspect.signature(command, eval_str=True).parameters.values()
        if parameter.kind is not parameter.VAR_KEYWORD
    ]
    parameters = [p.replace(kind=p.KEYWORD_ONLY) for p in own]
    signature = inspect.Signature([*flags(), *parameters])
    command.__signature__ = signature  # type: ignore[attr-defined]
    command.__annotations__ = {name: p.annotation for name, p in signature.parameters.items()}
    return command


@app.callback()
def _about() -> None:
    """A personal language model for every user, from one frozen base."""


@app.command()
@with_flags
def search(
    out: Annotated[Path | None, typer.Option(help="The run's folder; a new one in runs/.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the run was.")] = False,
    address: Annotated[str | None, typer.Option(help="An existing Ray cluster.")] = None,
    storage: Annotated[str | None, typer.Option(help="Studies: sqlite:// or postgresql://.")] = None,
    examples: Annotated[bool, typer.Option(help="Quote users in the report.")] = True,
    **given: Any,
) -> None:
    """Search every user's memory, publish the winners, and write a report."""
    experiment = experiment_from(given)
    if out is None and resume:
        raise ValueError("--resume: expected the run's folder, give it with --out")
    folder = out or Path("runs") / f"{Path(experiment.data).stem}-{time.strftime('%Y%m%d-%H%M%S')}"
    from cluster import run

    run.search(
        experiment, folder, resume=resume, address=address, storage=storage, examples=examples
    )


def main() -> None:
    """Runs a command; exits with 2 where what was given can't work, 130 where it was interrupted."""
    try:
        app()
    except (ValueError, OSError) as error:
        typer.echo(f"milpa: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
