"""The boundaries of files.py and console.py: what people hand us, what the disk refuses, what is printed, what is claimed."""
from console import Parser, one_line_errors, printable, render_table

import errno
import io
import json
import math
import os
import signal
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from conftest import ROOT, command
from safetensors.torch import load_file, save_file

import chat
import files
from checkpoint import new_folder
from files import (
    FileError,
    checkpoint_tensors,
    claimed,
    locked,
    read_json,
    read_trained,
    reading,
    to_json,
    write_tensors,
    write_text,
)
from tools.serving_files import folder_names


@pytest.mark.parametrize("error, words", [
    (KeyError("model"), "'model' is missing"), (RecursionError(), "nested too deep"), (TypeError("no"), "no"), (ZeroDivisionError(), "ZeroDivisionError"),
    (AttributeError("a\nb"), "a b"), (UnicodeDecodeError("utf8", b"\xff", 0, 1, "x"), "not UTF-8"), (OverflowError("too big"), "too big")])
def test_whatever_goes_wrong_while_a_file_is_read_names_the_file(error, words):
    with pytest.raises(FileError, match="^p: .*; expected here: a page$") as caught, reading("p", "a page"):
        raise error
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_what_says_enough_already_passes(tmp_path):
    for error in (FileError("q: it is broken"), FileNotFoundError("q"), MemoryError(), KeyboardInterrupt()):
        with pytest.raises(type(error)), reading("p", "a page"):
            raise error


@pytest.mark.parametrize("text, words", [
    ("[" * 100_000, "nested too deep"), ('{"a": NaN}', "NaN is no number"), ('{"a": "\\ud800"}', "half of a character"), ("null", "this is NoneType"),
    ("", "not JSON"), ('{"a": ' + "9" * 5000 + "}", "digits"), ('{"n": true}', "n is True"), ('{"n": 1e999}', "n is inf"), ('{"n": 0}', "n is 0"), ('{"n": 1.5}', "n is 1.5")])
def test_json_that_could_do_harm_later_is_refused_where_it_stands(text, words, tmp_path):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(FileError, match="x.json: ") as caught:
        read_json(tmp_path / "x.json", numbers={"n": (int, 1, 9)})
    assert words in str(caught.value)


# ----------------------------------------------------------------------------------------------------------- writing
def test_a_temporary_file_is_never_a_link_that_somebody_laid(tmp_path):
    """A scores.json.tmp that was a link to a precious file was written through."""
    precious = tmp_path / "precious"
    precious.write_text("mine")
    for name in ("a.json.tmp", ".a.json.tmp"):
        (tmp_path / name).symlink_to(precious)
    (tmp_path / "a.json").symlink_to(precious)
    write_text(tmp_path / "a.json", "new")
    assert precious.read_text() == "mine" and (tmp_path / "a.json").read_text() == "new"


def test_files_have_the_mode_that_others_expect(tmp_path):
    before = os.umask(0o022)
    try:
        write_tensors(tmp_path / "a", {"x": torch.zeros(2)})
        write_text(tmp_path / "b", "")
    finally:
        os.umask(before)
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in "ab"] == [0o644, 0o644]


def test_a_full_disk_is_one_line_and_leaves_the_old_file(tmp_path, monkeypatch):
    """safetensors reports it with an error that is no OSError."""
    from safetensors import SafetensorError
    write_tensors(tmp_path / "a", {"x": torch.ones(2)})

    def full(*_):
        raise SafetensorError("I/O error: No space left on device (os error 28)")
    monkeypatch.setattr(files, "save_file", full)
    with pytest.raises(OSError, match="a cannot be written .*No space left.* make room"):
        write_tensors(tmp_path / "a", {"x": torch.zeros(2)})
    assert load_file(tmp_path / "a")["x"].sum() == 2 and [p.name for p in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_neither_written_nor_read(number, tmp_path):
    tensors = {"good": torch.zeros(3), "bad": torch.tensor([1.0, number])}
    with pytest.raises(FloatingPointError, match="a is not written: bad holds"):
        write_tensors(tmp_path / "a", tensors)
    assert not list(tmp_path.iterdir())
    save_file(tensors, tmp_path / "a")
    with pytest.raises(FileError, match="a: bad holds"):
        read_trained(tmp_path / "a")
    assert json.loads(to_json({"x": [1, number, {"y": number}]})) == {"x": [1, None, {"y": None}]}


def test_the_same_tensors_are_the_same_bytes(tmp_path):
    tensors = {name: torch.randn(3) for name in "dcab"}
    write_tensors(tmp_path / "a", tensors)
    for other in (tensors, dict(sorted(tensors.items()))):
        write_tensors(tmp_path / "b", other)
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


# ------------------------------------------------------------------------------------------------------------ claims
def test_outputs_are_claimed_before_the_work_and_nothing_is_overwritten(tmp_path):
    a, b = tmp_path / "new/a", tmp_path / "b"
    with claimed(a, b):
        assert a.is_file() and b.is_file()
        a.write_text("result")
    assert a.read_text() == "result" and not b.exists()                  # what was not made is not left behind
    ran = []
    with pytest.raises(FileExistsError, match="new/a exists already"), claimed(b, a):
        ran.append(1)
    assert not ran and not b.exists() and a.read_text() == "result"
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileExistsError), claimed(tmp_path / "link"):
        ran.append(1)
    with pytest.raises(OSError, match="cannot be written"), claimed(a / "below/a/file"):
        ran.append(1)
    assert not ran


