"""The studies that tools.reproduce runs: which methods, seeds and settings answer which question.

A page of docs/studies gives the question, the expectation and the cost of each, written before it was run.
"""
from dataclasses import dataclass, field

from hycora_layer import METHODS

EARLY = "--method hycora --lambda-start-epoch 0 --lambda-min 0.3"               # the contrastive loss from step 1
VARIANTS = {name: f"--method {name}" for name in METHODS}
VARIANTS |= {
    "hycora w/o HCL": "--method hycora --lambda-max 0",
    "hycora + role in prompt": "--method hycora --role-in-prompt true",
    "lora name only": "--method lora --profiles-in-prompt false",
    # other settings of the contrastive loss
    "HCL from step 1": EARLY,
    "HCL mean": f"{EARLY} --pool mean",
    "HCL before_eos": f"{EARLY} --pool before_eos",
    "HCL tau 0.03": f"{EARLY} --tau 0.03",
    "HCL tau 1": f"{EARLY} --tau 1",
    "HCL read by another": f"{EARLY} --contrast-reader other",
    "HCL read by nobody": f"{EARLY} --contrast-reader backbone",
    "HCL lambda 3": "--method hycora --lambda-start-epoch 0 --lambda-min 3 --lambda-max 3",
}
ALL = (*METHODS, "hycora w/o HCL")
THREE = ("hycora", "lora", "hycora w/o HCL")
FEW = ("hycora", "lora", "ind-lora")
HALVES = ("hycora", "mrs-a-rsp-b", "rsp-a-rsp-b")
TEN = ("hycora", "hycora w/o HCL", "lora", "lora name only", "ind-lora", "mrs-a-rsp-b", "hycora + role in prompt")
OURS = "ind-a-mrs-b"                     # the control that is not in the paper: docs/studies/generated-a.md
FOUR = ("hycora", "ind-lora", "mrs-a-rsp-b", "lora")
GENERAL = ("hycora", "hycora w/o HCL", "lora", "lora name only", "ind-lora")
HCL = ("hycora w/o HCL", "hycora", *(name for name in VARIANTS if name.startswith("HCL")))


@dataclass(frozen=True)
class Study:
    """Every variant at every point with every seed; `arguments`, of train.py, are common to all of them.

    shots: the untouched backbone is scored too, with that many training lines of the role in its prompt.
    more: arguments of one variant, such as a learning rate of its own.
    question, page: what it asks, and the page of docs/studies that answers it.
    """
    arguments: str
    variants: tuple = ALL
    seeds: tuple = (1,)
    points: dict = field(default_factory=lambda: {"all": ""})
    shots: tuple = ()
    more: dict = field(default_factory=dict)
    question: str = ""
    page: str = ""


