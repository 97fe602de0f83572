"""The code for a GPU, on a GPU that is not there (fake_cuda.py): devices, dtypes, waits, and the number of kernels."""
import json
import random
import shutil
from unittest.mock import patch

import pytest
import torch
from conftest import ROOT, records
from safetensors.torch import load_file, save_file

import benchmarks.decode
import benchmarks.parity
import benchmarks.train_step
import hycora_layer
import train
from batches import Steps
from benchmarks.counted import SHAPES
from benchmarks.fake_cuda import fake_cuda, why_not
from checkpoint import DTYPES
from config import Config
from data import Example
from generate import Decoding, generate
from hycora_layer import METHODS, AdapterConfig, HyperModel
from model import ModelConfig, Transformer

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))

SIZES = dict(num_roles=3, rank=4, alpha=8, role_dim=8, layer_dim=8, hidden_dim=16, num_blocks=1, head_rank=4)
TINY = dict(model_type="llama", vocab_size=97, hidden_size=48, intermediate_size=80, num_hidden_layers=1, num_attention_heads=6,
            num_key_value_heads=2, max_position_embeddings=128)
ONE_BLOCK = {"num_hidden_layers": 1, "num_layers": 1}
MAY_WAIT = "metrics_log.py:"                             # the log, once in many steps


def model_on_gpu(method="hycora", precision="bf16", shape=TINY, targets=("q_proj", "down_proj")):
    """A Hyper Model as `checkpoint.build` makes it, without a file; inside fake_cuda. targets: () for all linears."""
    with torch.device("cuda"):
        backbone = Transformer(ModelConfig.from_hf(shape)).to(DTYPES[precision])
    return HyperModel(backbone, AdapterConfig(**SIZES, method=method, target_modules=targets))


def train_one_step(model, run, precision="bf16", checkpoint=False):
    """One step of two micro-batches of mixed roles, by `train.fit` itself."""
    examples = [Example(list(range(5, 25 + i)), 6, i % 3) for i in range(8)]
    cfg = Config(batch_size=4, grad_accum=2, max_steps=1, precision=precision, checkpoint_activations=checkpoint,
                 lambda_min=0.1, lambda_start_epoch=0.0)
    with patch.object(train, "save_checkpoint"):
        train.fit(model, Steps(examples, cfg, 0), cfg, run, resume=False)


def misplaced(model, precision):
    """What lies on the wrong device or in the wrong dtype."""
    wrong = [f"{name} is on the CPU" for name, t in [*model.named_parameters(), *model.named_buffers()] if not t.is_cuda]
    wrong += [f"{name} trains in {p.dtype}" for name, p in model.trainable().items() if p.dtype != torch.float32]
    wrong += [f"{name} is {p.dtype}" for name, p in model.named_parameters() if not p.requires_grad and p.dtype != DTYPES[precision]]
    if model.backbone.frequencies.dtype != torch.float32:
        wrong.append("the rotary frequencies are rounded")
    return wrong


def problems(gpu, model, run, precision="bf16", checkpoint=False, answers=True):
    """What a training step, and the generation of three tokens, do that a GPU would not forgive, or would wait for, as texts."""
    wrong = misplaced(model, precision)
    try:
        gpu.forget()
        train_one_step(model, run, precision, checkpoint)
        wrong += [f"the step waits at {place}: {what}" for place, what in gpu.waits if not place.startswith(MAY_WAIT)]
        step = gpu.products.copy()

        if answers:
            gpu.forget()
            decoding = Decoding(3, temperature=0.7, top_k=40, top_p=0.9, repetition_penalty=1.1)
            generate(model.eval(), [[5, 6, 7], [8]], [0, 2], {3}, decoding)
            if sum(gpu.waits.values()) != 3:
                wrong.append(f"{sum(gpu.waits.values())} waits for three tokens: {dict(gpu.waits)}")
    except RuntimeError as error:                        # what torch itself refuses
        return [*wrong, str(error)]

    half = str(DTYPES[precision]).removeprefix("torch.")
    for (direction, *dtypes), n in (step + gpu.products).items():
        if len(dtypes) > 1 or dtypes[0] not in (half, "float32"):
            wrong.append(f"{n} {direction} products of {dtypes}")
    if not any(direction == "backward" for direction, *_ in step):
        wrong.append("no product ran in autograd's thread for the GPU")
    return wrong + [f"a tensor of the CPU meets one of the GPU at {place}: {what}" for place, what in gpu.strays]


