"""From training examples to batches, and from batches to the steps of a run.

    input_ids   prompt ........ response ... stop    padding ...
    labels      -100 .......... response ... stop    -100 ......

Exactly the response and the stop token are supervised. B examples of a batch, T tokens of the longest, N supervised
tokens of the batch.
"""
from console import counted

import math
import random
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass

import torch
import torch.nn.functional as F

IGNORE = -100                           # the label of a token that is not supervised


# -------------------------------------------------------------------------------------------------------- one batch
@dataclass
class Batch:
    """A padded batch. Positions are flat, b * T + t, and known on the host, so that no step waits for a count."""
    input_ids: torch.Tensor      # (B, T)
    labels: torch.Tensor         # (B, T)  the token where it is supervised, else -100; to look at: steps read positions
    role_ids: torch.Tensor       # (B,)    stays on the CPU: its distinct values are found there
    positions: torch.Tensor      # (N,)    positions whose next token is supervised
    targets: torch.Tensor        # (N,)    those next tokens
    pooled: torch.Tensor         # (P,)    positions that represent a response in Eq. 5 ...
    pooled_rows: torch.Tensor    # (P,)    ... and the row of the batch that each belongs to

    def to(self, device):
        """The tensors that the step reads on `device`; to a GPU from pinned memory, so that the host does not wait."""
        moved = {}
        for name in ("input_ids", "positions", "targets", "pooled", "pooled_rows"):
            tensor = getattr(self, name)
            if device.type == "cuda":
                tensor = tensor.pin_memory()
            moved[name] = tensor.to(device, non_blocking=True)
        return Batch(labels=self.labels, role_ids=self.role_ids, **moved)


def collate(examples, pad_id, pool="last"):
    """Examples to a Batch, padded on the right. pool: see `pooled_span`."""
    B = len(examples)
    T = max(len(example.ids) for example in examples)
    input_ids = torch.full((B, T), pad_id)
    labels = torch.full((B, T), IGNORE)
    pooled = []
    pooled_rows = []

    for b, example in enumerate(examples):
        n = len(example.ids)
        input_ids[b, :n] = torch.tensor(example.ids)
        labels[b, example.prompt_len:n] = input_ids[b, example.prompt_len:n]

        span = pooled_span(example, pool)
        pooled += [b * T + t for t in span]
        pooled_rows += [b] * len(span)

    # the hidden state at position t predicts the token at t + 1
    next_labels = F.pad(labels[:, 1:], (0, 1), value=IGNORE).flatten()   # (B * T,)
    positions = (next_labels != IGNORE).nonzero().squeeze(1)             # (N,)
    targets = next_labels[positions]

    role_ids = torch.tensor([example.role_id for example in examples])
    return Batch(input_ids, labels, role_ids, positions, targets, torch.tensor(pooled), torch.tensor(pooled_rows))


def pooled_span(example, pool):
    """Which tokens of an example represent its response in Eq. 5: its "last" (the stop token), the one "before_eos",
    or the "mean" of all tokens of the response."""
    n = len(example.ids)
    if pool == "mean":
        return range(example.prompt_len, n)
    chosen = n - 1
    if pool == "before_eos" and not example.truncated:
        chosen = max(n - 2, example.prompt_len)
    return range(chosen, chosen + 1)


# ------------------------------------------------------------------------------------------------ an epoch of batches
def batch_order(examples, batch_size, seed, epoch, one_answer=False, balance_roles=False):
    """Index lists of one epoch's batches: shuffled, with similar lengths within a batch to limit padding.

    one_answer: only one example of each sample, drawn anew every epoch. balance_roles: see `balanced_batches`.
    The order depends only on the arguments, so a resumed run can continue in the middle of an epoch.
    """
    rng = random.Random(f"{seed}/{epoch}")
    order = list(range(len(examples)))
    rng.shuffle(order)
    if one_answer:
        order = list({examples[i].sample: i for i in order}.values())    # the last of a sample's examples

    if balance_roles:
        batches = balanced_batches(order, examples, batch_size, rng)
    else:
        batches = batches_of_similar_length(order, examples, batch_size)
    rng.shuffle(batches)
    return batches


def batches_of_similar_length(order, examples, batch_size):
    """Batches cut from pools of 32 batches' examples, each pool sorted by length, alternately up and down."""
    batches = []
    pool_size = 32 * batch_size
    for n, start in enumerate(range(0, len(order), pool_size)):
        pool = sorted(order[start:start + pool_size], key=lambda i: len(examples[i].ids), reverse=n % 2 == 1)
        batches += [pool[i:i + batch_size] for i in range(0, len(pool), batch_size)]
    return batches


