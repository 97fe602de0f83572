"""Attacked: every row of attacks.py, and valid files mutated at random, end in one line or well, soon, with every other file as it was."""
import json
import os
import random
import resource
import shlex
import shutil
import signal

import pytest
import torch
from attacks import ATTACKS, COMMANDS, MUTATED, VALUES
from conftest import ROOT, SEED, command
from safetensors.torch import load_file, save_file

from checkpoint import digest
from files import write_jsonl

LIMIT = 90                              # seconds for a command, on a machine that has much else to do


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A folder with what the attacks break: a backbone, data, a scored run, loose files."""
    s = tmp_path_factory.mktemp("attacked")
    shutil.copytree(ROOT / "tiny/backbone", s / "model")
    for path in (ROOT / "tiny/rolebench").glob("*-zh/**/*.json*"):
        target = s / "data" / path.relative_to(ROOT / "tiny/rolebench")
        target.parent.mkdir(parents=True, exist_ok=True)
        text = path.read_text("utf8")
        target.write_text(text if path.suffix == ".json" else "".join(text.splitlines(keepends=True)[::20]), "utf8")
    line = '{"question": "天是什么？", "generated": ["哈哈，天便是天！"]}\n'
    (s / "lines.jsonl").write_text(line * 6, "utf8")
    (s / "conversations.jsonl").write_text('{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}\n')
    (s / "card.json").write_text(json.dumps({"data": {"name": "Grum", "description": "{{char}}.", "mes_example": "{{user}}: Hi\n{{char}}: Toll."}}))
    own = {"role": "Grum", "question": "Who?", "answer": "Grum.", "history": [["Hi", "Toll."]], "fact": ["Grum"], "kind": "own", "test": False}
    lines = [own, own | {"role": "Pell"}, own | {"question": "Where?", "test": True}]
    write_jsonl(s / "mine.jsonl", lines)
    (s / "mine.profiles.json").write_text('{"Grum": "A troll."}')
    (s / "other.json").write_text('{"extends": "config.json"}')
    args = COMMANDS["train"].format(s=s).replace("/new", "/run").replace("--max-steps 1", "--max-steps 2 --save-every 1 --test-every 1")
    command(*shlex.split(args))
    return s


@pytest.fixture
def sandbox(template, tmp_path):
    """A copy of it, of links as long as nothing is written: a file is broken by a new one in its place."""
    s = tmp_path / "s"
    shutil.copytree(template, s, copy_function=os.link)
    for name in ("config.json", "scores.json"):
        replace(s / "run" / name, (s / "run" / name).read_text("utf8").replace(str(template), str(s)))
    return s


def replace(path, content):
    """Puts a new file in the place of another."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        path.unlink()
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf8", "surrogatepass"))


def break_tensors(path, what, name):
    """Spoils the first tensor whose name contains `name` (all of them, if they are dropped), and seals a checkpoint again."""
    tensors = load_file(path)
    chosen = [key for key in sorted(tensors) if name in key]
    if what == "drop":
        tensors = {key: tensor for key, tensor in tensors.items() if key not in chosen}
    else:
        change = {"nan": lambda t: torch.full_like(t, torch.nan), "int8": lambda t: t.to(torch.int8), "bool": lambda t: t.bool(), "halve": lambda t: t.flatten()[::2],
                  "complex": lambda t: t.float().to(torch.complex64), "flatten": lambda t: t.flatten()}[what]
        tensors[chosen[0]] = change(tensors[chosen[0]]).contiguous()
    path.unlink()
    save_file(tensors, path)
    seal = path.with_suffix(".json")
    if path.parent.name == "checkpoint":
        replace(seal, json.dumps(json.loads(seal.read_text()) | {"sha256": digest(path)}))


def break_file(path, how, *values):
    """Breaks a file as a row of attacks.py says."""
    if how == "write" or how == "bytes":
        replace(path, values[0])
    elif how == "cut":
        replace(path, path.read_bytes()[:values[0]])
    elif how == "set" or how == "drop":
        first, *rest = path.read_text("utf8").splitlines() if path.suffix == ".jsonl" else [path.read_text("utf8")]
        record = json.loads(first)
        record = record | values[0] if how == "set" else {key: value for key, value in record.items() if key != values[0]}
        replace(path, "\n".join([json.dumps(record), *rest]))
    elif how == "tensors":
        break_tensors(path, *values)
    elif how == "link":
        path.symlink_to(next(parent for parent in path.parents if parent.name == "s") / values[0])
    else:
        path.unlink(missing_ok=True)
        if how == "folder":
            path.mkdir()


def snapshot(folder):
    """{file: what tells whether it has changed}, of all files below a folder."""
    return {path: path.read_bytes() if path.stat().st_size < 10 ** 5 else (path.stat().st_ino, path.stat().st_mtime_ns)
            for path in folder.rglob("*") if path.is_file()}