@pytest.mark.parametrize("checkpoint", [False, True], ids=["", "checkpointed"])
@pytest.mark.parametrize("precision", DTYPES)
@pytest.mark.parametrize("method", METHODS)
def test_a_step_and_a_generation(method, precision, checkpoint, tmp_path):
    with fake_cuda() as gpu:
        assert problems(gpu, model_on_gpu(method, precision), tmp_path, precision, checkpoint, answers=not checkpoint) == []


@pytest.mark.parametrize("shape", SHAPES)
def test_the_shapes_of_the_paper(shape, tmp_path):
    with fake_cuda() as gpu:
        assert problems(gpu, model_on_gpu(shape=SHAPES[shape] | ONE_BLOCK, targets=()), tmp_path, checkpoint=True) == []


# ------------------------------------------------------------------------------------------------------ whole commands
@pytest.fixture(scope="module")
def one_block(tmp_path_factory):
    """The embedded backbone, cut to its first block."""
    folder = tmp_path_factory.mktemp("model") / "backbone"
    shutil.copytree(ROOT / "tiny/backbone", folder)
    tensors = {}
    for path in folder.glob("*.safetensors"):
        tensors |= load_file(path)
        path.unlink()
    save_file({k: t for k, t in tensors.items() if ".layers." not in k or ".layers.0." in k}, folder / "model.safetensors")
    for index in folder.glob("*.index.json"):
        index.unlink()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1}))
    return folder


def test_a_run_from_the_command_line_to_the_scores_and_resumed(one_block, tmp_path, capsys):
    """The host waits for the log, the checkpoints and the scores, and once a token: nowhere else."""
    run = tmp_path / "run"
    args = ["--config", "configs/tiny.json", "--model", one_block, "--out", run, "--device", "cuda", "--test-every", "2"]
    args += ["--role-dim", "8", "--layer-dim", "8", "--hidden-dim", "16", "--batch-size", "4", "--grad-accum", "2", "--max-steps", "3"]
    args += ["--log-every", "2", "--save-every", "2", "--lambda-start-epoch", "0", "--score-limit", "1", "--max-new-tokens", "2"]
    with fake_cuda() as gpu:
        train.run_training(list(map(str, args)))
        (run / "adapter.safetensors").unlink()
        for path in run.glob("checkpoint/00000003.*"):
            path.unlink()
        train.run_training(["--resume", str(run)])

    places = {place.split(":")[0] for place, _ in gpu.waits}
    once = {"config.py", "hyper.py"}                     # is there such a device; the hyper-network's init
    assert places <= {"checkpoint.py", "metrics_log.py", "files.py", "generate.py", "eval.py", "likelihood.py", *once}, gpu.waits
    assert not gpu.strays
    assert json.loads((run / "config.json").read_text())["gpu"] == "no GPU"
    printed = capsys.readouterr().out
    assert "GPU memory of a step: " in printed and "the peak was 1.0 GiB" in printed and "from step 2" in printed
    lines = records(run / "metrics.jsonl")
    assert [line["step"] for line in lines] == [0, 1, 2]


