"""A run's roles in vLLM or llama.cpp beside the run itself: are the answers the same, and how fast are they?

    python -m tools.serve_check --run RUN --vllm VENV/bin/python [--dtype bfloat16] [--merge] [--speed]
    python -m tools.serve_check --run RUN --llama LLAMA_CPP_SOURCE --llama-server PATH [--dtype bfloat16] [--speed]

Every role is exported to a temporary folder and served on the loopback interface. All roles get the same questions at
once, as chat messages, and answer greedily. Compared are the ids of the prompts, which have to be equal, and those of
the answers; where they part, how far apart the logits of the two tokens are for us: in fp32 that is a tie.
"""
from console import Parser, one_line_errors, printable, render_table

import signal
import sys
import tempfile
from pathlib import Path

import torch

from checkpoint import load_run
from data import run_persona
from files import fetch_model
from generate import Decoding, generate
from tools import engines
from tools.export import export_role
from tools.peft_adapter import lora_weights, role_lora_weights
from tools.serve_speed import compare_speed
from tools.serving_files import folder_names

QUESTIONS = ("Who are you?", "What is the capital of France?", "Tell me a secret.", "What do you do when it rains?")


def equal_ids(ours, theirs):
    """How many ids two answers have in common, from the first on."""
    same = 0
    while same < min(len(ours), len(theirs)) and ours[same] == theirs[same]:
        same += 1
    return same


def compare_answers(engine, model, tokenizer, config, roles, new_tokens, merged):
    """Prints role by role how far the engine's greedy answers are ours; all are asked at once, in mixed batches."""
    asked = [(role, question) for question in QUESTIONS for role in roles]
    prompts = [tokenizer.prompt(question, run_persona(role, config)) for role, question in asked]
    numbers = [None if merged else config["roles"][role] for role, _ in asked]

    theirs = engines.ask_all(engine, asked, config, new_tokens)
    ours = generate(model, prompts, None if merged else numbers, tokenizer.stop_ids, Decoding(new_tokens))

    rows = [["role", "question", "prompt", "equal ids", "where they part", "their answer"]]
    total = 0
    for (role, question), prompt, number, mine, (their_prompt, answer) in zip(asked, prompts, numbers, ours, theirs):
        answer = [token for token in answer if token not in tokenizer.stop_ids]
        same = equal_ids(mine, answer)
        total += same

        # how near the two next tokens are for us, where the answers part
        parting = "-"
        if mine != answer:
            logits = next_logits(model, prompt + mine[:same], number)
            my_next, their_next = ([*ids, tokenizer.stop_id][same] for ids in (mine, answer))
            parting = f"logits {abs(logits[my_next] - logits[their_next]):.2g} apart"

        prompts_are = "equal" if their_prompt == prompt else "DIFFERENT"
        text = printable(tokenizer.decode(answer))[:60]
        rows.append([role, question, prompts_are, f"{same} of {len(mine)}", parting, text])
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
    prompt = tokenizer.prompt(QUESTIONS[0], run_persona(first, config))
    of_first, of_second = (role_lora_weights(model, config["roles"][role]) for role in (first, second))
    halves = {}
    for name, (A_1, B) in of_first.items():
        A_2, _ = of_second[name]
        halves[name] = (A_1 + A_2) / 2, B
    with lora_weights(model, halves):
        (ours,) = generate(model, [prompt], None, tokenizer.stop_ids, Decoding(new_tokens))

    scales = {first: 0.5, second: 0.5}
    _, theirs = engine.chat(scales, engines.messages_for(QUESTIONS[0], first, config), new_tokens)
    print(f"{first} + {second} by scales: {equal_ids(ours, theirs)} of {len(ours)} ids are equal: "
          f"{printable(tokenizer.decode(theirs))}\n")


@one_line_errors("tools.serve_check")
def main():
    """The command."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--run", required=True)
    parser.add_argument("--vllm", metavar="PYTHON", help="the python of an environment that has vLLM")
    parser.add_argument("--llama", metavar="FOLDER", type=Path, help="llama.cpp's source, for its converters")
    parser.add_argument("--llama-server", metavar="PATH", help="llama.cpp's server, built")
    parser.add_argument("--dtype", choices=engines.DTYPES, default="float32")
    parser.add_argument("--merge", action="store_true", help="the first role alone, merged into the backbone")
    parser.add_argument("--speed", action="store_true", help="measure tokens per second too")
    parser.add_argument("--new-tokens", type=int, default=32)
    args = parser.parse_args()
    if bool(args.vllm) == bool(args.llama and args.llama_server):
        raise ValueError("either --vllm, or --llama and --llama-server, says what to check")
    Decoding(args.new_tokens).validate()

    # the frozen weights in the dtype that the engine is going to use
    model, tokenizer, config = load_run(args.run, "cpu")
    for p in model.backbone.parameters():
        if not p.requires_grad:
            p.data = p.data.to(getattr(torch, args.dtype))

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))                # so that the server ends with this program
    with tempfile.TemporaryDirectory() as folder:
        roles = list(config["roles"])[:1 if args.merge else None]
        folders = {role: Path(folder) / name for role, name in folder_names(config["roles"]).items() if role in roles}
        for role, place in folders.items():
            export_role(model, tokenizer, config, role, place, args.merge)

        # the engine, and what it is asked
        log = Path(args.run) / "serve_check.log"
        served = (fetch_model(config["model"]), folders, args.dtype, engines.free_port(), log, args.merge)
        if args.vllm:
            engine = engines.Vllm(args.vllm, *served)
        else:
            engine = engines.LlamaCpp(args.llama, args.llama_server, *served)

        with engine:
            print(f"{type(engine).__name__}, {args.dtype}, {args.run}{', merged' if args.merge else ''}")
            compare_answers(engine, model, tokenizer, config, roles, args.new_tokens, args.merge)
            if args.llama and not args.merge and len(roles) > 1 and model.sources["B"] in ("shared", "gated"):
                compare_blend(engine, model, tokenizer, config, roles, args.new_tokens)
            if args.speed:
                compare_speed(engine, model, tokenizer, config, roles, args.new_tokens)


if __name__ == "__main__":
    main()
