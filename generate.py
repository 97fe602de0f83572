"""Generation: sampling with a KV cache, for a batch of prompts of any length in any mixture of roles.

B batch, T prompt tokens of the longest row, C width, V vocabulary.
"""
import hashlib
from dataclasses import dataclass, fields, replace

import torch
from tqdm import tqdm

from model_config import check_ids


@dataclass(frozen=True)
class Decoding:
    """Sampling settings. Temperature 0 is greedy: then only repetition_penalty and max_new_tokens matter."""
    max_new_tokens: int = 128
    temperature: float = 0.0
    top_k: int = 0                      # 0: all
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    seed: int = 0

    def __str__(self):
        changed = [f"{f.name} {getattr(self, f.name)}" for f in fields(self) if getattr(self, f.name) != f.default]
        return ", ".join(["sampled" if self.temperature else "greedy", *changed])

    def validate(self):
        """Returns itself; ValueError for settings that make no sense."""
        ranges = {"max_new_tokens": (1, 10 ** 6), "temperature": (0.001, 100), "top_k": (0, 10 ** 9),
                  "top_p": (1e-6, 1), "repetition_penalty": (0.01, 100), "seed": (-2 ** 62, 2 ** 62)}
        for name, (least, most) in ranges.items():
            value = getattr(self, name)
            greedy = name == "temperature" and value == 0
            if not (least <= value <= most or greedy):
                raise ValueError(f"decoding {self} is not possible: {name} has to be {least:g} to {most:g}"
                                 + (", or 0 for greedy decoding" if name == "temperature" else ""))
        return self


OFFICIAL = {"zh": Decoding(100, 0.95, 50, 0.7), "en": Decoding(512, 0.7, 40, 0.9)}     # the authors' evaluation scripts


def add_decoding_arguments(parser):
    """Adds --decode and a flag for each field of Decoding to an ArgumentParser."""
    import argparse
    parser.add_argument("--decode", choices=("greedy", "official"), default="greedy",
                        help="default: greedy; official: the authors' sampling for the run's language")
    for f in fields(Decoding):
        parser.add_argument(f"--{f.name.replace('_', '-')}", type=f.type, default=argparse.SUPPRESS)


def decoding_from_args(args, language, max_new_tokens=128):
    """The Decoding that --decode names, overridden by the other flags. ValueError for impossible settings."""
    base = Decoding(max_new_tokens)
    if args.decode == "official":
        if language not in OFFICIAL:
            raise ValueError(f"--decode official is for one language, {' or '.join(OFFICIAL)}, this is {language!r}")
        base = OFFICIAL[language]
    given = {f.name: getattr(args, f.name) for f in fields(Decoding) if hasattr(args, f.name)}
    return replace(base, **given).validate()


# ---------------------------------------------------------------------------------------------------------- one token
def lm_logits(backbone, h):
    """Logits (B, V) in fp32 of final hidden states h (B, C). W on the left takes MKL half the time for few rows."""
    return (backbone.lm_head.weight @ h.mT).mT.float()


def sample_next_token(logits, decoding, uniform, seen):
    """One token id per row of logits (B, V) in fp32.

    uniform: (B,) random numbers in [0, 1), one per row, so that no row depends on another.
    seen: (B, V) bool, the tokens that repetition_penalty applies to; None without a penalty.
    """
    if decoding.repetition_penalty != 1:
        penalty = decoding.repetition_penalty
        penalised = torch.where(logits > 0, logits / penalty, logits * penalty)
        logits = torch.where(seen, penalised, logits)
    if decoding.temperature == 0:
        return logits.argmax(-1)

    # the likeliest top_k, and of those as many as it takes to reach top_p: at least one
    V = logits.size(-1)
    p, ids = (logits / decoding.temperature).softmax(-1).topk(min(decoding.top_k or V, V))    # sorted
    p = p / p.sum(-1, keepdim=True)
    p = p * (p.cumsum(-1) - p < decoding.top_p)

    # where the cumulative distribution passes the random number
    cdf = p.cumsum(-1)
    rank = (cdf <= uniform[:, None] * cdf[:, -1:]).sum(-1, keepdim=True)
    rank = rank.clamp(max=p.size(-1) - 1)
    return ids.gather(-1, rank).squeeze(-1)


