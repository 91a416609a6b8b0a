"""The command `dovetail`: a table of commands, each loaded from its module only when it runs.

Help needs the table alone, so that `dovetail --help` imports neither torch nor numpy. Commands
are plain typer functions in `sim/cli/<group>.py`; they parse words, call the Python API and print.

Files                inspect (list, show, compare), hardware (check), new, workloads (trace)
Answers              estimate, roofline, sweep, simulate, report
Measurements         measure (and import-profile), calibrate, validate
Choices              compress, search
Shared by them       common (settings, `key=value`, printing), progress (on stderr), streams (stdout and stderr as
                     they are), complete (for the shell)
"""

from __future__ import annotations

import errno
import gc
import os
import re
import sys
import traceback
from dataclasses import dataclass
from enum import Enum
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption
from typer.exceptions import TyperException

from sim._version import __version__
from sim.cli import common, streams
from sim.errors import DovetailError, nearest

EXIT_BUG = 70
"""Exit code of an error that is ours and not the user's (EX_SOFTWARE of sysexits.h)."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What stdout, which has no file name, may be: a full disk is no bug of ours."""
OBJECTS_PER_COLLECTION = 50_000
"""New objects between two looks for garbage: at Python's own 700 a command looks through what it imports again and
again."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a command lives (`module:function` under `sim.cli`) and what the overview says of it."""

    home: str
    help: str
    example: str
    group: str

    @property
    def module(self) -> str:
        return "sim.cli." + self.home.partition(":")[0]

    @property
    def function(self) -> str:
        return self.home.partition(":")[2]


_LOOK, _ANSWER, _TRUST, _CHOOSE = "Look", "How long, and why", "Can I believe it", "Which model on which chip"

COMMANDS = {
    "list": Entry("inspect:list_", "Bundled workloads and chips.", "dovetail list hardware", _LOOK),
    "show": Entry("inspect:show", "What a workload or a chip is made of.", "dovetail show tesla-fsd-npu", _LOOK),
    "check": Entry(
        "hardware:check",
        "Check a chip, search, scenario, recipe, precision, grid or model file.",
        "dovetail check my-chip.yaml",
        _LOOK,
    ),
    "new": Entry(
        "new:new", "A chip, workload, search, scenario or recipe to start from.", "dovetail new chip mine", _LOOK
    ),
    "trace": Entry("workloads:trace", "Record a model's graph.", "dovetail trace resnet50 -o graph.json", _LOOK),
    "estimate": Entry(
        "estimate:estimate",
        "Latency, energy and memory of a workload on a chip, and what binds every op.",
        "dovetail estimate resnet50 --hw tesla-fsd-npu",
        _ANSWER,
    ),
    "roofline": Entry(
        "roofline:roofline",
        "Every op under the chip's ceilings.",
        "dovetail roofline resnet50 --hw tesla-fsd-npu -o roofline.png",
        _ANSWER,
    ),
    "sweep": Entry(
        "sweep:sweep",
        "One workload over a grid of chips and knobs.",
        'dovetail sweep resnet50 --hw systolic --set array.rows=16,32,64 --set "DRAM.bandwidth=34 GB/s,68 GB/s" '
        "-o table.csv",
        _ANSWER,
    ),
    "simulate": Entry(
        "simulate:simulate",
        "The same schedule event by event: contention, queues, deadlines.",
        "dovetail simulate resnet50 --hw tesla-fsd-npu",
        _ANSWER,
    ),
    "compare": Entry("inspect:compare", "Two saved results side by side.", "dovetail compare a.json b.json", _ANSWER),
    "report": Entry("report:report", "A self-contained page.", "dovetail report a.json -o report.html", _ANSWER),
    "measure": Entry(
        "measure:measure",
        "Time a workload, an op or a grid of them on this machine.",
        "dovetail measure resnet18 --device cpu",
        _TRUST,
    ),
    "import-profile": Entry(
        "measure:import_profile",
        "Turn a profiler's output into baseline records.",
        "dovetail import-profile layers.csv --device nvidia-h200 --precision fp16",
        _TRUST,
    ),
    "calibrate": Entry(
        "calibrate:calibrate",
        "Fit a measured device's few physical constants.",
        "dovetail calibrate --device amd-epyc-f25m17-avx512-zen4-2c --hw epyc-zen4 -o mine.json",
        _TRUST,
    ),
    "validate": Entry("validate:validate", "Every check that we have, in one table.", "dovetail validate", _TRUST),
    "compress": Entry(
        "compress:compress",
        "Quantise, prune or distil a model and judge its quality.",
        "dovetail compress digits_cnn --recipe int8-ptq --hw edge-npu",
        _CHOOSE,
    ),
    "search": Entry(
        "search:search",
        "Search over model, compression and chip.",
        "dovetail search edge-vision --short -o found",
        _CHOOSE,
    ),
}
"""Every command of the tool; one whose module is not installed is neither listed nor found."""


