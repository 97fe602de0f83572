"""Tokens per second of an engine beside this code's own: tools.serve_check --speed.

Each measurement is one burst: a batch of requests sent at once, all answers of the same length, timed until the last
one is there, with the prompts' own time in it; of one role, and of all roles in turn.
"""
import time
from functools import partial

from data import run_persona
from generate import Decoding, generate
from tools import engines

QUESTION = "What do you do when it rains?"
BATCHES = (1, 8, 32)


def ask_engine(engine, config, roles, new_tokens):
    """Lets an engine answer as each of these roles, all at once."""
    engines.ask_all(engine, [(role, QUESTION) for role in roles], config, new_tokens, ignore_eos=True)


def ask_ours(model, tokenizer, config, roles, new_tokens):
    """Lets this code answer as each of these roles, in one batch, as eval.py does."""
    prompts = [tokenizer.prompt(QUESTION, run_persona(role, config)) for role in roles]
    numbers = [config["roles"][role] for role in roles]
    generate(model, prompts, numbers, set(), Decoding(new_tokens))


def tokens_per_second(ask, roles, new_tokens):
    """Tokens per second of an answer of `new_tokens` by each of these roles; ask(roles, new_tokens) makes them."""
    ask(roles, new_tokens)                                               # once for nothing: caches, threads
    start = time.perf_counter()
    ask(roles, new_tokens)
    return len(roles) * new_tokens / (time.perf_counter() - start)


def compare_speed(engine, model, tokenizer, config, roles, new_tokens):
    """Prints tokens per second of the engine and of this code, for one role and for mixed ones, as they are found."""
    theirs = partial(ask_engine, engine, config)
    ours = partial(ask_ours, model, tokenizer, config)
    print(f"tokens per second, answers of {new_tokens} tokens: {type(engine).__name__}, this code")
    for batch in BATCHES:
        one = [roles[0]] * batch
        mixed = [roles[i % len(roles)] for i in range(batch)]
        for kind, asked in (("one role", one), ("mixed", mixed)):
            if kind == "mixed" and one == mixed:
                continue
            rates = [tokens_per_second(ask, asked, new_tokens) for ask in (theirs, ours)]
            print(f"batch {batch:<3} {kind:<9}{rates[0]:>8.0f}{rates[1]:>8.0f}", flush=True)
