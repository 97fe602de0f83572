"""tools.serve_check against engines made of this code and of a stub: what it says of answers that are the same, and that are not.

vLLM and llama.cpp themselves are too large for a test; docs/serving.md has what they answered.
"""
import json
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

import train
from checkpoint import load_run
from generate import Decoding, generate
from tools import engines, peft_adapter, serve_check, serve_speed


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    run = tmp_path_factory.mktemp("run") / "run"
    train.run_training(["--language", "zh", "--max-steps", "3", "--score-limit", "0", "--rank", "2", "--out", str(run)])
    return load_run(run, "cpu")


class Ours:
    """An engine that is this code, or, wrong, has another prompt and another first token."""
    def __init__(self, loaded, wrong=False):
        self.model, self.tokenizer, self.config = loaded
        self.wrong = wrong
        self.lock = threading.Lock()                                     # one model has one set of active roles

    def chat(self, role, messages, new_tokens, ignore_eos=False):
        prompt = self.tokenizer.prompt(messages[-1]["content"])
        with self.lock:
            (ids,) = generate(self.model, [prompt], [self.config["roles"][role]], self.tokenizer.stop_ids, Decoding(new_tokens))
        if self.wrong:
            prompt = prompt[1:]
            ids = [9 if ids[:1] != [9] else 8, *ids[1:]]
        return prompt, [*ids, self.tokenizer.stop_id]


class Mixing:
    """An engine that mixes adapters by the scales asked for."""
    def __init__(self, loaded):
        self.model, self.tokenizer, self.config = loaded

    def chat(self, scales, messages, new_tokens):
        weights = [0.0] * len(self.config["roles"])
        for role, scale in scales.items():
            weights[self.config["roles"][role]] = scale
        prompt = self.tokenizer.prompt(messages[-1]["content"])
        return prompt, generate(self.model, [prompt], [weights], self.tokenizer.stop_ids, Decoding(new_tokens))[0]


@pytest.mark.parametrize("wrong", [False, True])
def test_equal_and_different_answers_are_told_apart(loaded, capsys, wrong):
    serve_check.compare_answers(Ours(loaded, wrong), *loaded, list(loaded[2]["roles"]), 6, merged=False)
    out = capsys.readouterr().out
    assert ("DIFFERENT" in out) == ("apart" in out.replace("they part", "")) == wrong
    counts = re.findall(r"(\d+) of (\d+)", out)
    assert len(counts) == 9 and all(same == all_ids for same, all_ids in counts) != wrong


def test_a_blend_by_scales_is_b_times_the_mean_of_both_a(loaded, capsys):
    """The weights are set by hand and taken back: afterwards the roles answer as before."""
    model, tokenizer, config = loaded
    prompt = tokenizer.prompt("你是谁？")
    before = generate(model, [prompt], [1], tokenizer.stop_ids, Decoding(6))
    serve_check.compare_blend(Mixing(loaded), model, tokenizer, config, list(config["roles"]), 6)
    assert "ids are equal" in capsys.readouterr().out
    assert generate(model, [prompt], [1], tokenizer.stop_ids, Decoding(6)) == before
    assert all(linear.lora_weights is None for linear in peft_adapter.adapted(model).values())


def test_speeds_stand_side_by_side(loaded, capsys, monkeypatch):
    monkeypatch.setattr(serve_speed, "BATCHES", (1, 2))
    serve_speed.compare_speed(Ours(loaded), *loaded, list(loaded[2]["roles"]), 3)
    title, *lines = capsys.readouterr().out.splitlines()
    assert "Ours, this code" in title
    assert [line[:19].split() for line in lines] == [["batch", "1", "one", "role"], ["batch", "2", "one", "role"], ["batch", "2", "mixed"]]
    assert all(float(rate) > 0 for line in lines for rate in line.split()[-2:])


def test_vllm_is_given_the_rank_of_the_adapters(tmp_path, monkeypatch):
    """Neeko puts the blocks of all roles side by side: rank 2 of five roles is 10, and 16 is the next that vLLM takes."""
    started = []
    monkeypatch.setattr(engines.Server, "__init__", lambda self, command, *_, **__: started.extend(command))
    (tmp_path / "adapter_config.json").write_text('{"r": 10}')
    engines.Vllm("python", "base", {"Grum": tmp_path}, "float32", 9, tmp_path / "log")
    assert started[started.index("--max-lora-rank") + 1] == 16


class Handler(BaseHTTPRequestHandler):
    """llama.cpp's and vLLM's answers, as far as they are asked for."""
    def do_GET(self):
        self.answer({})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, body))
        self.answer({"/apply-template": {"prompt": "text"}, "/tokenize": {"tokens": [1, 2]}, "/completion": {"tokens": [3, 4]},
                     "/v1/chat/completions": {"prompt_token_ids": [1, 2], "choices": [{"token_ids": [3, 4]}]}}.get(self.path))

    def answer(self, value):
        self.send_response(200 if value is not None else 404)
        self.end_headers()
        self.wfile.write(json.dumps(value).encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def service():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.asked = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


def at(service, kind, log, **fields):
    """An engine whose server is `service`, beside a process that only waits."""
    engine = kind.__new__(kind)
    engine.__dict__ |= fields
    engines.Server.__init__(engine, [sys.executable, "-c", "input()"], service.server_port, log)
    return engine


def test_what_the_engines_are_asked(service, tmp_path):
    messages = [{"role": "user", "content": "Who?"}]
    with at(service, engines.Vllm, tmp_path / "log") as vllm:
        assert vllm.chat("Grum", messages, 5) == ([1, 2], [3, 4])
        with pytest.raises(OSError, match="/nowhere"):
            vllm.post("/nowhere", {})
    with at(service, engines.LlamaCpp, tmp_path / "log", adapters={"Grum": 0, "Pell": 1}) as llama:
        assert llama.chat({"Pell": 0.5}, messages, 5) == ([1, 2], [3, 4])
    (_, body), *_ = [asked for asked in service.asked if asked[0] == "/v1/chat/completions"]
    assert (body["model"], body["messages"], body["temperature"], body["max_tokens"]) == ("Grum", messages, 0, 5)
    assert service.asked[-1][1]["lora"] == [{"id": 0, "scale": 0.0}, {"id": 1, "scale": 0.5}]


def test_a_server_that_ends_at_once_is_one_line(tmp_path):
    with pytest.raises(OSError, match="did not start: see"):
        engines.Server([sys.executable, "-c", "print('no')"], 9, tmp_path / "log")