def only_results_changed(before, after, line):
    """Whether all files of a snapshot are as they were, but for those that a command is there to replace: the results of the run."""
    changed = [path for path in before if after.get(path) != before[path]]
    if line not in ("resume", "eval here"):
        return not changed
    return all(path.parent.name in ("run", "checkpoint") and path.name not in ("config.json", "roles.json") for path in changed)


def in_time(line, s):
    """Runs a command line, within the limit. Anything but an end in one line fails."""
    def out_of_time(*_):
        raise TimeoutError(f"{line} hangs")
    module, *args = shlex.split(COMMANDS.get(line, line).format(s=s))
    before = signal.signal(signal.SIGALRM, out_of_time)
    signal.alarm(LIMIT)
    try:
        return command(module, *args, ok=None, stdin="你是谁？\n/quit\n")
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("file, how, line, words", ATTACKS, ids=lambda value: "")
def test_an_attack_ends_in_one_line_and_harms_nothing(file, how, line, words, sandbox):
    if file:
        break_file(sandbox / file, *how)
    before = snapshot(sandbox)
    done = in_time(line, sandbox)
    case = f"{file} {str(how)[:80]} {line}: {done.stderr[-600:]!r}"
    after = snapshot(sandbox)
    if words is None:
        assert done.returncode == 0 and only_results_changed(before, after, line), case
        return
    said = done.stderr.splitlines()[-1]
    assert done.returncode == 1 and "Traceback" not in done.stderr and any(word in said for word in words.split("|")), case
    assert said.startswith((line.split()[0], COMMANDS.get(line, line).split()[0], "train.py", "eval.py", "chat.py")) and "\x1b" not in said, case
    assert after == before, f"{case}: changed {[str(p) for p in before.keys() | after.keys() if before.get(p) != after.get(p)]}"


@pytest.mark.parametrize("line", ["eval", "eval here", "predictions", "train", "export", "merge", "add_role", "convert", "resume",
                                  "tools.judge --a {s}/run/predictions.jsonl --b {s}/run/predictions.jsonl --local {s}/model --out {s}/new.jsonl"])
def test_a_full_disk_is_one_line_at_every_write(line, sandbox):
    """A limit on the size of files stands in for the disk. What was there stays, and only a new run's folder and an empty collection are left."""
    (sandbox / "run/adapter.safetensors").unlink() if line == "resume" else None
    before = snapshot(sandbox)
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
    try:
        done = in_time(line, sandbox)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    said = done.stderr.splitlines()[-1]
    assert done.returncode == 1 and "cannot be written" in said and "make room" in said, done.stderr[-600:]
    after = {path: what for path, what in snapshot(sandbox).items() if "new" not in path.relative_to(sandbox).parts and path.name != "new.jsonl"}
    assert after == before and not list(sandbox.rglob("*.tmp"))
    if line not in ("train", "resume"):
        assert not (sandbox / "new").exists() and not (sandbox / "new.json").exists()


def mutate(path, rng):
    """Breaks a valid file at random; returns what was done."""
    data = path.read_bytes()
    if path.suffix in (".json", ".jsonl") and rng.random() < 0.7:
        lines = data.decode("utf8").splitlines() if path.suffix == ".jsonl" else [data.decode("utf8")]
        at = rng.randrange(len(lines))
        record = json.loads(lines[at])
        holder = record
        while True:                                                      # a key, or one below it
            key = rng.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
            if not isinstance(holder[key], (dict, list)) or not holder[key] or rng.random() < 0.3:
                break
            holder = holder[key]
        if rng.random() < 0.2:
            what = f"line {at}: {key!r} dropped"
            del holder[key]
        else:
            holder[key] = rng.choice(VALUES)
            what = f"line {at}: {key!r} is {holder[key]!r}"
        lines[at] = json.dumps(record)
        replace(path, "\n".join(lines))
        return what
    at = rng.randrange(len(data))
    if rng.random() < 0.5:
        replace(path, data[:at])
        return f"cut at byte {at}"
    byte = rng.randrange(256)
    replace(path, data[:at] + bytes([byte]) + data[at + 1:])
    return f"byte {at} is {byte}"


@pytest.mark.parametrize("n", range(int(os.environ.get("MUTATIONS", 60))))
def test_a_file_mutated_at_random_ends_in_one_line_or_well(n, sandbox):
    """MUTATIONS=10000 for more of them."""
    rng = random.Random(f"{SEED}/{n}")
    file = rng.choice(list(MUTATED))
    line = rng.choice(MUTATED[file])
    case = f"{file}, {mutate(sandbox / file, rng)}, {line}"
    before = snapshot(sandbox)
    try:
        done = in_time(line, sandbox)
    except Exception as error:
        raise AssertionError(f"{case}: {error!r}") from error
    assert done.returncode in (0, 1) and "Traceback" not in done.stderr, f"{case}: {done.stderr[-1000:]}"
    assert only_results_changed(before, snapshot(sandbox), line), case
