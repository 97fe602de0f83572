"""A run's roles in vLLM or llama.cpp beside the run itself: are the answers the same, and how fast are they?

    python -m tools.serve_check --run RUN --vllm VENV/bin/python [--dtype bfloat16] [--merge] [--speed]
    python -m tools.serve_check --run RUN --llama LLAMA_CPP_SOURCE --llama-server PATH [--dtype bfloat16] [--speed]

Every role is exported to a temporary folder and served on the loopback interface. All roles get the same questions at
once, as chat messages, and answer greedily. Compared are the ids of the prompts, which have to be equal, and those of
the answers; where they part, the two tokens and how far apart their logits are for us: in fp32 that is a tie.
"""
from console import one_line_errors, printable, render_table

import argparse
import signal
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from checkpoint import load_run
from data import persona
from files import fetch_model
from generate import Decoding, generate
from tools import engines
from tools.export import adapted, adapter_rank, role_lora_weights, write_adapter, write_model
from tools.serving_files import folder_names, write_serving_files

QUESTIONS = ("Who are you?", "What is the capital of France?", "Tell me a secret.", "What do you do when it rains?")
BATCHES = (1, 8, 32)


def export_all(model, tokenizer, config, folder, merge):
    """{role: folder} of exported adapters; merge: only the first role's, merged into the backbone, last of all."""
    places = {}
    for role, name in folder_names(config["roles"]).items():
        places[role] = folder / name
        number = config["roles"][role]
        rank = None if merge else adapter_rank(model, number)
        (write_model if merge else write_adapter)(model, number, config["model"], places[role])
        write_serving_files(places[role], role, tokenizer, config, rank)
        if merge:
            break
    return places


def messages_for(question, role, config):
    """The chat messages of a question, with the role's persona where the run's prompts have it."""
    text = persona(role, config)
    return [{"role": "system", "content": text}] * bool(text) + [{"role": "user", "content": question}]


def equal_ids(ours, theirs):
    """How many ids two answers have in common, from the first on."""
    pairs = zip(ours, theirs)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(ours), len(theirs)))


def compare_answers(engine, model, tokenizer, config, roles, new_tokens, merged):
    """Prints role by role how far the engine's greedy answers are ours; all are asked at once, in mixed batches."""
    asked = [(role, question) for question in QUESTIONS for role in roles]
    prompts = [tokenizer.prompt(question, persona(role, config)) for role, question in asked]
    numbers = None if merged else [config["roles"][role] for role, _ in asked]
    ours = generate(model, prompts, numbers, tokenizer.stop_ids, Decoding(new_tokens))
    with ThreadPoolExecutor(len(asked)) as pool:
        theirs = list(pool.map(lambda a: engine.chat(a[0], messages_for(a[1], a[0], config), new_tokens), asked))

    rows = [["role", "question", "prompt", "equal ids", "where they part", "their answer"]]
    total = 0
    for i, ((role, question), mine, (their_prompt, answer)) in enumerate(zip(asked, ours, theirs)):
        answer = [token for token in answer if token not in tokenizer.stop_ids]
        same = equal_ids(mine, answer)
        total += same
        parting = "-"
        if mine != answer:
            a, b = ([*ids, tokenizer.stop_id][same] for ids in (mine, answer))
            logits = next_logits(model, [*prompts[i], *mine[:same]], numbers and numbers[i])
            parting = f"logits {abs(logits[a] - logits[b]):.2g} apart"
        rows.append([role, question, "equal" if their_prompt == prompts[i] else "DIFFERENT", f"{same} of {len(mine)}",
                     parting, printable(tokenizer.decode(answer))[:60]])
    print(render_table(rows))
    print(f"{total} of {sum(map(len, ours))} ids are equal up to where each answer parts\n")


@torch.inference_mode()
def next_logits(model, ids, role):
    """Logits (V,) of the token after `ids`, as a role; None: of the backbone itself, which may be a merged one."""
    ids = torch.tensor([ids])
    logits = model.backbone(ids) if role is None else model(ids, torch.tensor([role]))
    return logits[0, -1].float()


