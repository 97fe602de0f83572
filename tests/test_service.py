"""Services behind a real local HTTP server that answers well, badly, slowly, with errors: tools.collect, tools.judge."""
import json
import os
import re
import signal
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from conftest import ROOT, command, write_rolebench

import eval as evaluation
from files import locked, write_jsonl
from tools import collect, judges, resumable
from tools import service as services
from tools.service import MOST_BYTES, chat_completion, check_endpoint, read_key


class Service:
    """An OpenAI-compatible server. `behaviours` are used up one a call: an HTTP status, a URL to redirect to, bytes to answer with, "slow",
    "drip" (a byte now and then, for ever), "endless" (as fast as it can), "garbage", or "ok"."""
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
                redirect = isinstance(behaviour, str) and behaviour.startswith("http")
                status = behaviour if isinstance(behaviour, int) else 302 if redirect else 200
                text = behaviour if isinstance(behaviour, bytes) else b"<html>" if behaviour == "garbage" else completion(service.reply(body["messages"]))
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                if redirect:
                    self.send_header("Location", behaviour)
                self.end_headers()
                try:
                    while behaviour in ("drip", "endless"):
                        self.wfile.write(b" " if behaviour == "drip" else b" " * 2 ** 20)
                        time.sleep(0.02 if behaviour == "drip" else 0)
                    self.wfile.write(text)
                except OSError:
                    pass                                                 # whoever asked has hung up

            do_GET = do_POST                                             # what a redirect would become

            def log_message(self, *_):
                pass
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"


def completion(text):
    return json.dumps({"id": "1", "model": "m", "choices": [{"index": 0, "message": {"role": "assistant", "content": text}}]}).encode()