class LazyGroup(TyperGroup):
    """Holds a stub per command, with its line of help, until the command is called."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, entry in COMMANDS.items():
            if find_spec(entry.module) is not None:
                self.add_command(TyperCommand(name, help=entry.help), name)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[Any, Any, list[str]]:
        if args and args[0] in self.commands:
            self.add_command(_load(args[0]), args[0])
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        for group in dict.fromkeys(entry.group for entry in COMMANDS.values()):
            rows = [(name, COMMANDS[name].help) for name in self.commands if COMMANDS[name].group == group]
            if rows:
                with formatter.section(group):
                    formatter.write_dl(rows)

    def main(self, *args: Any, **extra: Any) -> Any:
        common.settings.reset()
        streams.prepare()
        os.environ["MPLBACKEND"] = "agg"  # figures become files: no display is needed, whatever the shell names
        try:
            code = super().main(*args, **extra | {"standalone_mode": False})
            streams.flush()  # (a full disk is told here, not by the interpreter as it ends)
            sys.exit(code if isinstance(code, int) else 0)
        except TyperException as error:
            print(_refused(error), file=sys.stderr)
            sys.exit(error.exit_code)
        except typer.Abort:
            print("dovetail: aborted", file=sys.stderr)
            sys.exit(1)
        except DovetailError as error:
            if common.settings.debug:
                traceback.print_exc(file=sys.stderr)
            print("dovetail: " + " ".join(str(error).split()), file=sys.stderr)
            sys.exit(error.exit_code)
        except MemoryError as error:
            if common.settings.debug:
                traceback.print_exc(file=sys.stderr)
            words = f"the sizes are too large for this machine's memory ({error})" if str(error) else "out of memory"
            print(f"dovetail: {words}; ask for smaller ones", file=sys.stderr)
            sys.exit(2)
        except OSError as error:
            if (error.filename is None and error.errno not in _FULL) or common.settings.debug:
                traceback.print_exc(file=sys.stderr)
            place = "output" if error.errno in _FULL else "input or output"
            if error.errno in _FULL:
                streams.let_go()
            print(f"dovetail: {error.filename or place}: {error.strerror or error}", file=sys.stderr)
            sys.exit(2)
        except Exception:
            traceback.print_exc(file=sys.stderr)
            print(
                f"dovetail {__version__}: this is a bug in Dovetail, not in your input; "
                "please report it with the lines above and the command that you ran.",
                file=sys.stderr,
            )
            sys.exit(EXIT_BUG)


def _refused(error: TyperException) -> str:
    """Words that typer refuses, in one paragraph with the nearest that it takes; the overview where there are none."""
    context = getattr(error, "ctx", None)
    if context is None or error.message == context.get_help():
        return error.message if context else f"dovetail: {error.message}"
    command, parameter = context.command, getattr(error, "param", None)
    said, hint = error.format_message().removesuffix(".").replace("Value error, ", ""), ""
    if option := getattr(error, "option_name", None):
        options = [name for known in command.params for name in known.opts if name.startswith("-")]
        said, hint = error.message, nearest(option, options) or f" Expected one of {', '.join(options)}."
    elif said.startswith("Missing") and getattr(parameter, "help", None):
        hint = f" Expected: {parameter.help}"  # type: ignore[union-attr]
    elif said.startswith("No such command") and "Did you mean" not in said:
        hint = f" Expected one of {', '.join(command.commands)}."
    elif " is not one of " in said:
        word, _, choices = said.rpartition(": ")[2].partition(" is not one of ")
        hint = nearest(word.strip("'"), re.findall("'(.+?)'", choices))
    end = "" if said.endswith("?") else "."
    return f"{context.command_path}: {said[:1].lower()}{said[1:]}{end}{hint} See {context.command_path} --help."


def _load(name: str) -> TyperCommand:
    """The real command of the table's row, with the options that every command shares."""
    entry = COMMANDS[name]
    one = typer.Typer(add_completion=False, rich_markup_mode=None)
    function = getattr(import_module(entry.module), entry.function)
    epilog = f"Example: {entry.example}"
    one.command(name, epilog=epilog, context_settings={"help_option_names": ["-h", "--help"]})(function)
    command = typer.main.get_command(one)
    kinds = get_type_hints(function)
    for option in command.params:
        kind = kinds.get(str(option.name))
        if option.metavar is None and isinstance(option, TyperOption) and not _is_choice(kind):
            name = str(option.name)
            option.metavar = _VALUES.get(name) or ("FILE" if kind in (Path, Path | None) else name.upper())
    command.params.extend(_shared_options())
    assert isinstance(command, TyperCommand)
    return command


_VALUES = {"hw": "CHIP", "p": "KNOB=VALUE", "set_": "PATH=QUANTITY", "compare": "CHIP", "workers": "N",
           "threads": "N", "trials": "N", "train_steps": "N", "time_limit": "SECONDS"}  # fmt: skip
"""Option -> what its help calls the value; others are called as they are."""


def _is_choice(kind: Any) -> bool:
    """An option whose values its help lists: an enum, or on and off."""
    return isinstance(kind, type) and issubclass(kind, (Enum, bool))


def _shared_options() -> list[TyperOption]:
    def shared(
        quiet: bool = typer.Option(
            False, "--quiet", "-q", help="No progress, no remarks on stderr.", callback=common.settings.set_quiet
        ),
        debug: bool = typer.Option(
            False, "--debug", help="Show the traceback of an error.", callback=common.settings.set_debug
        ),
    ) -> None: ...

    one = typer.Typer(add_completion=False)
    one.command()(shared)
    options = [p for p in typer.main.get_command(one).params if isinstance(p, TyperOption) and p.name in _SHARED]
    for option in options:
        option.expose_value = False
    return options


_SHARED = ("quiet", "debug")

app = typer.Typer(
    name="dovetail",
    cls=LazyGroup,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(value: bool) -> None:
    if value:
        print(f"dovetail {__version__}")
        raise typer.Exit


@app.callback(epilog="Example: dovetail estimate resnet50 --hw tesla-fsd-npu --per-op")
def _root(
    version: bool = typer.Option(False, "--version", help="Print the version.", callback=_version, is_eager=True),
) -> None:
    """How long a PyTorch model takes on a chip, and why: latency, energy, memory, what binds each op."""


def main() -> None:
    """Entry point of `dovetail` and of `python -m sim`."""
    gc.set_threshold(OBJECTS_PER_COLLECTION)
    typer.main.get_command(app).main(prog_name="dovetail")
