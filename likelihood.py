"""The likelihood of the test's references, in nats per token: as the right role, as others, and as none.

    right   as the line's own role
    wrong   as other roles of its language: the mean over up to three
    zero    as no role: the roles of its language among the lines read, in equal parts, and no role in the prompt

Training lowers right. wrong - right shows how distinct the roles are, zero - right what the role-specific part of the
model contributes. Nothing is generated, so every test line can be read, and lines pair exactly between runs.
n test lines, C width of the backbone.
"""
import math
from dataclasses import replace

import torch
import torch.nn.functional as F

from batches import collate
from data import encode_examples
from generate import rows_that_fit
from losses import pool_response, response_cross_entropy
from metrics import bootstrap
from selection import other_roles, role_id, roles_by_language, with_shots


# ---------------------------------------------------------------------------------------------------- one reading
@torch.inference_mode()
def reference_nll(model, tokenizer, config, samples, batch_size=32, backbone=False, zero=False):
    """Negative log-likelihood of all references of each sample, as the sample's role.

    backbone: of the untouched backbone, with the role in the prompt. zero: as no role (`mean_roles`).
    Returns nats per token (n,) over a sample's references and their stop tokens, and e_t of Eq. 5 (n, C) of its longest
    reference. NaN where the prompt alone fills the context. References are cut at the context alone, not at max_length.
    """
    in_prompt = (backbone or config["role_in_prompt"]) and not zero
    profiles = config["profiles"] if in_prompt else None
    context = model.backbone.config.max_positions
    examples, _, _ = encode_examples(samples, config["roles"], tokenizer, context, profiles)
    examples.sort(key=lambda example: len(example.ids))                  # similar lengths limit padding
    longest = max([len(example.ids) for example in examples], default=1)
    batch_size = rows_that_fit(model.backbone, longest, 0, batch_size)
    weights = mean_roles(samples, config["roles"]) if zero else None

    nats = torch.zeros(len(samples))
    tokens = torch.zeros(len(samples))
    e_t = torch.full((len(samples), model.backbone.config.hidden_size), math.nan)
    for start in range(0, len(examples), batch_size):
        chosen = examples[start:start + batch_size]
        indices = torch.tensor([example.sample for example in chosen])
        batch = collate(chosen, tokenizer.eos_id, config["pool"]).to(model.backbone.device)
        role_ids = batch.role_ids if weights is None else weights[indices]

        # the cross-entropy of each example alone: positions and targets come example after example
        with model.active_roles(None if backbone else role_ids):
            hidden = model.backbone.hidden_states(batch.input_ids).flatten(0, 1)              # (B * T, C)
            counts = [len(example.ids) - example.prompt_len for example in chosen]
            parts = zip(hidden[batch.positions].split(counts), batch.targets.split(counts))
            sums = [response_cross_entropy(h, model.backbone.lm_head.weight, targets) for h, targets in parts]

        nats.index_add_(0, indices, torch.stack(sums).float().cpu())
        tokens.index_add_(0, indices, torch.tensor(counts, dtype=torch.float))
        if config["contrast_reader"] != "role" and not backbone and not zero:
            hidden = model.read_by(config["contrast_reader"], batch.input_ids, batch.role_ids)
        pooled = pool_response(hidden, batch.pooled, batch.pooled_rows, len(chosen)).float().cpu()
        for index, row in zip(indices.tolist(), pooled):                 # the longest reference comes last
            e_t[index] = row
    return nats / tokens, e_t                                            # 0 / 0 is NaN


def mean_roles(samples, roles):
    """Weights (n, num_roles) that blend all roles of each sample's language, of those that the samples have, in equal
    parts: the zero role.

    So a hyper-network generates from the mean of their embeddings, and per-role factors are averaged, A and B
    separately. roles: {name: id}.
    """
    of_language = roles_by_language(samples)
    weights = torch.zeros(len(samples), len(roles))
    for i, s in enumerate(samples):
        ids = [role_id(name, roles) for name in of_language[s.language]]
        weights[i, ids] = 1 / len(ids)
    return weights


# ------------------------------------------------------------------------------------------- all readings, and means
def lines_to_read(config):
    """How many test lines of a split are read after training (config: the keys of train.py)."""
    return config["likelihood_limit"] or min(50, config["score_limit"])


