"""What the tests would notice: each operator (but `not`), comparison and constant of a module changed, one at a time.

    python -m tools.mutants                            # the modules of TESTS; an hour on one core
    python -m tools.mutants losses --lines 90-120      # only what stands on these lines

A mutant is killed if a test of its module fails on it, or runs for more than --timeout seconds. What survives computes
the same in another way, or shows what no test looks at. Each mutant runs in a fork of this process, in which torch and
pytest are imported already. Texts in annotations, docstrings and error messages are left alone.
"""
from console import Parser, one_line_errors

import ast
import os
import re
import signal
import sys
import tempfile
from pathlib import Path

import pytest
import torch

from files import ROOT, write_text

TESTS = {                               # the tests that belong to a module
    "hyper": ["tests/test_hyper.py", "tests/test_layer.py"],
    "hycora_layer": ["tests/test_layer.py"],
    "losses": ["tests/test_losses.py"],
    "metrics": ["tests/test_metrics.py"],
}
OPERATORS = {                           # what takes its place
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult, ast.MatMult: ast.Mult, ast.LShift: ast.RShift,
    ast.RShift: ast.LShift, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitAnd, ast.And: ast.Or, ast.Or: ast.And, ast.USub: ast.UAdd, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
    ast.In: ast.NotIn, ast.NotIn: ast.In,
}


# ------------------------------------------------------------------------------------------------------------- mutants
def changes(node):
    """The changes of a node: (name of its attribute, new value)."""
    is_number = isinstance(node, ast.UnaryOp) and isinstance(node.operand, ast.Constant)     # -1 becomes -2
    if type(getattr(node, "op", None)) in OPERATORS and not is_number:
        yield "op", OPERATORS[type(node.op)]()
    elif isinstance(node, ast.Compare):
        for i, operator in enumerate(node.ops):
            yield "ops", [*node.ops[:i], OPERATORS[type(operator)](), *node.ops[i + 1:]]
    elif isinstance(node, (ast.If, ast.IfExp)) and not isinstance(node.test, (ast.Compare, ast.BoolOp)):
        yield "test", ast.UnaryOp(ast.Not(), node.test)
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield "value", ast.Constant(None)                                # the call is left out
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield "value", not node.value
    elif isinstance(node, ast.Constant) and isinstance(node.value, (int, float, str)):
        yield "value", node.value + ("x" if isinstance(node.value, str) else 1)


def left_alone(node):
    """Nodes below this one that are not changed: docstrings, annotations, messages of errors, parts of f-strings."""
    is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    if is_text or isinstance(node, (ast.Raise, ast.JoinedStr)):
        return [node]
    return [child for child in (getattr(node, "annotation", None), getattr(node, "returns", None)) if child]


def mutants(text):
    """(number of the line, changed line, whole text of the mutant) of every change of a source text."""
    tree = ast.parse(text)
    original = ast.unparse(tree).splitlines()
    skipped = {id(inner) for node in ast.walk(tree) for outer in left_alone(node) for inner in ast.walk(outer)}
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        for attribute, value in changes(node):
            before = getattr(node, attribute)
            setattr(node, attribute, value)
            mutant = ast.unparse(tree)
            setattr(node, attribute, before)
            changed = next(line for line, old in zip(mutant.splitlines(), original) if line != old)
            yield node.lineno, changed.strip(), mutant


# ------------------------------------------------------------------------------------------------------------- running
def survives(module, text, tests, timeout):
    """Whether all tests pass with `text` in the place of a module."""
    with tempfile.TemporaryDirectory() as folder:
        write_text(Path(folder) / f"{module}.py", text)
        child = os.fork()
        if child == 0:
            run_tests(folder, tests, timeout)
        _, status = os.waitpid(child, 0)
    return status == 0


def run_tests(folder, tests, timeout):
    """Runs the tests in this process, which then ends: with 0 if all pass."""
    signal.alarm(timeout)
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    os.environ["HYCORA_CORE"] = folder                                   # where tests/conftest.py looks first
    for name in [name for name in sys.modules if (ROOT / f"{name}.py").is_file()]:
        del sys.modules[name]
    code = 1
    try:
        code = pytest.main(["-x", "-q", "-p", "no:xdist", "-p", "no:cacheprovider", *tests])
    finally:
        os._exit(code)                                                   # whatever happens, one process goes on


@one_line_errors("tools.mutants")
def main():
    """The command."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("modules", nargs="*", default=list(TESTS), help=", ".join(TESTS))
    parser.add_argument("--lines", default="1-9999", help="FIRST-LAST: only changes on these lines")
    parser.add_argument("--timeout", type=int, default=120, help="seconds for the tests of one mutant")
    args = parser.parse_args()
    unknown = [module for module in args.modules if module not in TESTS]
    if unknown:
        raise ValueError(f"{unknown[0]} has no tests here; choose {', '.join(TESTS)}")
    lines = re.fullmatch(r"(\d+)-(\d+)", args.lines)
    if not lines:
        raise ValueError(f"--lines is {args.lines!r}, but it has to be FIRST-LAST")
    if args.timeout < 1:
        raise ValueError("--timeout has to be positive")
    first, last = map(int, lines.groups())
    torch.set_num_threads(1)                                             # a fork has no threads but this one

    for module in args.modules:
        text = (ROOT / f"{module}.py").read_text("utf8")
        tests = [str(ROOT / test) for test in TESTS[module]]
        if not survives(module, text, tests, args.timeout):
            raise ValueError(f"the tests of {module}.py fail, or are slower than {args.timeout} s, as it is")

        chosen = [mutant for mutant in mutants(text) if first <= mutant[0] <= last]
        survived = 0
        for number, changed, mutant in chosen:
            if survives(module, mutant, tests, args.timeout):
                survived += 1
                print(f"survived  {module}.py:{number}  {changed}", flush=True)
        print(f"{module}.py: {len(chosen)} mutants, {len(chosen) - survived} killed, {survived} survived", flush=True)


if __name__ == "__main__":
    main()
