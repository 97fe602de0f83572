"""The exercises: blanked, their tests fail; with the original body put back, they pass."""
import os
import subprocess
import sys

import pytest
from conftest import ROOT

from tools import exercises
from tools.exercises import EXERCISES, judge, write_exercises
from tools.source import blank, find, transplant

# in a process of its own: swaps the code of each function for that of its blank, and counts the tests that pass
EACH_ALONE = """
import importlib, sys
import pytest
from files import ROOT
from tools.exercises import EXERCISES
from tools.source import blank

def codes(code):
    yield code
    for constant in code.co_consts:
        if hasattr(constant, "co_qualname"):
            yield from codes(constant)

class Counter:
    passed, failed = 0, 0
    def pytest_runtest_logreport(self, report):
        self.passed += report.when == "call" and report.passed
        self.failed += report.failed

sys.path.insert(0, str(ROOT))
for exercise in EXERCISES:
    function = importlib.import_module(exercise.file.removesuffix(".py"))
    for part in exercise.function.split("."):
        function = getattr(function, part)
    original = function.__code__
    text = blank((ROOT / exercise.file).read_text("utf8"), exercise.function, exercise.message())
    function.__code__ = next(c for c in codes(compile(text, exercise.file, "exec")) if c.co_qualname == exercise.function)
    counter = Counter()
    pytest.main(["--tb=line", "-p", "no:cacheprovider", *(f"tests/{test}" for test in exercise.tests)], [counter])
    function.__code__ = original
    print("RESULT", exercise.name, counter.passed, counter.failed > 0)
"""


def test_blanked_no_test_of_an_exercise_passes():
    environment = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run([sys.executable, "-c", EACH_ALONE], cwd=ROOT, env=environment, capture_output=True, text=True)
    results = [line.removeprefix("RESULT ") for line in done.stdout.splitlines() if line.startswith("RESULT")]
    assert results == [f"{exercise.name} 0 True" for exercise in EXERCISES], done.stdout + done.stderr


def test_a_blank_keeps_docstring_shapes_and_comments_and_the_original_fits_back(tmp_path):
    write_exercises(tmp_path / "learn")
    for exercise in EXERCISES:
        original = (ROOT / exercise.file).read_text("utf8")
        text = blank(original, exercise.function, exercise.message())
        assert find(text, exercise.function).body[-1].exc.func.id == "NotImplementedError"
        assert transplant(text, original, exercise.function) == original
        assert judge(exercise, tmp_path / "learn") == "blank"

    losses = (tmp_path / "learn/losses.py").read_text("utf8")
    assert "Eq. 7, averaged over the batch I." in losses and "# (B, B): j is in P(i)" in losses
    assert "log_softmax(-1)\n    positive" not in losses
    assert (tmp_path / "learn/config.py").read_text("utf8") == (ROOT / "config.py").read_text("utf8")
    with pytest.raises(ValueError, match="learn exists"):
        write_exercises(tmp_path / "learn")


@pytest.mark.parametrize("wrong, verdict", [("", "right"), ("lam_max * ", "not yet: ")])
def test_an_answer_is_judged_while_others_are_blank(wrong, verdict, tmp_path):
    write_exercises(tmp_path / "learn")
    path = tmp_path / "learn/losses.py"
    original = (ROOT / "losses.py").read_text("utf8")
    path.write_text(transplant(path.read_text("utf8"), original, "lambda_at").replace(" * ramp", f" * {wrong}ramp"), "utf8")
    (exercise,) = (e for e in EXERCISES if e.name == "Eq. 8")
    assert judge(exercise, tmp_path / "learn").startswith(verdict)


def test_what_cannot_be_judged_is_not_right_yet(tmp_path):
    exercise = EXERCISES[6]
    for text, verdict in (("x = 1\ndef hyper_contrastive_loss(:\n", "not yet: losses.py, line 2: "),
                          ("def another():\n    pass\n", "not yet: losses.py: there is no hyper_contrastive_loss"),
                          ((ROOT / "losses.py").read_text("utf8").replace("def lambda_at(", "def lam("), "not yet: losses.py: there is no lambda_at")):
        (tmp_path / "losses.py").write_text(text, "utf8")
        assert judge(exercise, tmp_path).startswith(verdict)


def test_the_command(tmp_path, monkeypatch, capsys):
    for more in (["--out", str(tmp_path / "learn")], ["--check", str(tmp_path / "learn")]):
        monkeypatch.setattr(sys, "argv", ["exercises", *more])
        exercises.main()
    out = capsys.readouterr().out
    assert out.count("ContrastiveProjections.forward") == 2 and out.count("blank") == len(EXERCISES)
    for more, message in (([], "give either"), (["--check", str(tmp_path)], "holds no exercises")):
        monkeypatch.setattr(sys, "argv", ["exercises", *more])
        with pytest.raises(SystemExit, match=message):
            exercises.main()

    # the last line says what to do next
    for verdict, message in (("right", "the demo on your own code"), ("not yet: assert 1 == 2", "--show prints")):
        monkeypatch.setattr(exercises, "judge", lambda *_, verdict=verdict: verdict)
        monkeypatch.setattr(sys, "argv", ["exercises", "--check", str(tmp_path / "learn")])
        exercises.main()
        assert message in capsys.readouterr().out.splitlines()[-1]
