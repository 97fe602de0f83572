"""Services behind a real local HTTP server that answers well, badly, slowly, with errors: tools.collect, tools.judge."""
import json
import os
import re
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from conftest import ROOT, write_rolebench

import eval as evaluation
from tools import collect, judge


class Service:
    """An OpenAI-compatible server. `behaviours` are used up one a call: an HTTP status, "slow", "garbage", or "ok"."""
    def __init__(self):
        self.calls, self.behaviours, self.lock = [], [], threading.Lock()
        self.reply = lambda messages: "ok"
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with service.lock:
                    service.calls.append((self.path, self.headers.get("Authorization"), body))
                    behaviour = service.behaviours.pop(0) if service.behaviours else "ok"
                if behaviour == "slow":
                    time.sleep(0.5)
                status = behaviour if isinstance(behaviour, int) else 200
                text = "<html>" if behaviour == "garbage" else json.dumps(
                    {"id": "1", "created": 1, "model": "m", "object": "chat.completion", "system_fingerprint": "x",
                     "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
                     "choices": [{"index": 0, "finish_reason": "stop",
                                  "message": {"role": "assistant", "content": service.reply(body["messages"])}}]})
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_):
                pass
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"


@pytest.fixture
def service(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)              # this server is no hub
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    s = Service()
    yield s
    s.server.shutdown()


MESSAGES = [{"role": "user", "content": "Who?"}]


def test_failures_that_may_pass_are_tried_again_and_others_are_not(service, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    service.behaviours = [503, 429, "garbage", "slow"]
    assert collect.chat_completion(service.url, "m", MESSAGES, pauses=(0, 0, 0), max_tokens=7) == "ok"
    assert len(service.calls) == 4
    path, key, body = service.calls[-1]
    assert (path, key, body["model"], body["max_tokens"], body["messages"]) == ("/v1/chat/completions", "Bearer sk-secret", "m", 7, MESSAGES)
    for status, calls in ((401, 1), (500, 3)):
        service.calls, service.behaviours = [], [status] * 9
        with pytest.raises(ValueError, match="does not answer") as error:
            collect.chat_completion(service.url, "m", MESSAGES, pauses=(0, 0))
        assert len(service.calls) == calls and "\n" not in str(error.value) and "sk-secret" not in str(error.value)
    with pytest.raises(ValueError, match="does not answer"):
        collect.chat_completion("http://127.0.0.1:9/v1", "m", MESSAGES, pauses=(0,))


def collected(url, data, model, out, *more):
    collect.collect(collect.parse_args(["--endpoint", url, "--model", model, "--data", str(data), "--out", str(out), *more]))


def scores_of(path, *more):
    out = path.with_suffix(".json")
    evaluation.score(evaluation.parse_args(["--predictions", str(path), "--out", str(out), *more]))
    return json.loads(out.read_text())


def test_answers_are_collected_resumed_and_scored(service, tmp_path):
    write_rolebench(tmp_path, [("A", f"What is {n}?", [f"It is {n}."]) for n in range(20)], part="test")
    (tmp_path / "profiles-eng").mkdir()
    (tmp_path / "profiles-eng/desc.json").write_text('{"A": "A pirate."}')
    service.reply = lambda messages: f"It is {messages[-1]['content'].split()[-1][:-1]}."
    out = tmp_path / "gpt.jsonl"
    service.behaviours = ["ok"] * 6 + [403] * 99
    with pytest.raises(ValueError, match="does not answer"):
        collected(service.url, tmp_path, "m", out)
    lines = out.read_text()
    kept = lines.count("\n")
    assert 0 < kept <= 6
    out.write_text(lines + '{"split": "general", "cut o')                               # killed while writing
    service.calls, service.behaviours = [], []
    collected(service.url, tmp_path, "m", out)
    assert len(service.calls) == 20 - kept
    scores = scores_of(out)
    assert scores["splits"]["role_specific"]["overall"]["rougeL"] == pytest.approx(100, abs=1e-5) and scores["splits"]["role_specific"]["overall"]["n"] == 20
    assert f"m at {service.url}" in scores["by"] and "You are A. A pirate." == service.calls[0][2]["messages"][0]["content"]
    collected(service.url, tmp_path, "m", out)
    assert len(service.calls) == 20 - kept                                              # nothing is asked twice


def test_another_model_is_asked_anew_and_no_other_file_is_touched(service, tmp_path):
    write_rolebench(tmp_path, [("A", f"What is {n}?", ["x"]) for n in range(3)], part="test")
    out = tmp_path / "g.jsonl"
    for model, limit, asked in (("m1", 0, 3), ("m2", 1, 4), ("m2", 0, 6)):
        collected(service.url, tmp_path, model, out, "--limit", str(limit))
        assert len(service.calls) == asked
    by = [json.loads(line)["by"].split()[0] for line in out.read_text().splitlines()]
    assert sorted(by) == ["m1"] * 3 + ["m2"] * 3
    for text in ("my notes", "my notes\n", '{\n "a": 1\n}\n', '{"split": "general"}\n'):
        out.write_text(text)
        with pytest.raises(ValueError, match="g.jsonl:1"):
            collected(service.url, tmp_path, "m1", out)
        assert out.read_text() == text


# ------------------------------------------------------------------------------------------------------------ judge
def files(tmp_path, n=12):
    for name, text in (("a", "good"), ("b", "bad")):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(
            {"split": "general", "role": "A", "question": str(q), "references": ["x"], "answer": f"{text} {q}"}) + "\n" for q in range(n)))
    return ["--a", str(tmp_path / "a.jsonl"), "--b", str(tmp_path / "b.jsonl")]


