"""Exercises that judge themselves: the core with the bodies of its equations left blank.

    python -m tools.exercises --out learn                             # copies the modules, leaves some functions blank
    python -m tools.exercises --check learn                           # says which of them are right by now
    python -m tools.exercises --check learn --only "Eq. 7" --show     # and prints what its tests say
    python learn/train.py --config configs/tiny.json                  # when all are right: the demo, on your own code

A blank keeps its docstring, its shapes and its comments. The project's own tests judge each exercise with all
others as in the project, so you choose the order. Nothing is kept twice: `ast` finds what to blank.
"""
from console import Parser, one_line_errors, pad

import ast
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from files import ROOT, write_text
from tools.source import blank, find, transplant


@dataclass(frozen=True)
class Exercise:
    """A function to write, and the tests that judge it."""
    name: str
    file: str
    function: str                       # or Class.method
    tests: tuple

    def message(self):
        """What a blank says when it is called."""
        if self.name.startswith("Eq."):
            return f"exercise {self.name}: docs/paper.md has the formula, above the code that solves it"
        return f"exercise {self.name}: the docstring says what is wanted, tests/{self.tests[0]} how it is judged"


PATIENCE = 300                          # seconds for the tests of an exercise
EXERCISES = (
    Exercise("Eq. 1", "hyper.py", "HyperNetwork.encode", ("test_hyper.py::test_equations_one_to_three",)),
    Exercise("Eq. 2", "hyper.py", "ResidualBlock.forward", ("test_hyper.py::test_equations_one_to_three",)),
    Exercise("Eq. 3", "hyper.py", "Head.forward", (
        "test_hyper.py::test_equations_one_to_three", "test_hyper.py::test_init_is_the_table_of_the_docstring")),
    Exercise("Eq. 4", "hycora_layer.py", "AdaptedLinear.forward", ("test_layer.py::test_equation_four_by_hand",)),
    Exercise("Eq. 5", "losses.py", "ContrastiveProjections.forward", (
        "test_losses.py::test_equation_five_is_two_affine_maps_and_starts_small",)),
    Exercise("Eq. 6", "losses.py", "total_loss", (
        "test_losses.py::test_equation_eight_cosine_and_minimum_and_equation_six",)),
    Exercise("Eq. 7", "losses.py", "hyper_contrastive_loss", (
        "test_losses.py::test_equation_seven", "test_losses.py::test_known_values_of_equation_seven")),
    Exercise("Eq. 8", "losses.py", "lambda_at", (
        "test_losses.py::test_equation_eight_line",
        "test_losses.py::test_equation_eight_cosine_and_minimum_and_equation_six")),
    Exercise("labels", "batches.py", "collate", (
        "test_data.py::test_supervised_ids_are_exactly_response_and_stop",
        "test_data.py::test_labels_are_the_tokens_that_a_causal_language_model_is_scored_on")),
    Exercise("KV cache", "model.py", "LayerCache.update", (
        "test_model.py::test_cached_decoding_of_ragged_rows_equals_the_full_forward",)),
    Exercise("sampling", "generate.py", "sample_next_token", (
        "test_generate.py::test_sampling_follows_the_distribution_and_its_limits",
        "test_generate.py::test_repetition_penalty_as_in_transformers",
        "test_generate.py::test_top_k_top_p_and_temperature_together_as_in_transformers")),
    Exercise("BLEU", "metrics.py", "bleu4", ("test_metrics.py::test_bleu_is_nltks",)),
)


def write_exercises(out):
    """Copies the modules of the core to a new folder, with the exercises left blank. ValueError if it exists."""
    if out.exists():
        raise ValueError(f"{out} exists: choose a new folder, or judge it with --check {out}")
    out.mkdir(parents=True)
    for path in sorted(ROOT.glob("*.py")):
        text = path.read_text("utf8")
        for exercise in EXERCISES:
            if exercise.file == path.name:
                text = blank(text, exercise.function, exercise.message())
        write_text(out / path.name, text)


def judge(exercise, folder, show=False):
    """"blank", "right", or "not yet: " and what is wrong. OSError if the folder holds no exercises."""
    file = exercise.file
    text = (folder / file).read_text("utf8")
    try:
        if "NotImplementedError" in ast.unparse(find(text, exercise.function)):
            return "blank"
        for other in EXERCISES:                                          # all others as in the project
            if other.file == file and other != exercise:
                text = transplant(text, (ROOT / file).read_text("utf8"), other.function)
    except SyntaxError as e:
        return f"not yet: {file}, line {e.lineno}: {e.msg}"
    except ValueError as e:
        return f"not yet: {file}: {e}"

    with tempfile.TemporaryDirectory() as core:
        write_text(Path(core) / file, text)
        tests = [f"tests/{test}" for test in exercise.tests]
        command = [sys.executable, "-m", "pytest", "-x", "--tb=short", "-p", "no:cacheprovider", *tests]
        environment = os.environ | {"HYCORA_CORE": core, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        try:
            done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            return f"not yet: after {PATIENCE} seconds it has not ended"
    if show:
        print(done.stdout)
    if done.returncode == 0:
        return "right"
    errors = re.findall(r"^E +(.+)$", done.stdout, re.M)
    return f"not yet: {errors[0] if errors else 'the tests do not run; --show says why'}"


@one_line_errors("tools.exercises")
def main():
    """The command."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, help="a new folder for the exercises")
    parser.add_argument("--check", type=Path, help="a folder of exercises to judge")
    parser.add_argument("--only", choices=[exercise.name for exercise in EXERCISES], help="judge this one")
    parser.add_argument("--show", action="store_true", help="print what the tests print")
    args = parser.parse_args()

    if bool(args.out) == bool(args.check):
        raise ValueError("give either --out or --check")
    if args.check and not find_spec("pytest"):
        raise ValueError("the tests that judge need more packages: pip install -r requirements-dev.txt")
    if args.out:
        write_exercises(args.out)
    elif not (args.check / "hyper.py").is_file():
        raise ValueError(f"{args.check} holds no exercises: python -m tools.exercises --out FOLDER makes them")

    verdicts = []
    wrong = []
    for exercise in EXERCISES:
        if args.only in (None, exercise.name):
            verdicts.append(judge(exercise, args.check, args.show) if args.check else "")
            if verdicts[-1].startswith("not yet"):
                wrong.append(exercise.name)
            place = pad(exercise.file, 17) + pad(exercise.function, 32)
            print(f"{pad(exercise.name, 10)}{place}{verdicts[-1]}".rstrip(), flush=True)
    if args.out:
        print(f"\nwrote {args.out}: write a function, then python -m tools.exercises --check {args.out}")
    elif set(verdicts) == {"right"} and not args.only:
        print(f"\nall right; the demo on your own code: python {args.check}/train.py --config configs/tiny.json")
    elif wrong and not args.show:
        print(f'\n--only "{wrong[0]}" --show prints what the tests of one exercise say')


if __name__ == "__main__":
    main()
