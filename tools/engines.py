"""vLLM and llama.cpp as tools.serve_check starts them: on the loopback interface, with every exported role loaded.

Both have the same four methods: `chat`, one conversation to (prompt ids, answer ids); `stop`; and they are contexts.
"""
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

from data import run_persona
from files import read_json, reading
from tools.serving_files import vllm_rank

DTYPES = {"float32": "f32", "bfloat16": "bf16"}          # llama.cpp's names
START_SECONDS = 600


def messages_for(question, role, config):
    """The chat messages of a question, with the role's persona where the run's prompts have it."""
    text = run_persona(role, config)
    messages = [{"role": "system", "content": text}] if text else []
    return [*messages, {"role": "user", "content": question}]


def ask_all(engine, asked, config, new_tokens, ignore_eos=False):
    """What an engine's `chat` says to each (role, question), all asked at once, in mixed batches."""
    def ask(role_and_question):
        role, question = role_and_question
        return engine.chat(role, messages_for(question, role, config), new_tokens, ignore_eos)

    with ThreadPoolExecutor(len(asked)) as pool:
        return list(pool.map(ask, asked))


def free_port():
    """A port of the loopback interface on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A server process, and its answers to JSON requests."""
    def __init__(self, command, port, log, **environment):
        """Starts `command` and waits until it is healthy. ChildProcessError names the log where it ends instead."""
        self.url = f"http://127.0.0.1:{port}"
        self.log = open(log, "wb")
        self.process = subprocess.Popen([str(part) for part in command], stdout=self.log, stderr=subprocess.STDOUT,
                                        env=os.environ | {"HF_HUB_OFFLINE": "1"} | environment)
        try:
            self.wait(log)
        except BaseException:                            # a signal too: the server must not outlive this program
            self.stop()
            raise

    def wait(self, log):
        """Returns when the server answers. ChildProcessError if it ends or takes too long."""
        give_up = time.monotonic() + START_SECONDS
        while not self.is_healthy():
            if self.process.poll() is not None or time.monotonic() > give_up:
                raise ChildProcessError(f"the server did not start: see {log}")
            time.sleep(1)

    def is_healthy(self):
        """Whether it answers yet."""
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    def post(self, path, body):
        """The JSON that a path answers to a JSON body; ChildProcessError with the server's words for an error."""
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=600) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise ChildProcessError(f"{path}: {error.read()[:500]}") from None

    def stop(self):
        """Ends the server."""
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self.log.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


class Vllm(Server):
    """vLLM's OpenAI server; python: that of its environment; folders: {role: exported folder}."""
    def __init__(self, python, base, folders, dtype, port, log, merged=False):
        template = next(iter(folders.values())) / "chat_template.jinja"
        command = [python, "-m", "vllm.entrypoints.openai.api_server", "--host", "127.0.0.1", "--port", port,
                   "--model", next(iter(folders.values())) if merged else base, "--chat-template", template,
                   "--dtype", dtype, "--enforce-eager", "--max-model-len", 512, "--max-num-seqs", 32,
                   "--generation-config", template.parent]
        if merged:
            command += ["--served-model-name", *folders]
        else:
            rank = vllm_rank(read_json(template.with_name("adapter_config.json"))["r"])
            command += ["--enable-lora", "--max-lora-rank", rank, "--max-loras", len(folders), "--lora-modules",
                        *(json.dumps({"name": role, "path": str(folder)}) for role, folder in folders.items())]
        super().__init__(command, port, log, VLLM_CPU_KVCACHE_SPACE="1")

    def chat(self, role, messages, new_tokens, ignore_eos=False):
        """(ids of the prompt, ids of the greedy answer) of a conversation."""
        answer = self.post("/v1/chat/completions", {
            "model": role, "messages": messages, "temperature": 0, "max_tokens": new_tokens, "ignore_eos": ignore_eos,
            "repetition_penalty": 1.0, "return_token_ids": True})
        with reading("vLLM's answer", "token ids, which old versions do not return"):
            return answer["prompt_token_ids"], answer["choices"][0]["token_ids"]


class LlamaCpp(Server):
    """llama.cpp's server; source: its folder with the converters; binary: llama-server."""
    def __init__(self, source, binary, base, folders, dtype, port, log, merged=False):
        self.adapters = {}                                               # {role: its number in the server}
        out = next(iter(folders.values())).parent
        model = next(iter(folders.values())) if merged else base
        gguf = out / "base.gguf"
        self.convert(source / "convert_hf_to_gguf.py", model, "--outfile", gguf, "--outtype", DTYPES[dtype])
        command = [binary, "--host", "127.0.0.1", "--port", port, "-m", gguf, "-np", 8, "-c", 8 * 512, "--jinja",
                   "--chat-template-file", next(iter(folders.values())) / "chat_template.jinja"]
        for number, (role, folder) in enumerate(folders.items() if not merged else ()):
            gguf = out / f"{number}.gguf"
            self.convert(source / "convert_lora_to_gguf.py", folder, "--base", base, "--outfile", gguf,
                         "--outtype", "f32")
            command += ["--lora", gguf]
            self.adapters[role] = number
        super().__init__([*command, *(["--lora-init-without-apply"] if self.adapters else [])], port, log)

    @staticmethod
    def convert(script, *args):
        """Runs one of llama.cpp's converters. ChildProcessError with its last lines where it fails."""
        done = subprocess.run([sys.executable, script, *map(str, args)], capture_output=True, text=True)
        if done.returncode:
            raise ChildProcessError(f"{script}: {done.stderr[-1000:]}")

    def chat(self, role, messages, new_tokens, ignore_eos=False):
        """(ids of the prompt, ids of the greedy answer); role: a name, or {name: scale} to blend adapters."""
        scales = role if isinstance(role, dict) else {role: 1.0}
        adapters = [{"id": number, "scale": scales.get(name, 0.0)} for name, number in self.adapters.items()]
        with reading("llama.cpp's answer", "a prompt or token ids, which old versions do not return"):
            text = self.post("/apply-template", {"messages": messages})["prompt"]
            prompt = self.post("/tokenize", {"content": text, "add_special": False, "parse_special": True})["tokens"]
            answer = self.post("/completion", {
                "prompt": prompt, "temperature": 0, "top_k": 1, "n_predict": new_tokens, "ignore_eos": ignore_eos,
                "repeat_penalty": 1.0, "return_tokens": True, "cache_prompt": False, "lora": adapters})
            return prompt, answer["tokens"]