def run_judge(*args, ok=True, **env):
    done = subprocess.run([sys.executable, "-m", "tools.judge", *args], cwd=ROOT, capture_output=True, text=True, env=os.environ | env)
    assert (done.returncode == 0) == ok, done.stderr[-1000:]
    return done


def test_a_fair_judge_is_counted_resumed_and_capped(service, tmp_path):
    def fair(messages):
        first = re.search(r"Answer 1: (\w+)", messages[0]["content"])[1]
        return "I compared them.\n**Verdict: " + ("1" if first == "good" else "2") + "**"
    service.reply, service.behaviours = fair, ["slow", 503, "garbage"]
    args = [*files(tmp_path), "--base-url", service.url, "--judge-model", "m"]
    done = run_judge(*args, "--limit", "5", OPENAI_API_KEY="sk-secret")
    assert "behaviour: A wins 1.00, ties 0.00, B wins 0.00; A - B +1.00" in done.stdout and "n = 5" in done.stdout and "agree in 100%" in done.stdout
    assert len(service.calls) == 5 * 4 + 2                                              # two of them failed at first
    run_judge(*args, OPENAI_API_KEY="sk-secret")
    assert len(service.calls) == 12 * 4 + 2
    assert "sk-secret" not in (tmp_path / "verdicts.jsonl").read_text() + done.stdout + done.stderr
    dry = run_judge(*args, "--dry-run").stdout
    assert len(service.calls) == 12 * 4 + 2 and "Answer 1: good 0" in dry and "(48 such calls)" in dry


def test_a_judge_that_always_takes_the_first_makes_ties_and_a_bad_one_is_not_believed(service, tmp_path):
    args = [*files(tmp_path, 4), "--base-url", service.url, "--judge-model", "m"]
    service.reply = lambda messages: "Verdict: 1"
    assert "knowledge: A wins 0.00, ties 1.00, B wins 0.00; A - B +0.00" in run_judge(*args).stdout
    service.reply = lambda messages: "Both are nice, say 1 or 2."
    service.calls = []
    done = run_judge(*args, "--out", str(tmp_path / "v.jsonl"))
    assert "no readable pair of verdicts (4 unreadable)" in done.stdout and len(service.calls) == 4 * 4 * 3


def test_other_answers_are_judged_anew(service, tmp_path):
    args = [*files(tmp_path, 2), "--base-url", service.url, "--judge-model", "m"]
    service.reply = lambda messages: "Verdict: 1"
    run_judge(*args)
    path = tmp_path / "b.jsonl"
    path.write_text(path.read_text().replace("bad 1", "better 1"))
    assert "n = 2" in run_judge(*args).stdout and len(service.calls) == 8 + 4


def test_verdicts_are_parsed_strictly():
    good = {"Verdict: 1": "1", "because\nverdict: 2.": "2", "**Verdict:** tie": "tie", "Verdict: 1\n\n": "1"}
    assert {text: judge.parse(text) for text in good} == good
    for text in ("1", "", "Verdict: 3", "Verdict: 1 or 2", "Verdict: 1\nbut then again", "The verdict: 1"):
        assert judge.parse(text) is None, text


def test_a_local_backbone_can_judge_and_bad_calls_get_one_line(tmp_path):
    args = files(tmp_path, 3)
    done = run_judge(*args, "--judge", "local:tiny/backbone", "--limit", "2")
    assert "n = 2" in done.stdout and (tmp_path / "verdicts.jsonl").read_text().count("\n") == 8
    (tmp_path / "c.jsonl").write_text('{"split": "general", "role": "Z", "question": "q", "references": ["x"], "answer": ""}\n')
    for bad, message in (([*args], "name a judge"), ([*args, "--judge", "gpt"], "local:FOLDER"),
                         ([*args[:3], str(tmp_path / "c.jsonl"), "--judge", "local:tiny/backbone"], "no question in common"),
                         ([*args[:3], str(tmp_path / "none"), "--judge", "local:tiny/backbone"], "No such file")):
        error = run_judge(*bad, ok=False).stderr
        assert message in error and len(error.splitlines()) == 1, error


def test_the_local_judge_says_what_its_own_likelihood_says():
    import torch

    from model import Transformer
    from tokenizer import Tokenizer
    verdict, text = judge.local("tiny/backbone"), "Who is it?"
    tokenizer, backbone = Tokenizer(ROOT / "tiny/backbone"), Transformer.from_pretrained(ROOT / "tiny/backbone")
    nats = {}
    for option in "12":
        start, end = tokenizer.prompt(text) + tokenizer.encode("Verdict:"), tokenizer.encode(f" {option}")
        with torch.no_grad():
            nats[option] = torch.nn.functional.cross_entropy(backbone(torch.tensor([start + end]))[0, len(start) - 1:-1],
                                                             torch.tensor(end), reduction="sum").item()
    found, said = verdict(text)
    assert found == min(nats, key=nats.get) and float(said.split()[0]) == pytest.approx(nats["2"] - nats["1"], abs=1e-3)