def compare_blend(engine, model, tokenizer, config, roles, new_tokens):
    """Prints whether two adapters at half scale answer as B (A1 + A2) / 2 does, which is exact since B is shared."""
    first, second = roles[:2]
    prompt = tokenizer.prompt(QUESTIONS[0], persona(first, config))
    of_first, of_second = (role_lora_weights(model, config["roles"][role]) for role in (first, second))
    try:
        for name, linear in adapted(model).items():
            (A_1, B), (A_2, _) = of_first[name], of_second[name]
            linear.lora_weights = [(A_1 + A_2) / 2, B]
        (ours,) = generate(model, [prompt], None, tokenizer.stop_ids, Decoding(new_tokens))
    finally:
        for linear in adapted(model).values():
            linear.lora_weights = None
    scales = {first: 0.5, second: 0.5}
    _, theirs = engine.chat(scales, messages_for(QUESTIONS[0], first, config), new_tokens)
    print(f"{first} + {second} by scales: {equal_ids(ours, theirs)} of {len(ours)} ids are equal: "
          f"{printable(tokenizer.decode(theirs))}\n")


def tokens_per_second(ask, roles, batch, new_tokens):
    """Tokens per second of `batch` answers of `new_tokens` each; ask(list of roles) makes them at once."""
    names = [roles[i % len(roles)] for i in range(batch)]
    ask(names)                                                           # once for nothing: caches, threads
    start = time.perf_counter()
    ask(names)
    return batch * new_tokens / (time.perf_counter() - start)


def compare_speed(engine, model, tokenizer, config, roles, new_tokens):
    """Prints tokens per second of the engine and of ours, for one role and for mixed ones."""
    def ask_engine(names):
        with ThreadPoolExecutor(len(names)) as pool:
            list(pool.map(lambda role: engine.chat(role, messages_for(QUESTIONS[3], role, config), new_tokens, True),
                          names))

    def ask_ours(names):
        prompts = [tokenizer.prompt(QUESTIONS[3], persona(role, config)) for role in names]
        generate(model, prompts, [config["roles"][role] for role in names], set(), Decoding(new_tokens))

    rows = [["tokens/s", *(f"batch {batch}, {kind}" for batch in BATCHES for kind in ("one role", "mixed"))]]
    for title, ask in ((type(engine).__name__, ask_engine), ("this code", ask_ours)):
        rates = [tokens_per_second(ask, some, batch, new_tokens) for batch in BATCHES for some in (roles[:1], roles)]
        rows.append([title, *(f"{rate:.0f}" for rate in rates)])
    print(render_table(rows))


def main():
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("--run", required=True)
    parser.add_argument("--vllm", metavar="PYTHON", help="the python of an environment that has vLLM")
    parser.add_argument("--llama", metavar="FOLDER", type=Path, help="llama.cpp's source, for its converters")
    parser.add_argument("--llama-server", metavar="PATH", help="llama.cpp's server, built")
    parser.add_argument("--dtype", choices=engines.DTYPES, default="float32")
    parser.add_argument("--merge", action="store_true", help="the first role alone, merged into the backbone")
    parser.add_argument("--speed", action="store_true", help="measure tokens per second too")
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--port", type=int, default=8123)
    args = parser.parse_args()
    with one_line_errors("tools.serve_check"), tempfile.TemporaryDirectory() as folder:
        if bool(args.vllm) == bool(args.llama and args.llama_server):
            raise ValueError("either --vllm, or --llama and --llama-server, says what to check")
        model, tokenizer, config = load_run(args.run, "cpu")
        for p in model.backbone.parameters():
            if not p.requires_grad:
                p.data = p.data.to(getattr(torch, args.dtype))
        folders = export_all(model, tokenizer, config, Path(folder), args.merge)
        base, log = fetch_model(config["model"]), Path(args.run) / "serve_check.log"
        rest = (base, folders, args.dtype, args.port, log, args.merge)
        if args.vllm:
            engine = engines.Vllm(args.vllm, *rest)
        else:
            engine = engines.LlamaCpp(args.llama, args.llama_server, *rest)
        roles = list(folders)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))            # so that the server ends with this program
        with engine:
            print(f"{type(engine).__name__}, {args.dtype}, {args.run}{', merged' if args.merge else ''}")
            compare_answers(engine, model, tokenizer, config, roles, args.new_tokens, args.merge)
            if args.llama and not args.merge and len(roles) > 1:
                compare_blend(engine, model, tokenizer, config, roles, args.new_tokens)
            if args.speed:
                compare_speed(engine, model, tokenizer, config, roles, args.new_tokens)


if __name__ == "__main__":
    main()