@pytest.mark.parametrize("command", ["train_step", "decode"])
def test_the_benchmarks(command, monkeypatch, capsys):
    """This project's side of both, as they are run on a GPU."""
    shape = benchmarks.train_step.SHAPES["toy"] | {"num_hidden_layers": 1}
    config = ModelConfig.from_hf(shape | {"model_type": "llama"})
    with fake_cuda() as gpu:
        if command == "train_step":
            ours = benchmarks.train_step.Ours("hycora", config, torch.bfloat16, "cuda", checkpoint=True)
            gpu.forget()
            ours.step(benchmarks.train_step.rows_of("half", 2, 16, 100, random.Random(0)))
            assert not gpu.waits
        else:
            monkeypatch.setattr(benchmarks.decode, "NEW", 2)
            for answer in benchmarks.decode.ours(config, torch.bfloat16, "cuda", compiled=False).values():
                answer([[5, 6, 7], [8, 9, 10]])
    assert not gpu.strays


# ------------------------------------------------------------------------------------------------- how many are launched
KERNELS = {"hycora": (1211, 58), "lora": (485, 58), "ind-lora": (653, 58), "neeko": (758, 58), "rsp-a-rsp-b": (1589, 58),
           "mrs-a-rsp-b": (1211, 58), "ind-a-mrs-b": (569, 58)}


@pytest.mark.parametrize("method", METHODS)
def test_no_more_kernels_than_recorded(method, tmp_path):
    """(a training step of two micro-batches, one more token of an answer); a change that launches a tenth more has to say why."""
    with fake_cuda() as gpu:
        model = model_on_gpu(method, targets=())
        gpu.forget()
        train_one_step(model, tmp_path)
        step = sum(gpu.kernels.values())
        counts = []
        for tokens in (2, 3):
            gpu.forget()
            generate(model.eval(), [[5, 6, 7], [8]], [0, 2], {3}, Decoding(tokens))
            counts.append(sum(gpu.kernels.values()))
    token = counts[1] - counts[0]
    most_step, most_token = KERNELS[method]
    assert step <= 1.1 * most_step and token <= 1.1 * most_token, (step, token)


# --------------------------------------------------------------------------------------------------- what has to be caught
def role_ids_on_the_cpu(monkeypatch, model):
    init = hycora_layer.ActiveRoles.__init__

    def left_behind(self, role_ids, *more):
        init(self, role_ids, *more)
        self.roles = torch.as_tensor(role_ids).unique()
    monkeypatch.setattr(hycora_layer.ActiveRoles, "__init__", left_behind)


def lora_matrices_in_fp32(monkeypatch, model):
    monkeypatch.setattr(type(model.backbone), "dtype", torch.float32)


def item_in_the_step(monkeypatch, model):
    loss = train.total_loss
    monkeypatch.setattr(train, "total_loss", lambda ce, contrastive, lam: loss(ce, contrastive, lam) if ce.item() else ce)


def boolean_indexing(monkeypatch, model):
    cross_entropy = train.response_cross_entropy
    monkeypatch.setattr(train, "response_cross_entropy", lambda h, head, targets: cross_entropy(h[targets > 0], head, targets))


def frequencies_on_the_cpu(monkeypatch, model):
    model.backbone.frequencies = torch.ones(model.backbone.frequencies.shape, device="cpu")


MUTATIONS = [role_ids_on_the_cpu, lora_matrices_in_fp32, item_in_the_step, boolean_indexing, frequencies_on_the_cpu]


@pytest.mark.parametrize("mutate", MUTATIONS, ids=lambda f: f.__name__)
def test_a_mistake_is_seen(mutate, tmp_path, monkeypatch):
    with fake_cuda() as gpu:
        model = model_on_gpu()
        mutate(monkeypatch, model)
        assert problems(gpu, model, tmp_path) != []


def test_the_parity_command_compares_a_device_with_the_cpu(monkeypatch, capsys):
    """Here the CPU with itself, one method; and what it says of a device that computes something else."""
    monkeypatch.setattr(benchmarks.parity, "METHODS", ["hycora"])
    monkeypatch.setattr("sys.argv", ["parity", "--device", "cpu"])
    with pytest.raises(SystemExit) as ended:
        benchmarks.parity.main()
    assert not ended.value.code and "parity ok" in capsys.readouterr().out
    assert benchmarks.parity.difference(torch.tensor([1.0, -4.0]), torch.tensor([1.0, -4.2])) == pytest.approx(0.05)