REAL = "--config configs/smollm2-135m-en.json"
CHINESE = "--config configs/qwen2.5-0.5b-zh.json"
TINY = "--config configs/tiny.json"
BF16 = "--lambda-start-epoch 0.2 --precision bf16"                           # bf16: on a CPU with AVX512-BF16 or AMX
SHORT = f"--splits role_specific {BF16}"
LINES = "--likelihood-limit 10000"                                           # every test line's
BEST = {"lora": "--lr 0.006"}                    # as tiny-lr says; for the others, the 0.0035 of configs/tiny.json
READ = f"--score-limit 100 {LINES}"                                          # and few answers
BOTH = f"{BF16} --epochs 1 --answers sampled --score-limit 200 {LINES}"      # both splits, one answer to a question
STUDIES = {
    # real models, a few hours of a core a run, or minutes of a GPU
    "many-roles": Study(f"{REAL} {SHORT} {READ} --epochs 1", TEN, (1, 2), shots=(0, 4), page="many-roles",
                        question="SmolLM2-135M, 95 roles, few lines each: does sharing help?"),
    "many-lr": Study(f"{REAL} {SHORT} --score-limit 20 {LINES} --epochs 1", FOUR, page="many-roles",
                     points={lr: f"--lr {lr}" for lr in ("0.00025", "0.0005", "0.001", "0.002")},
                     question="95 roles at other learning rates: who is best, each at its own?"),
    "ten-roles": Study(f"{REAL} {SHORT} {READ} --role-subset 10 --epochs 1", (*TEN, OURS), (1, 2, 3), shots=(0, 4),
                       page="seeds", question="SmolLM2-135M, ten roles: which differences survive another seed?"),
    "ten-lr": Study(f"{REAL} {SHORT} --role-subset 10 --score-limit 20 {LINES} --epochs 1",
                    (*FOUR, OURS), (1, 2, 3), page="seeds",
                    points={lr: f"--lr {lr}" for lr in ("0.00025", "0.0005", "0.001", "0.002", "0.004")},
                    question="ten roles at other learning rates: who is best, each at its own?"),
    "ten-resplit": Study(f"{REAL} {SHORT} {READ} --role-subset 10 --epochs 1", ("hycora", "ind-lora"), page="seeds",
                         question="ten-roles on the split that tools.resplit makes: do its differences hold?"),
    "ten-general": Study(f"{REAL} {BOTH} --role-subset 10", GENERAL, (1, 2, 3), shots=(0, 4), page="general",
                         question="ten roles, both splits: whose voice is in answers to general questions?"),
    "general-lr": Study(f"{REAL} {BOTH} --role-subset 10", FOUR, (1, 2, 3), page="general",
                        points={lr: f"--lr {lr}" for lr in ("0.00025", "0.0005", "0.001", "0.002")},
                        question="the same at other learning rates: who is best, each at its own?"),
    "five-roles-zh": Study(f"{CHINESE} {SHORT} {READ} --epochs 1", TEN, (1, 2, 3), shots=(0, 4), page="seeds",
                           question="Qwen2.5-Coder-0.5B, the Chinese roles: the same"),
    "zh-lr": Study(f"{CHINESE} {SHORT} --score-limit 20 {LINES} --epochs 1",
                   FOUR, (1, 2, 3), page="seeds",
                   points={lr: f"--lr {lr}" for lr in ("0.0001", "0.0002", "0.0004", "0.0008", "0.0016")},
                   question="the Chinese roles at other learning rates: who is best, each at its own?"),
    "zh-general": Study(f"{CHINESE} {BOTH}", GENERAL, (1, 2), shots=(0, 4), page="general",
                        question="the Chinese roles, both splits: the same"),

    # the small world
    "tiny": Study(f"{TINY} {LINES}", seeds=(1, 2, 3, 4, 5), shots=(0, 4), page="small-world",
                  question="all methods side by side, with facts"),
    "tiny-hcl": Study(f"{TINY} {LINES}", HCL, (1, 2, 3), page="contrastive-loss",
                      question="what does the contrastive loss do?"),
    "tiny-lr": Study(f"{TINY} {LINES}", (*HALVES, "lora", "ind-lora", OURS), (0,),
                     {lr: f"--lr {lr}" for lr in ("0.0007", "0.002", "0.006", "0.018", "0.054")}, page="which-half",
                     question="which learning rate is best for each method?"),
    "tiny-rank": Study(f"{TINY} {LINES}", HALVES, (1, 2, 3, 4, 5),
                       {r: f"--rank {r} --alpha {2 * int(r)}" for r in ("8", "16", "64")}, page="which-half",
                       question="which half to share, at three ranks?"),
    "tiny-data": Study(f"{TINY} {LINES} --max-steps 375", (*FEW, OURS), (1, 2, 3),
                       {n: f"--samples-per-role {n}" for n in ("4", "16", "64")}, more=BEST, page="scarcity",
                       question="who is best with few lines?"),
    "tiny-roles": Study(f"{TINY} {LINES} --language en", FEW, (1, 2, 3),
                        {"2": "--role-subset 2 --batch-size 5", "2 in batches of 16": "--role-subset 2",
                         "6": "--role-subset 6"}, more=BEST, page="scarcity",
                        question="do more roles help each of them?"),

    # for a GPU
    "real": Study(REAL, THREE, (1, 2, 3), shots=(0, 4), page="seeds",
                  question="SmolLM2-135M, all roles, both splits, three epochs (wants a GPU)"),
    "zh": Study(CHINESE, THREE, (1, 2, 3), shots=(0, 4), page="seeds",
                question="Qwen2.5-0.5B, the Chinese roles, both splits, three epochs (wants a GPU)"),
}