@pytest.fixture
def service(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    s = Service()
    yield s
    s.server.shutdown()
    s.server.server_close()


MESSAGES = [{"role": "user", "content": "Who?"}]


def test_failures_that_may_pass_are_tried_again_and_others_are_not(service, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    service.behaviours = [503, 429, "garbage", "slow"]
    assert chat_completion(service.url, "m", MESSAGES, pauses=(0, 0, 0), max_tokens=7) == "ok"
    assert len(service.calls) == 4
    path, key, body = service.calls[-1]
    assert (path, key, body["model"], body["max_tokens"], body["messages"]) == ("/v1/chat/completions", "Bearer sk-secret", "m", 7, MESSAGES)
    for status, calls in ((401, 1), (500, 3)):
        service.calls, service.behaviours = [], [status] * 9
        with pytest.raises(ValueError, match="does not answer") as error:
            chat_completion(service.url, "m", MESSAGES, pauses=(0, 0))
        assert len(service.calls) == calls and "\n" not in str(error.value) and "sk-secret" not in str(error.value)
    with pytest.raises(ValueError, match="does not answer"):
        chat_completion("http://127.0.0.1:9/v1", "m", MESSAGES, pauses=(0,))


def ask(service, **options):
    return chat_completion(service.url, "m", MESSAGES, **{"pauses": (), "seconds": 5} | options)


# -------------------------------------------------------------------------------------------------------- the key
@pytest.mark.parametrize("key", ["", None, "  \n"])
def test_without_a_key_of_its_own_nothing_is_sent_and_never_the_hubs_token(service, monkeypatch, tmp_path, key):
    """With OPENAI_API_KEY empty the hub's token went to any endpoint, as its bearer."""
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    (tmp_path / "token").write_text("hf_secret")
    if key is not None:
        monkeypatch.setenv("OPENAI_API_KEY", key)
    assert ask(service) == "ok" and service.calls[0][1] is None


def test_a_key_that_ends_in_a_newline_is_sent_without_it(service, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", " sk-secret\n")
    assert ask(service) == "ok" and service.calls[0][1] == "Bearer sk-secret"


@pytest.mark.parametrize("key", ["sk-se cret", "sk-se\ncret", "sk-\u2028x", "sk-\x07"])
def test_what_cannot_be_a_key_is_refused_at_once_and_never_shown(service, monkeypatch, key):
    """It was printed in the message about an illegal header, after 82 seconds."""
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(ValueError, match="OPENAI_API_KEY holds characters") as error:
        ask(service, pauses=(60,))
    assert "sk-" not in str(error.value) and not service.calls


def test_the_key_is_shown_in_no_error(service, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setattr(services, "post", lambda *_: (_ for _ in ()).throw(OSError("bad header b'Bearer sk-secret'")))
    with pytest.raises(ValueError, match="Bearer \\*\\*\\*"):
        ask(service)


@pytest.mark.parametrize("status", ["to another host", 307])
def test_a_redirect_is_not_followed_and_carries_no_key(service, monkeypatch, status):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    other = Service()
    service.behaviours = [other.url if status == "to another host" else status] * 2
    with pytest.raises(ValueError, match="does not answer: HTTP Error 30"):
        ask(service, pauses=(0,))
    assert not other.calls and len(service.calls) == 1
    other.server.shutdown()
    other.server.server_close()


@pytest.mark.parametrize("url", ["http://me:pass@h/v1", "http://me@h/v1", "https://h/v1?key=sk-secret", "https://h/v1#sk-secret"])
def test_a_secret_in_the_endpoint_is_refused_before_it_is_stored(url):
    """It stood in every line's "by"."""
    with pytest.raises(ValueError, match="put the key in OPENAI_API_KEY") as error:
        check_endpoint(url)
    assert "secret" not in str(error.value) and "pass@" not in str(error.value)


@pytest.mark.parametrize("url", ["", "h/v1", "ftp://h", "http://", "http://h\n/v1", "http://h h/", "file:///etc/passwd", "https://\u0430"])
def test_what_is_no_url_is_refused(url):
    with pytest.raises(ValueError):
        check_endpoint(url)
    assert check_endpoint("https://h:8000/v1/") == "https://h:8000/v1" and read_key() is not None


# ----------------------------------------------------------------------------------------------- limits of an answer
@pytest.mark.parametrize("behaviour, words", [("drip", "no whole answer within 0.3 seconds"), ("slow", "no whole answer|timed out"), ("endless", "more than 4 MiB")])
def test_an_answer_has_a_limit_of_time_and_size(service, behaviour, words):
    """A byte a second was waited for for ever."""
    service.behaviours = [behaviour]
    started = time.monotonic()
    with pytest.raises(ValueError, match=words):
        ask(service, seconds=0.3 if behaviour != "endless" else 20)
    assert time.monotonic() - started < 60 and MOST_BYTES == 2 ** 22


@pytest.mark.parametrize("text", [b"", b"[]", b"null", b"{}", b'{"choices": []}', b'{"choices": null}', b'{"choices": [{"message": null}]}', b'{"choices": {"a": 1}}',
                                  b'{"choices": [{"message": {"content": [1]}}]}', b"[" * 100_000, b"\xff\xfe", b'{"choices": [{"message": {"content": NaN}}]}'])
def test_an_answer_that_is_none_is_one_line(service, text):
    service.behaviours = [text]
    with pytest.raises(ValueError, match="does not answer: ") as error:
        ask(service)
    assert "\n" not in str(error.value)


def test_half_a_character_in_an_answer_stops_no_collection(service):
    """It could not be written, so the collection failed at that line for ever."""
    service.behaviours = [b'{"choices": [{"message": {"content": "a \\ud83d b"}}]}', completion(None)]
    assert ask(service) == "a ? b" and ask(service) == ""


def collected(url, data, model, out, *more):
    collect.collect(collect.parse_args(["--endpoint", url, "--model", model, "--data", str(data), "--out", str(out), *more]))


def scores_of(path, *more):
    out = path.with_suffix(".json")
    evaluation.score(evaluation.parse_args(["--predictions", str(path), "--out", str(out), *more]))
    return json.loads(out.read_text())


def test_a_question_in_two_conversations_is_two_questions(service, tmp_path):
    """The second was taken for answered."""
    line = {"role": "A", "question": "And then?", "test": True}
    write_jsonl(tmp_path / "mine.jsonl", [line | {"answer": "x", "history": [["Who?", "Me."]]}, line | {"answer": "y", "history": []},
                                          {"role": "A", "question": "Who?", "answer": "z"}])
    out = tmp_path / "gpt.jsonl"
    for _ in range(2):
        collected(service.url, tmp_path / "mine.jsonl", "m", out)
        assert len(service.calls) == 2 and sorted(len(call[2]["messages"]) for call in service.calls) == [2, 4]
    assert scores_of(out)["splits"]["own"]["overall"]["n"] == 2


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


def test_answers_that_are_on_their_way_when_one_fails_are_kept(service, tmp_path):
    """One 403 among eight requests, and the other seven answers were lost."""
    write_rolebench(tmp_path, [("A", f"What is {n}?", ["x"]) for n in range(8)], part="test")
    out = tmp_path / "g.jsonl"

    def reply(messages):
        time.sleep(0.2)
        return "ok"
    service.reply, service.behaviours = reply, [403] + ["ok"] * 7
    with pytest.raises(ValueError, match="403"):
        collected(service.url, tmp_path, "m", out)
    assert out.read_text().count("\n") == 7


def test_a_line_cut_off_inside_of_a_character_is_asked_again_and_two_collections_do_not_mix(service, tmp_path):
    write_rolebench(tmp_path, [("A", f"What is {n}?", ["x"]) for n in range(3)], part="test")
    service.reply, out = lambda messages: "俺老孙", tmp_path / "g.jsonl"
    collected(service.url, tmp_path, "m", out)
    whole = out.read_bytes()
    out.write_bytes(whole[:whole.rindex("孙".encode()) + 1])
    with locked(out), pytest.raises(ValueError, match="in use by another process"):
        collected(service.url, tmp_path, "m", out)
    collected(service.url, tmp_path, "m", out)
    assert len(service.calls) == 4 and sorted(out.read_bytes().splitlines()) == sorted(whole.splitlines())


def test_an_interrupt_waits_for_no_answer():
    """It took up to 80 seconds, since the threads that asked were waited for."""
    def work(item):
        if item == 0:
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(30)
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        list(resumable.map_in_threads(work, range(8), 8, "asking"))
    assert time.monotonic() - started < 25


# ------------------------------------------------------------------------------------------------------------ judge
def files(tmp_path, n=12):
    for name, text in (("a", "good"), ("b", "bad")):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(
            {"split": "general", "role": "A", "question": str(q), "references": ["x"], "answer": f"{text} {q}"}) + "\n" for q in range(n)))
    return ["--a", str(tmp_path / "a.jsonl"), "--b", str(tmp_path / "b.jsonl")]


def run_judge(*args, ok=True, **env):
    with pytest.MonkeyPatch.context() as patch:
        for name, value in env.items():
            patch.setenv(name, value)
        return command("tools.judge", *args, ok=ok)


def test_a_fair_judge_is_counted_resumed_and_capped(service, tmp_path):
    def fair(messages):
        first = re.search(r"Answer 1: (\w+)", messages[0]["content"])[1]
        return "I compared them.\n**Verdict: " + ("1" if first == "good" else "2") + "**"
    service.reply, service.behaviours = fair, ["slow", 503, "garbage"]
    args = [*files(tmp_path), "--endpoint", service.url, "--model", "m"]
    done = run_judge(*args, "--limit", "5", OPENAI_API_KEY="sk-secret")
    assert "behaviour: A wins 1.00, ties 0.00, B wins 0.00; A - B +1.00" in done.stdout and "n = 5" in done.stdout and "agree in 100%" in done.stdout
    assert len(service.calls) == 5 * 4 + 2                                              # two of them failed at first
    run_judge(*args, OPENAI_API_KEY="sk-secret")
    assert len(service.calls) == 12 * 4 + 2
    assert "sk-secret" not in (tmp_path / "verdicts.jsonl").read_text() + done.stdout + done.stderr
    dry = run_judge(*args, "--dry-run").stdout
    assert len(service.calls) == 12 * 4 + 2 and "Answer 1: good 0" in dry and "(48 such calls)" in dry


def test_a_judge_that_always_takes_the_first_makes_ties_and_a_bad_one_is_not_believed(service, tmp_path):
    args = [*files(tmp_path, 4), "--endpoint", service.url, "--model", "m"]
    service.reply = lambda messages: "Verdict: 1"
    assert "knowledge: A wins 0.00, ties 1.00, B wins 0.00; A - B +0.00" in run_judge(*args).stdout
    service.reply = lambda messages: "Both are nice, say 1 or 2."
    service.calls = []
    done = run_judge(*args, "--out", str(tmp_path / "v.jsonl"))
    assert "no readable pair of verdicts (4 unreadable)" in done.stdout and len(service.calls) == 4 * 4 * 3


def test_other_answers_are_judged_anew(service, tmp_path):
    args = [*files(tmp_path, 2), "--endpoint", service.url, "--model", "m"]
    service.reply = lambda messages: "Verdict: 1"
    run_judge(*args)
    path = tmp_path / "b.jsonl"
    path.write_text(path.read_text().replace("bad 1", "better 1"))
    assert "n = 2" in run_judge(*args).stdout and len(service.calls) == 8 + 4


@pytest.mark.parametrize("broken", ['"x": "a"', '"verdict": "c"', '"verdict": []'])
def test_a_collected_verdict_that_is_none_is_one_line(service, tmp_path, broken):
    """A line without its "verdict" was a traceback, after all other calls were paid."""
    args = [*files(tmp_path, 2), "--endpoint", service.url, "--model", "m"]
    service.reply = lambda messages: "Verdict: 1"
    run_judge(*args)
    path = tmp_path / "verdicts.jsonl"
    path.write_text(re.sub('"verdict": "[ab]"', broken, path.read_text(), count=1))
    done = run_judge(*args, ok=False)
    assert 'a "verdict" is none of a, b, tie and null' in done.stderr and len(service.calls) == 8


def test_verdicts_are_parsed_strictly():
    good = {"Verdict: 1": "1", "because\nverdict: 2.": "2", "**Verdict:** tie": "tie", "Verdict: 1\n\n": "1"}
    assert {text: judges.parse(text) for text in good} == good
    for text in ("1", "", "Verdict: 3", "Verdict: 1 or 2", "Verdict: 1\nbut then again", "The verdict: 1"):
        assert judges.parse(text) is None, text


def test_a_local_backbone_can_judge_and_bad_calls_get_one_line(tmp_path):
    args = files(tmp_path, 3)
    done = run_judge(*args, "--local", "tiny/backbone", "--limit", "2")
    assert "n = 2" in done.stdout and (tmp_path / "verdicts.jsonl").read_text().count("\n") == 8
    (tmp_path / "c.jsonl").write_text('{"split": "general", "role": "Z", "question": "q", "references": ["x"], "answer": ""}\n')
    for bad, message in (([*args], "name a judge"), ([*args, "--model", "gpt"], "name a judge"),
                         ([*args, "--local", "tiny/backbone", "--model", "gpt"], "a judge already"),
                         ([*args[:3], str(tmp_path / "c.jsonl"), "--local", "tiny/backbone"], "no question in common"),
                         ([*args[:3], str(tmp_path / "none"), "--local", "tiny/backbone"], "No such file")):
        error = run_judge(*bad, ok=False).stderr
        assert message in error and len(error.splitlines()) == 1, error


def test_the_local_judge_says_what_its_own_likelihood_says():
    import torch

    from model import Transformer
    from tokenizer import Tokenizer
    verdict, text = judges.local("tiny/backbone"), "Who is it?"
    tokenizer, backbone = Tokenizer(ROOT / "tiny/backbone"), Transformer.from_pretrained(ROOT / "tiny/backbone")
    nats = {}
    for option in "12":
        start, end = tokenizer.prompt(text) + tokenizer.encode("Verdict:"), tokenizer.encode(f" {option}")
        with torch.no_grad():
            nats[option] = torch.nn.functional.cross_entropy(backbone(torch.tensor([start + end]))[0, len(start) - 1:-1],
                                                             torch.tensor(end), reduction="sum").item()
    found, reply = verdict(text)
    assert found == min(nats, key=nats.get) and float(reply.split()[0]) == pytest.approx(nats["2"] - nats["1"], abs=1e-3)