def balanced_batches(order, examples, batch_size, rng, per_role=2):
    """Batches of P roles with K = `per_role` examples each, so that Eq. 7 has positives and negatives in every batch.

    P is batch_size // K. Each batch takes the roles with the most examples left, and from each the examples nearest in
    length to one random example. What is left when fewer than two roles have K examples is not used in this epoch.
    Raises ValueError if no batch can be made.
    """
    def length(i):
        return len(examples[i].ids)

    queues = {}                                                          # {role: its examples by length}
    for i in sorted(order, key=lambda i: (examples[i].role_id, length(i))):
        queues.setdefault(examples[i].role_id, []).append(i)

    batches = []
    num_roles = batch_size // per_role
    while num_roles >= 2:
        ready = [queue for queue in queues.values() if len(queue) >= per_role]
        if len(ready) < 2:
            break
        ready.sort(key=len, reverse=True)
        target = length(rng.choice(ready[0]))
        batch = []
        for queue in ready[:num_roles]:
            start = bisect_left(queue, target, key=length) - per_role // 2
            start = min(max(start, 0), len(queue) - per_role)
            batch += queue[start:start + per_role]
            del queue[start:start + per_role]
        batches.append(batch)

    if not batches:
        raise ValueError(f"balance_roles needs batches of at least {2 * per_role} and two roles with {per_role} "
                         f"examples each; here batch_size is {batch_size}, with {len(queues)} roles")
    return batches


def padding_share(examples, batches):
    """The share of padding among all tokens of these batches."""
    tokens = 0
    padded = 0
    for batch in batches:
        lengths = [len(examples[i].ids) for i in batch]
        tokens += sum(lengths)
        padded += len(batch) * max(lengths)
    return 1 - tokens / padded


# ------------------------------------------------------------------------------------------------ the steps of a run
@dataclass
class Step:
    """The data of one optimizer step. "The whole step" means all processes together."""
    micro_batches: list                 # [Batch] of this process
    num_micro_batches: int              # of the whole step
    supervised: int                     # supervised tokens of the whole step
    rows: list                          # indices of the examples, per micro-batch of the whole step
    counts: dict                        # for the log: epoch, tokens, and the pairs of Eq. 7


class Steps:
    """The steps of a run, in order. Step n depends on n and the configuration alone, so a run can resume anywhere."""
    def __init__(self, examples, cfg, pad_id, rank=0, processes=1):
        self.examples = examples
        self.cfg = cfg
        self.pad_id = pad_id
        self.rank = rank
        self.processes = processes
        self.epoch = None
        self.start_epoch(0)
        self.micro_batches_per_step = cfg.grad_accum * self.processes
        self.per_epoch = math.ceil(len(self.order) / self.micro_batches_per_step)
        self.total = cfg.max_steps or max(1, round(cfg.epochs * self.per_epoch))

    def describe(self):
        """How many examples and steps there are, in a line."""
        examples = f"{counted(len(self.examples), 'example')}, {sum(map(len, self.order))} of them an epoch"
        padding = f"{padding_share(self.examples, self.order):.1%} padding"
        return f"{examples}, in {counted(self.per_epoch, 'step')} ({padding}); {counted(self.total, 'step')}"

    def start_epoch(self, epoch):
        """Draws the order of an epoch's batches."""
        if epoch != self.epoch:
            one_answer = self.cfg.answers == "sampled"
            self.order = batch_order(self.examples, self.cfg.batch_size, self.cfg.seed, epoch, one_answer,
                                     self.cfg.balance_roles)
            self.epoch = epoch

    def __getitem__(self, step):
        # the micro-batches of all processes, then our share of them
        epoch, index = divmod(step, self.per_epoch)
        self.start_epoch(epoch)
        first = index * self.micro_batches_per_step
        rows = self.order[first:first + self.micro_batches_per_step]
        chosen = [[self.examples[i] for i in micro_batch] for micro_batch in rows]
        mine = chosen[self.rank::self.processes]
        batches = [collate(examples, self.pad_id, self.cfg.pool) for examples in mine]

        # counts over the whole step
        everything = sum(chosen, [])
        supervised = sum(len(example.ids) - example.prompt_len for example in everything)
        tokens = sum(len(example.ids) for example in everything)
        counts = {"epoch": round(step / self.per_epoch, 4), "tokens": tokens} | contrast_pairs(chosen)
        return Step(batches, len(rows), supervised, rows, counts)


def contrast_pairs(micro_batches):
    """What Eq. 7 can compare in a step: over all micro-batches the ordered pairs of samples of one role (`positives`,
    beside each sample itself) and of two roles (`negatives`); and as the mean of the micro-batches how many `roles`
    there are, and the `floor` that Eq. 7 can approach, but not pass: the mean of log |P(i)|, in nats."""
    roles = 0
    positives = 0
    negatives = 0
    floor = 0.0
    for examples in micro_batches:
        counts = Counter(example.role_id for example in examples).values()
        roles += len(counts)
        positives += sum(n * (n - 1) for n in counts)
        negatives += sum(n * (len(examples) - n) for n in counts)
        floor += sum(n * math.log(n) for n in counts) / len(examples)
    return {"roles": roles / len(micro_batches), "positives": positives, "negatives": negatives,
            "floor": round(floor / len(micro_batches), 4)}
