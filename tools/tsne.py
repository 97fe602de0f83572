"""The paper's Figure 4 for a run: its role-specific matrices as points, by role and by layer; how distinct they are.

    python -m tools.tsne --run runs/demo [--kind q_proj] [--out runs/demo/tsne.png]

Needs matplotlib and scikit-learn. A point is the A (or B) of one role in one linear of the chosen kind; the paper draws
ChatGLM2's query_key_value. The silhouette (-1 to 1; cosine, on the matrices themselves, not on the drawing) puts a
number on what the picture shows: above 0, a point is nearer to its own group than to the next. "Within a layer" first
subtracts from each matrix the mean of its layer over all roles, which leaves the differences between roles.
"""
from console import Parser, one_line_errors

from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from checkpoint import load_run
from eval import provenance
from files import claimed, write_atomically

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000", "#999933")  # colour-blind-safe


@torch.inference_mode()
def matrices(model, kind):
    """{factor: (R, n, numbers)} of every factor that differs between the R roles, in the n linears of a kind."""
    linears = model.adapted[kind]
    with model.active_roles(torch.arange(model.config.num_roles)):
        factors = {factor: torch.stack([linear.lora_weights[i] for linear in linears], -3).float()
                   for i, factor in enumerate("AB")}
    return {factor: m.flatten(-2).cpu().numpy() for factor, m in factors.items() if m.dim() == 4}


def silhouettes(m):
    """Silhouette scores of matrices (R, n, numbers): by role, by role within a layer, by layer."""
    from sklearn.metrics import silhouette_score
    R, n, _ = m.shape
    roles = np.repeat(np.arange(R), n)
    layers = np.tile(np.arange(n), R)

    def score(x, labels):
        return float(silhouette_score(x.reshape(R * n, -1), labels, metric="cosine"))
    return {"role": score(m, roles), "role within a layer": score(m - m.mean(0), roles), "layer": score(m, layers)}


def font_with(text):
    """The name of an installed font that has every character of `text`, or None."""
    from matplotlib.font_manager import fontManager
    from matplotlib.ft2font import FT2Font
    for entry in fontManager.ttflist:
        if "Last Resort" not in entry.name and all(map(FT2Font(entry.fname).get_char_index, map(ord, text))):
            return entry.name                                            # (that one has boxes for all characters)


def draw(factors, roles, title, seed=0):
    """A matplotlib figure: a row for each generated factor, coloured by role and by layer."""
    import matplotlib
    import matplotlib.pyplot as plt
    from sklearn.manifold import TSNE
    foreign = "".join(sorted({c for name in roles for c in name if not c.isascii()}))
    font = font_with(foreign)
    names = [name if font or name.isascii() else f"role {i}" for i, name in enumerate(roles)]
    with matplotlib.rc_context({"font.family": ["DejaVu Sans"] + ([font] if foreign and font else [])}):
        figure, axes = plt.subplots(len(factors), 2, figsize=(11, 5 * len(factors)), squeeze=False, facecolor="white",
                                    layout="constrained")
        for (factor, m), (by_role, by_layer) in zip(factors.items(), axes):
            R, n, _ = m.shape
            perplexity = min(30, (R * n - 1) / 3)
            xy = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(m.reshape(R * n, -1))
            xy = xy.reshape(R, n, 2)
            scores = silhouettes(m)
            for i, name in enumerate(names):
                colour = COLOURS[i] if R <= len(COLOURS) else plt.cm.viridis(i / (R - 1))
                by_role.scatter(*xy[i].T, s=28, color=colour, marker="osD^vP*X"[i % 8], label=name, alpha=0.85)
            dots = by_layer.scatter(*xy.reshape(-1, 2).T, s=28, c=np.tile(np.arange(n), R), cmap="viridis", alpha=0.85)
            figure.colorbar(dots, ax=by_layer, label="layer", ticks=range(0, n, max(1, n // 8)))
            by_role.set_title(f"{factor} by role: silhouette {scores['role']:.2f}, "
                              f"within a layer {scores['role within a layer']:.2f}", fontsize=10)
            by_layer.set_title(f"{factor} by layer: silhouette {scores['layer']:.2f}", fontsize=10)
            for axis in (by_role, by_layer):
                axis.set(xlabel="t-SNE 1", ylabel="t-SNE 2", xticks=[], yticks=[])
        if R <= 12:
            figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=min(R, 6),
                          fontsize=8)
        figure.suptitle(title, fontsize=9)
    return figure


@one_line_errors("tools.tsne")
def main():
    """The command."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--run", required=True)
    parser.add_argument("--kind", help="a kind of linear; default: the first, as query_key_value in the paper")
    parser.add_argument("--out", help="PNG or SVG; default: tsne.png in the run folder")
    args = parser.parse_args()
    if not (find_spec("matplotlib") and find_spec("sklearn")):
        raise ValueError("this needs two more packages: pip install matplotlib scikit-learn")
    model, _, config = load_run(args.run, "cpu")
    if len(config["roles"]) < 2:
        raise ValueError(f"{args.run} has one role: there are no groups to draw")
    kind = args.kind or next(iter(model.adapted))
    if kind not in model.adapted:
        raise ValueError(f"there is no {kind!r}; choose {', '.join(model.adapted)}")
    factors = matrices(model, kind)
    if not factors:
        raise ValueError(f"{args.run}: with {config['method']} all roles share A and B: there is nothing to draw")
    out = Path(args.out or Path(args.run) / "tsne.png")
    with claimed(out) if args.out else nullcontext():    # that in the run folder is this command's own
        figure = draw(factors, list(config["roles"]), f"{kind} of {provenance(config)}")
        write_atomically(out, lambda path: figure.savefig(path, dpi=130, format=out.suffix[1:] or "png"))
    for factor, m in factors.items():
        print(f"{kind} {factor}: {m.shape[0]} roles x {m.shape[1]} layers; silhouette " +
              ", ".join(f"by {name} {value:.3f}" for name, value in silhouettes(m).items()))
    print(f"wrote {out}")


if __name__ == "__main__":
    main()