def read_references(model, tokenizer, config, samples, backbone=False, shots=None, wrong=3):
    """Reads the samples' references as each role. Returns (the entry for scores.json, a line for each sample).

    backbone: the untouched backbone is read, with the role in the prompt, and with `shots`, {role: earlier turns},
    after it. wrong: how many other roles. Samples whose prompt fills the context are left out.
    """
    shots = shots or {}
    right, e_t = reference_nll(model, tokenizer, config, with_shots(samples, shots), backbone=backbone)
    zero, _ = reference_nll(model, tokenizer, config, samples, backbone=backbone, zero=True)

    as_others = []
    for distance in range(1, wrong + 1):
        as_others.append(nll_as_other(model, tokenizer, config, samples, distance, backbone, shots))

    lines = []
    for i, s in enumerate(samples):
        of_others = [nll[i].item() for nll, _ in as_others if not math.isnan(nll[i])]
        if not math.isnan(right[i] + zero[i]):
            lines.append({"split": s.split, "language": s.language, "role": s.role, "question": s.question,
                          **({"kind": s.kind} if s.kind else {}),
                          "right": right[i].item(), "wrong": of_others, "zero": zero[i].item()})

    found = {"likelihood": aggregate_likelihood(lines)} if lines else {}
    if model.projections is not None and not backbone and lines:
        found["retrieval_top1"] = retrieval_top1(model, config, samples, e_t)

        # read as another role: is z_t nearest to that role, the reader, or to the author of the answer?
        _, e_swapped = as_others[0]
        if not e_swapped.isnan().all():
            readers = [replace(s, role=other or s.role) for s, other in zip(samples, other_roles(samples))]
            found["retrieval_swapped"] = {"reader": retrieval_top1(model, config, readers, e_swapped),
                                          "author": retrieval_top1(model, config, samples, e_swapped)}
    return found, lines


def nll_as_other(model, tokenizer, config, samples, distance, backbone, shots):
    """`reference_nll` of the samples as the role `distance` places after their own; NaN where there is none."""
    nll = torch.full((len(samples),), math.nan)
    e_t = torch.full((len(samples), model.backbone.config.hidden_size), math.nan)
    others = other_roles(samples, distance)
    indices = [i for i, other in enumerate(others) if other is not None]
    if indices:
        swapped = with_shots([replace(samples[i], role=others[i]) for i in indices], shots)
        nll[indices], e_t[indices] = reference_nll(model, tokenizer, config, swapped, backbone=backbone)
    return nll, e_t


def aggregate_likelihood(lines):
    """The means of lines of `read_references`, over all of them and, under "splits", of each split."""
    splits = {}
    for split in sorted({line["split"] for line in lines}):
        splits[split] = mean_likelihood([line for line in lines if line["split"] == split])
    return mean_likelihood(lines) | {"splits": splits}


def mean_likelihood(lines):
    """Means over lines in nats per token, "right", "wrong" and "zero", with 95 % intervals, also of the differences.

    `role_accuracy`: how often the right role beats all the wrong ones, `chance`: how often it would by luck. What needs
    a second role is left out if there is none.
    """
    right = [line["right"] for line in lines]
    gain = [line["zero"] - line["right"] for line in lines]
    found = {"n": len(lines), "right": mean(right), "zero": mean([line["zero"] for line in lines]),
             "interval": {"right": bootstrap(right), "zero - right": bootstrap(gain)}}

    swapped = [line for line in lines if line["wrong"]]
    if swapped:
        wrong = [mean(line["wrong"]) for line in swapped]
        found["wrong"] = mean(wrong)
        found["interval"]["wrong - right"] = bootstrap([w - line["right"] for w, line in zip(wrong, swapped)])
        found["role_accuracy"] = mean([float(line["right"] < min(line["wrong"])) for line in swapped])
        found["chance"] = mean([1 / (1 + len(line["wrong"])) for line in swapped])
    return found


def mean(values):
    """The mean of a list of numbers."""
    return sum(values) / len(values)


@torch.inference_mode()
def retrieval_top1(model, config, samples, e_t):
    """Share of samples whose reference has a z_t nearest, among all roles, to the z_r of the sample's role."""
    known = ~e_t.isnan().any(1)
    roles = torch.tensor([config["roles"][s.role] for s in samples])[known]
    weight = model.hyper.role_embedding.weight
    z_r, z_t = model.projections(weight, e_t[known].to(weight))                        # (R, d_z), (n, d_z)
    nearest = (F.normalize(z_t, dim=-1) @ F.normalize(z_r, dim=-1).t()).argmax(-1).cpu()
    return (nearest == roles).float().mean().item()
