"""The command-line application and the options that its verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scaling_sim import __version__

app = typer.Typer(
    name="scaling-sim",
    help="Train families of small transformers, fit scaling laws, predict what a larger budget buys.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _import(modules: list[str] | None) -> list[str] | None:
    """Import the modules of --import before the verb runs; what it returns is what the verb gets."""
    from scaling_sim.laws import import_laws

    for module in modules or []:
        import_laws(module)
    return modules


Import = Annotated[
    list[str] | None,
    typer.Option(
        "--import",
        help="Module or .py file that registers laws of your own, repeated.",
        metavar="MODULE",
        callback=_import,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
Seed = Annotated[int, typer.Option(min=0, help="Of every random choice: same seed, same numbers.")]
StudySeed = Annotated[int | None, typer.Option(min=0, help="Replaces the study's own seed.", show_default=False)]
NoSeed = Annotated[int, typer.Option(help="Taken by every verb; nothing here is random.", hidden=True)]
Columns = Annotated[
    str | None,
    typer.Option(help='Ours=theirs, comma separated; arithmetic is fine: "N=params,D=bs*steps*2048,loss=final_loss".'),
]
Where = Annotated[
    list[str] | None, typer.Option(help='A condition that rows must meet, repeated: "train_data=c4", "loss<3.5".')
]
Duplicates = Annotated[
    str, typer.Option(help="Rows of equal run id and step: `refuse` them, keep the `first` or `last`.")
]
FitFile = Annotated[
    Path | None, typer.Argument(help="A fit written by `scaling-sim fit --out`; - for stdin.", show_default=False)
]
Constants = Annotated[str | None, typer.Option(help="A published set of constants in place of a fit.")]


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
) -> None:
    if version:
        print(__version__)
        raise typer.Exit