# ------------------------------------------------------------------------------------------------------- whole answers
@torch.inference_mode()
def generate(model, prompts, role_ids, stop_ids, decoding=Decoding(), seeds=None, on_token=None):
    """Continues prompts (lists of ids), row b as role_ids[b]; role_ids None: the untouched backbone answers.

    Prompts are padded on the right, and each row writes its next token into its own next slot of the cache, over the
    padding. seeds: one int per row; default: `seed_of` its prompt, so that equal prompts draw equal numbers. on_token
    is called with each step's ids, -1 for a row that has ended. Returns lists of ids without the stop token. ValueError
    if a prompt fills the context.
    """
    backbone = model.backbone
    device = backbone.device
    B = len(prompts)
    T = max(map(len, prompts))
    context = backbone.config.max_positions
    if T >= context:
        raise ValueError(f"a prompt of {T} tokens leaves no room for an answer: the model reads at most {context}")
    check_ids(prompts, backbone.config)
    steps = min(decoding.max_new_tokens, context - min(map(len, prompts)))

    # inputs
    ids = torch.tensor([p + [0] * (T - len(p)) for p in prompts], device=device)          # (B, T)
    positions = torch.tensor([len(p) for p in prompts], device=device)                    # (B,) where row b continues
    rows = torch.arange(B, device=device)
    stops = torch.tensor(sorted(stop_ids), device=device)

    # random numbers for all steps, from a generator per row
    if seeds is None:                                                    # an answer is the same in any batch
        seeds = [seed_of(prompt, decoding.seed) for prompt in prompts]
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    uniform = torch.stack([torch.rand(steps, generator=g) for g in generators]).to(device)

    # tokens of the prompt, for the penalty
    seen = None
    if decoding.repetition_penalty != 1:
        seen = torch.zeros(B, backbone.config.vocab_size, dtype=torch.bool, device=device)
        for b, prompt in enumerate(prompts):
            seen[b, torch.tensor(prompt, device=device)] = True

    answers = [[] for _ in prompts]
    done = torch.zeros(B, dtype=torch.bool, device=device)
    cache = backbone.new_cache(B, min(T + steps, context))
    with model.active_roles(role_ids):
        # the prompt: the last real token of each row predicts the first new one
        h = backbone.hidden_states(ids, cache)                                            # (B, T, C)
        logits = lm_logits(backbone, h[rows, positions - 1])

        for step in range(steps):
            token = sample_next_token(logits, decoding, uniform[:, step], seen)           # (B,)

            # move the new tokens to the host: the only wait for the device in a step
            done |= torch.isin(token, stops) | (positions >= context)
            new_tokens = torch.where(done, -1, token).tolist()
            for answer, new_token in zip(answers, new_tokens):
                if new_token >= 0:
                    answer.append(new_token)
            if max(new_tokens) < 0:
                break
            if on_token:
                on_token(new_tokens)
            if step + 1 == steps:
                break

            # the next step's logits
            if seen is not None:
                seen[rows, token] = True
            slots = positions.clamp(max=context - 1)                     # of a row that has reached the end
            h = backbone.hidden_states(token[:, None], cache, slots)                      # (B, 1, C)
            logits = lm_logits(backbone, h[:, 0])
            positions = positions + 1
    return answers


def seed_of(prompt, seed):
    """A seed for the answer to a prompt (ids), which depends only on these two arguments."""
    digest = hashlib.sha256(f"{seed} {prompt}".encode()).digest()
    return int.from_bytes(digest[:7], "big")


def rows_that_fit(backbone, prompt, cached, most):
    """How many rows with a prompt of `prompt` tokens a GPU has memory for, from 1 to `most`; on a CPU, `most`.

    A row takes keys and values of the `cached` tokens that are kept, and while the prompt is read the activations of
    one block (a few hidden states, and what the MLP holds at once).
    """
    device = backbone.device
    if device.type != "cuda":
        return most
    c = backbone.config
    cache = cached * 2 * c.num_hidden_layers * c.num_key_value_heads * c.head_dim
    activations = prompt * (6 * c.hidden_size + 3 * c.intermediate_size)
    row = (cache + activations) * backbone.dtype.itemsize                # bytes

    # free on the device, and free within what torch holds already; a fifth is left for fragmentation
    free, _ = torch.cuda.mem_get_info(device)
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return max(1, min(most, int(0.8 * free / row)))


def generate_texts(model, tokenizer, prompts, role_ids, decoding=Decoding(), batch_size=64, desc=None):
    """Texts that answer prompts (lists of ids), in their order; None where a prompt fills the context.

    batch_size: the most rows at once; on a GPU, as many of them as its memory has room for. Prompts of similar length
    share a batch.
    """
    texts = [None] * len(prompts)
    fit = [i for i, prompt in enumerate(prompts) if len(prompt) < model.backbone.config.max_positions]
    order = sorted(fit, key=lambda i: len(prompts[i]))
    longest = max([len(prompts[i]) for i in fit], default=0)
    batch_size = rows_that_fit(model.backbone, longest, longest + decoding.max_new_tokens, batch_size)
    with tqdm(total=len(fit), desc=desc, disable=desc is None, leave=False) as bar:
        for start in range(0, len(order), batch_size):
            batch = order[start:start + batch_size]
            batch_roles = None if role_ids is None else [role_ids[i] for i in batch]
            answers = generate(model, [prompts[i] for i in batch], batch_roles, tokenizer.stop_ids, decoding)
            for i, ids in zip(batch, answers):
                texts[i] = tokenizer.decode(ids)
            bar.update(len(batch))
    return texts