def test_two_runs_never_share_a_folder_and_nothing_that_lies_there_is_touched(tmp_path, capsys):
    """The folder was claimed only after a call of git, and a folder without config.json was taken."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run/roles.json").write_text("mine")
    (tmp_path / "run-2").write_text("a file")
    (tmp_path / "run-4").mkdir()
    taken = [new_folder(tmp_path / "run").name for _ in range(3)]
    assert taken == ["run-3", "run-4", "run-5"] and (tmp_path / "run/roles.json").read_text() == "mine"
    assert "run is not empty: this one goes to " in capsys.readouterr().out


def test_of_many_that_want_one_folder_each_gets_its_own(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(new_folder, [tmp_path / "run"] * 40))
    assert len(set(taken)) == 40


def test_no_name_leads_out_of_an_export_and_no_two_share_a_folder(tmp_path):
    """".." wrote beside --out, and a/b, a_b, a\\b shared one folder."""
    names = ["..", ".", "", " ", "/", "/etc", "../x", "a/b", "a_b", "a\\b", "a_b-2", "A_b", "\0", "CON", "a.", "...", "\ud800", "孙悟空", "Tik-Tok", "\n", "\x1b[2J"]
    of_role = folder_names({name: i for i, name in enumerate(names)})
    assert (of_role["孙悟空"], of_role["Tik-Tok"]) == ("孙悟空", "Tik-Tok")
    folders = list(of_role.values())
    assert len({name.casefold() for name in folders}) == len(names)
    for name in folders:
        assert (tmp_path / name).resolve().parent == tmp_path.resolve() and name == name.strip(" .") and name.isprintable()


def test_a_lock_has_one_holder_and_ends_with_it(tmp_path):
    path = tmp_path / "config.json"
    path.write_text("{}")
    with locked(path), pytest.raises(ValueError, match="in use by another process"), locked(path):
        pass
    with locked(path):
        pass


def test_a_file_system_without_locks_is_no_obstacle(tmp_path, monkeypatch):
    def unknown(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")
    monkeypatch.setattr(files.fcntl, "flock", unknown)
    (tmp_path / "f").write_text("")
    with locked(tmp_path / "f"):
        pass


# --------------------------------------------------------------------------------------------------- a model's weights
@pytest.mark.parametrize("shard", ["../secret.safetensors", "/etc/passwd", "sub/x.safetensors", "", "..", None, 3])
def test_shards_stay_in_their_folder(shard, tmp_path):
    save_file({"w": torch.zeros(2)}, tmp_path / "secret.safetensors")
    model = tmp_path / "model"
    model.mkdir()
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": shard}}))
    with pytest.raises((FileError, FileNotFoundError), match="index.json"):
        list(checkpoint_tensors(model))


@pytest.mark.parametrize("dtype", [torch.int8, torch.bool, torch.complex64, torch.uint8])
def test_weights_that_are_no_real_numbers_are_refused(dtype, tmp_path):
    save_file({"w": torch.zeros(2, dtype=dtype)}, tmp_path / "model.safetensors")
    with pytest.raises(FileError, match="not quantised"):
        list(checkpoint_tensors(tmp_path))


@pytest.mark.parametrize("write", [
    lambda path: torch.save([torch.zeros(2)], path), lambda path: torch.save({"a": 1}, path), lambda path: path.write_bytes(b"PK\x03\x04 cut"),
    lambda path: torch.save({"a": torch.zeros(2)}, path, _use_new_zipfile_serialization=False), lambda path: path.write_bytes(b""),
    lambda path: torch.save({"a": print}, path)], ids=["list", "numbers", "truncated", "legacy", "empty", "code"])
def test_a_bin_of_anything_else_than_tensors_is_refused(write, tmp_path):
    write(tmp_path / "pytorch_model.bin")
    with pytest.raises((FileError, OSError), match="pytorch_model.bin"):
        list(checkpoint_tensors(tmp_path))


# ---------------------------------------------------------------------------------------------------------- printing
ESCAPES = "\x1b[2J\x07 \u202egnp\u202c \u2066x\u2069 \ud800 \x9b31m"


def as_command(program, run):
    with one_line_errors(program):
        run()


def test_everything_a_command_prints_is_safe_to_print(capsys):
    as_command("x", lambda: print(f"role {ESCAPES}", "孙悟空 🙂", flush=True))
    out = capsys.readouterr().out
    assert "孙悟空 🙂" in out and out == printable(out) and "\x1b" not in out
    with pytest.raises(SystemExit) as stop:
        as_command("x", lambda: int(f"1\n{ESCAPES}"))
    assert stop.value.code.startswith("x: invalid literal") and "\n" not in stop.value.code and "\x1b" not in stop.value.code


def test_a_terminal_that_lacks_a_character_loses_no_scores(monkeypatch):
    """On an ASCII terminal printing failed before anything was written."""
    ascii_only = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr(sys, "stdout", ascii_only)
    as_command("x", lambda: print("孙悟空"))
    ascii_only.flush()
    assert ascii_only.buffer.getvalue() == b"\\u5b59\\u609f\\u7a7a\n"


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB.\nmore"),
                                   RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")])
def test_out_of_memory_says_what_to_lower(error):
    def run():
        raise error
    with pytest.raises(SystemExit) as stop:
        as_command("x", run)
    assert "--batch-size" in stop.value.code and "\n" not in stop.value.code
    with pytest.raises(RuntimeError, match="a bug"):                     # a traceback, so that it is reported
        as_command("x", lambda: (_ for _ in ()).throw(RuntimeError("a bug")))


def test_sizes_that_no_machine_has_are_out_of_memory():
    with pytest.raises(SystemExit, match="out of memory"):
        as_command("x", lambda: torch.empty(2 ** 30, 2 ** 29))
    with pytest.raises(SystemExit, match="out of memory"):
        as_command("x", lambda: torch.empty(2 ** 40, 2 ** 40))


def test_interrupts_and_wrong_arguments_are_one_line(capsys):
    def interrupted():
        raise KeyboardInterrupt
    for run, words in ((interrupted, "interrupted"), (lambda: Parser().parse_args(["--no\nsuch"]), "unrecognized arguments")):
        with pytest.raises(SystemExit) as stop:
            as_command("x", run)
        assert words in stop.value.code and "\n" not in stop.value.code
    assert capsys.readouterr().err == ""


def test_ctrl_c_during_the_imports_is_one_line(tmp_path):
    """A module in torch's place sends the signal: the imports are where a command spends its first seconds."""
    (tmp_path / "torch.py").write_text("import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(9)\n")
    for script in (["train.py"], ["eval.py"], ["chat.py"], ["-m", "tools.export"]):
        done = subprocess.run([sys.executable, *script], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, timeout=60)
        assert done.stderr == "interrupted\n" and done.returncode == -signal.SIGINT


def test_a_command_without_a_standard_input_or_without_torchrun_says_so(monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(ValueError, match="the standard input is closed"):
        chat.chat(None)
    monkeypatch.setenv("RANK", "0")
    assert "start with torchrun, or unset RANK" in command("train", ok=False).stderr


def test_a_name_in_a_table_is_one_cell():
    name = "[a](http://x) | b <img>\nc"
    assert render_table([["n"], [name]], markdown=True).splitlines()[2] == "| [a]\\(http://x) \\| b &lt;img> c |"
    assert len(render_table([["n"], [name]]).splitlines()) == 2
