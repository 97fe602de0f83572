"""The similarity matrix of Eq. 7, drawn from a trained run for `tools.figures`."""
from dataclasses import replace

import torch
import torch.nn.functional as F

from checkpoint import build, digest, load_run
from data import load_test_samples
from likelihood import reference_nll
from selection import other_roles
from tools.svg import Svg


@torch.inference_mode()
def similarities(model, tokenizer, config, samples, voices):
    """(R, R) mean cosine of each role's z_r with z_t of each role's test answers, read by the model as `voices`; NaN
    for a role without any."""
    _, e_t = reference_nll(model, tokenizer, config, [replace(s, role=v) for s, v in zip(samples, voices)])
    known = ~e_t.isnan().any(1)
    z_r, z_t = model.projections(model.hyper.role_embedding.weight, e_t[known])
    cosine = F.normalize(z_r, dim=-1) @ F.normalize(z_t, dim=-1).t()     # (R, answers)

    authors = torch.tensor([config["roles"][s.role] for s in samples])[known]
    return torch.stack([cosine[:, authors == role].mean(1) for role in range(len(z_r))], dim=1)


def similarity(run):
    """What Eq. 7 compares, before and after training, and when another role reads the answers. None of it is typed."""
    model, tokenizer, config = load_run(run, "cpu")
    if model.projections is None:
        raise ValueError(f"{run}: {config['method']} has no role embeddings to compare; use a run of hycora")
    samples = load_test_samples(config["data"], config["language"], config["splits"],
                                generalization=config["generalization"], roles=config["roles"])
    own = [s.role for s in samples]
    others = [other or s.role for s, other in zip(samples, other_roles(samples))]
    torch.manual_seed(config["seed"])
    untrained, _ = build(config, len(config["roles"]), "cpu")

    svg = draw(list(config["roles"]), {
        "before training": similarities(untrained.eval(), tokenizer, config, samples, own),
        "after training": similarities(model, tokenizer, config, samples, own),
        "read as another role": similarities(model, tokenizer, config, samples, others)})
    svg.parts.append(f"<!-- drawn from an adapter.safetensors with SHA-256 {digest(run / 'adapter.safetensors')} -->")
    return svg


def draw(names, parts):
    """The matrices {title: (R, R)} side by side: a row for each role embedding, a column for each role's answers."""
    R = len(names)
    cell = min(24, 190 // R)
    bottom = 60 + cell * R
    svg = Svg(830, bottom + 95, f"Cosine of role embeddings and test answers: {', '.join(parts)}")
    for part, (title, matrix) in enumerate(parts.items()):
        left = 190 + 215 * part
        svg.text(left + cell * R / 2, 20, title, weight="600")
        for i in range(R):
            for j in range(R):
                if not matrix[i, j].isnan():
                    svg.cell(left + cell * j, 60 + cell * i, cell, matrix[i, j].item())
            if cell > 12:
                svg.text(left + cell * (i + 0.5), 48, str(i), 12)
    if cell > 12:
        for i, name in enumerate(names):
            svg.text(180, 60 + cell * (i + 0.5), f"{name}  {i}", 13, anchor="end")

    svg.lines(190, bottom + 28, ["rows: role embeddings, z_{r}. Columns: each role's test answers, z_{t}"], 13,
              anchor="start")
    svg.text(190, bottom + 70, "cosine", 13, anchor="start")
    for i in range(5):
        svg.cell(250 + 70 * i, bottom + 59, 22, i / 2 - 1)
        svg.text(250 + 70 * i + 28, bottom + 70, f"{i / 2 - 1:g}".replace("-", "−"), 12, anchor="start")
    return svg
