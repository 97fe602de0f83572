"""Eq. 4 and the Hyper Model: every method, mixed roles, peft as oracle, what is saved."""
import copy
import dataclasses
import inspect

import pytest
import torch
from conftest import randomise, small_backbone
from safetensors.torch import load_file, save_file
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from generate import Decoding, generate
from hycora_layer import METHODS, AdapterConfig, HyperModel, dropout
from hyper import HyperNetwork

DIMS = dict(num_roles=4, rank=4, alpha=8, role_dim=8, layer_dim=8, hidden_dim=16, head_rank=4)


def hyper_model(method, backbone=None, **changes):
    return HyperModel(backbone or small_backbone(), AdapterConfig(**DIMS | dict(method=method) | changes)).eval()


def test_a_backbone_is_adapted_once():
    """A second model would freeze the first one's A and B."""
    with pytest.raises(ValueError, match="adapted already"):
        hyper_model("lora", hyper_model("hycora").backbone)


def test_methods_and_sizes_are_the_papers_and_the_authors():
    """The paper's methods, by the sources of A and B; the sizes of the authors' code for 7B backbones, in both places where they stand."""
    assert METHODS == {"hycora": ("hyper", "shared"), "lora": ("shared", "shared"), "ind-lora": ("role", "role"), "neeko": ("gated", "gated"),
                       "rsp-a-rsp-b": ("hyper", "hyper"), "mrs-a-rsp-b": ("shared", "hyper"),
                       "ind-a-mrs-b": ("role", "shared")}                # the last is ours
    config = AdapterConfig()
    assert dataclasses.asdict(config) == dict(method="hycora", num_roles=1, rank=8, alpha=32.0, adapter_dropout=0.1, target_modules=(), role_dim=128,
                                              layer_dim=128, hidden_dim=512, num_blocks=2, head_rank=32, norm_input=True, norm_output=True)
    for name, parameter in inspect.signature(HyperNetwork).parameters.items():
        if parameter.default is not parameter.empty:
            assert parameter.default == getattr(config, name), name
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.rank = 4


@pytest.mark.parametrize("method", METHODS)
def test_at_step_zero_the_output_is_the_backbones_bit_for_bit(method, backbone):
    ids = torch.randint(97, (4, 20))
    plain = backbone(ids)
    model = hyper_model(method, backbone, adapter_dropout=0.5)
    assert torch.equal(model(ids, torch.tensor([0, 1, 2, 1])), plain)
    assert torch.equal(model.train()(ids, torch.tensor([0, 1, 2, 1])), plain)                # dropout is for A alone


@pytest.mark.parametrize("method", METHODS)
def test_mixed_batch_equals_role_by_role_in_training(method):
    """Logits and gradients, in training mode without dropout."""
    model = randomise(hyper_model(method, adapter_dropout=0.0), 0.05).train()
    ids, roles = torch.randint(97, (5, 18)), torch.tensor([2, 0, 3, 2, 1])
    mixed = model(ids, roles)
    single = torch.cat([model(ids[b:b + 1], roles[b:b + 1]) for b in range(5)])
    torch.testing.assert_close(mixed, single, rtol=1e-4, atol=1e-5)
    if method != "lora":                                # roles really differ
        assert (model(ids[:1], roles[:1]) - model(ids[:1], roles[1:2])).abs().max() > 1e-3
    names, parameters = zip(*((n, p) for n, p in model.trainable().items() if not n.startswith("projections")))
    for name, a, b in zip(names, *(torch.autograd.grad(out.square().mean(), parameters) for out in (mixed, single))):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("method", METHODS)
def test_mixed_batch_equals_role_by_role_in_generation(method):
    model = randomise(hyper_model(method), 0.1).double()                 # where rounding decides nothing
    prompts = [torch.randint(97, (n,)).tolist() for n in (9, 4, 12, 4, 7)]
    roles, decoding = [2, 0, 3, 2, 1], Decoding(16, temperature=0.8)
    alone = [generate(model, [p], [r], {5}, decoding, [b])[0] for b, (p, r) in enumerate(zip(prompts, roles))]
    assert generate(model, prompts, roles, {5}, decoding, range(5)) == alone


CHATGLM = dict(model_type="chatglm", padded_vocab_size=97, ffn_hidden_size=80, num_layers=3, multi_query_attention=True,
               multi_query_group_num=2, kv_channels=8, seq_length=128, layernorm_epsilon=1e-6, add_qkv_bias=True)


def test_chatglm2_is_adapted_on_its_four_fused_linears_and_mixes_roles_in_a_batch():
    backbone = small_backbone(**CHATGLM)
    ids, roles = torch.randint(97, (4, 18)), torch.tensor([2, 0, 3, 2])
    plain = backbone(ids)
    model = hyper_model("hycora", backbone)
    assert torch.equal(model(ids, roles), plain)
    assert {k: len(v) for k, v in model.adapted.items()} == dict.fromkeys(
        ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"), 3)
    with torch.no_grad():
        for p in model.trainable().values():
            p.add_(torch.randn_like(p) * 0.05)
    torch.testing.assert_close(model(ids, roles), torch.cat([model(ids[b:b + 1], roles[b:b + 1]) for b in range(4)]),
                               rtol=1e-4, atol=1e-5)
    prompts = [ids[b, :5 + 3 * b].tolist() for b in range(4)]
    alone = [generate(model, [p], [r], {-5}, Decoding(12))[0] for p, r in zip(prompts, roles.tolist())]
    assert generate(model, prompts, roles, {-5}, Decoding(12)) == alone


def test_a_response_is_read_by_the_next_role_or_by_none():
    model, ids, roles = randomise(hyper_model("hycora"), 0.05), torch.randint(97, (3, 9)), torch.tensor([2, 3, 0])
    with torch.no_grad(), model.active_roles(torch.tensor([3, 0, 1])):
        by_others = model.backbone.hidden_states(ids).flatten(0, 1)
    assert torch.equal(model.read_by("other", ids, roles), by_others) and not model.read_by("other", ids, roles).requires_grad
    by_none = model.backbone.hidden_states(ids).flatten(0, 1)
    assert torch.equal(model.read_by("backbone", ids, roles), by_none) and not torch.allclose(by_none, by_others)


def test_equation_four_by_hand():
    model = randomise(hyper_model("hycora"), 0.05)
    linear, x = model.adapted["down_proj"][1], torch.randn(2, 7, 80)
    roles = torch.tensor([3, 1])
    made = model.hyper(roles)["down_proj"]["A"]
    with model.active_roles(roles):
        out = linear(x)
    for b in range(2):
        W = linear.base.weight + DIMS["alpha"] / DIMS["rank"] * linear.B @ made[b, 1]
        torch.testing.assert_close(out[b], x[b] @ W.t(), rtol=1e-4, atol=1e-5)
    assert torch.equal(linear(x), linear.base(x))       # no role is active any more

    # in training, with dropout before A
    ones = torch.ones(2, 700, 80)
    linear.train().dropout = 0.5
    with model.active_roles(roles), torch.no_grad():
        added = linear(ones) - linear.base(ones)
    for b in range(2):                                                   # half of the inputs, doubled: the mean stays, and tokens differ
        W = (DIMS["alpha"] / DIMS["rank"] * linear.B @ made[b, 1]).detach()
        torch.testing.assert_close(added[b].mean(0), W.sum(1), rtol=0, atol=6 * (W.square().sum(1).max() / 700).sqrt().item())
        assert (added[b].var(0) / W.square().sum(1)).median().item() == pytest.approx(1, abs=0.3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.97])
def test_dropout_is_dropout(p, dtype):
    """By its statistics: F.dropout draws other masks. And the gradient is that of F.dropout's formula."""
    x = torch.rand(3, 1001, 67, dtype=dtype).add_(1).requires_grad_()
    y = dropout(x, p, True)
    kept = y != 0
    scale = torch.tensor(1 / (1 - p), dtype=dtype)
    torch.testing.assert_close(y, kept * x * scale)
    (grad,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(grad, kept * scale.expand(x.shape))

    # the share that is kept, also among those that share a random integer, and pairs of neighbours
    share = kept.double().flatten()
    sigma = (p * (1 - p) / len(share)) ** 0.5
    assert abs(share.mean() - (1 - p)) < 6 * sigma
    for i in range(4):
        assert abs(share[i::4].mean() - (1 - p)) < 12 * sigma
        assert abs((share[i:-1:4] * share[i + 1::4][:len(share[i:-1:4])]).mean() - (1 - p) ** 2) < 24 * sigma

    # the same seed, the same mask; nothing without training or without p
    torch.manual_seed(3)
    first = dropout(x, p, True)
    assert not torch.equal(first, dropout(x, p, True))
    torch.manual_seed(3)
    assert torch.equal(first, dropout(x, p, True))
    assert dropout(x, p, False) is x or torch.equal(dropout(x, p, False), x)
    assert torch.equal(dropout(x, 0.0, True), x)


def test_the_recomputation_of_a_block_ends_before_its_largest_product():
    """In training W_0 x is the last product of a linear and keeps nothing, so activation checkpointing does not make it again."""
    factors = []

    class Products(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func.overloadpacket.__name__ in ("mm", "addmm", "addmm_"):
                factors.append(tuple(args[-1].shape))
            return func(*args, **kwargs or {})
    model = hyper_model("hycora").train()
    linear, x = model.adapted["down_proj"][0], torch.randn(2, 7, 80, requires_grad=True)
    with model.active_roles(torch.tensor([1, 1])), Products():
        checkpoint(linear, x, use_reentrant=False).sum().backward()
    forward, backward = (80, 48), (48, 80)                               # W_0 transposed, and W_0
    assert factors.count(forward) == factors.count(backward) == 1 and factors.count((80, 4)) == 2        # A x is made again, for the gradient of B


@pytest.mark.parametrize("method", METHODS)
def test_a_blend_of_roles_uses_the_blended_embeddings(method):
    """One-hot weights are the role itself; a mixture is what the mixed rows of every table of roles make."""
    model = randomise(hyper_model(method), 0.05)
    ids, roles = torch.randint(97, (3, 18)), torch.tensor([2, 0, 3])
    with torch.no_grad():
        torch.testing.assert_close(model(ids, torch.eye(4)[roles]), model(ids, roles), rtol=1e-4, atol=1e-5)
        weights = torch.tensor([[0.3, 0.0, 0.7, 0.0]])
        mixed = model(ids[:1], weights)
        tables = [m.role_embedding.weight for m in [model.hyper] if m is not None]
        tables += [getattr(linear, factor) for linears in model.adapted.values() for linear in linears
                   for factor, source in model.sources.items() if source == "role"]
        tables += [model.gate_inputs] if method == "neeko" else []
        for table in tables:
            table[1] = 0.3 * table[0] + 0.7 * table[2]
        torch.testing.assert_close(mixed, model(ids[:1], torch.tensor([1])), rtol=1e-4, atol=1e-5)


def test_the_hypernetwork_runs_once_per_forward_for_the_distinct_roles():
    model, calls = hyper_model("hycora"), []
    model.hyper.register_forward_hook(lambda m, inputs, out: calls.append(inputs[0].tolist()))
    model(torch.randint(97, (5, 6)), torch.tensor([2, 0, 2, 2, 0]))
    assert calls == [[0, 2]]


@pytest.mark.parametrize("method", METHODS)
def test_who_gets_a_gradient_when(method):
    """Step 0: only what makes B, since B = 0. After one update: everything but the contrastive projections."""
    model = hyper_model(method)
    ids, roles = torch.randint(97, (4, 20)), torch.arange(4)
    optimizer = torch.optim.SGD(model.trainable().values(), lr=1.0)
    for step in range(3):
        optimizer.zero_grad()
        model(ids, roles).square().mean().backward()
        moving = {n for n, p in model.trainable().items() if p.grad is not None and p.grad.abs().max() > 0}
        if step == 0 and METHODS[method][1] != "hyper":
            assert moving and all(n.endswith(".B") for n in moving)
        optimizer.step()
    assert moving == {n for n in model.trainable() if not n.startswith("projections")}


@pytest.mark.parametrize("method", METHODS)
def test_saved_keys_are_the_trainable_set_and_come_back(method, tmp_path):
    model = randomise(hyper_model(method), 0.05)
    frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {n for n, _ in model.named_parameters() if ".base." in n or n.startswith("backbone.lm_head")
                      or n.startswith("backbone.model.") and not n.endswith((".A", ".B", ".gate"))}
    model.save(tmp_path)
    assert load_file(tmp_path / "adapter.safetensors").keys() == model.trainable().keys()
    plain = copy.deepcopy(model.backbone)
    for kinds in ("self_attn", "mlp"):
        for block in plain.layers:
            part = getattr(block, kinds)
            for name, linear in list(part.named_children()):
                setattr(part, name, linear.base)
    fresh = hyper_model(method, plain).load(tmp_path)
    ids, roles = torch.randint(97, (3, 16)), torch.tensor([1, 0, 3])
    assert torch.equal(fresh(ids, roles), model(ids, roles))


def test_a_foreign_or_broken_file_is_refused(tmp_path):
    hyper_model("lora").save(tmp_path)
    with pytest.raises(ValueError, match="another model"):
        hyper_model("hycora").load(tmp_path)
    with pytest.raises(ValueError, match="another model"):
        hyper_model("lora", rank=8).load(tmp_path)
    path = tmp_path / "adapter.safetensors"
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(ValueError, match="broken"):
        hyper_model("lora").load(tmp_path)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        hyper_model("lora").load(tmp_path)
    save_file({}, path)
    with pytest.raises(ValueError, match="another model"):
        hyper_model("lora").load(tmp_path)


def test_the_error_says_how_many_tensors_differ_and_names_one(tmp_path):
    model = hyper_model("lora")
    state = {name: p.detach().clone() for name, p in model.trainable().items()}
    first, second, *_ = sorted(state)
    for wrong in ({first: state[first].half(), second: state[second].half()}, {first: state[first].T, second: state[second][:1]}):
        with pytest.raises(ValueError, match=f"here belongs to another model: 2 tensors differ in name, shape or type, such as {first}$"):
            model.load_trainable(state | wrong, "here")


def test_init_of_the_factors_and_of_neekos_gates():
    """A and the gate uniform within 1 / sqrt(width of what they read), B zero; the vectors of the roles have length 1 and are always the same."""
    model = hyper_model("neeko", num_roles=5)
    for linear in model.adapted_linears():
        d_in = linear.base.in_features
        assert linear.A.shape == (5, 4, d_in) and 0.95 < linear.A.abs().max() * d_in ** 0.5 <= 1 and linear.A.mean().abs() < 0.1 / d_in ** 0.5
        assert not linear.B.any() and linear.gate.shape == (5, 1024)
        assert 0.95 < linear.gate.abs().max() * 32 <= 1 and linear.gate.mean().abs() < 0.1 / 32
    assert "gate_inputs" not in model.state_dict()
    expected = torch.randn(5, 1024, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model.gate_inputs, expected / expected.norm(dim=1, keepdim=True))         # a saved adapter's gates were trained on these


def test_an_error_inside_leaves_no_role_active():
    model = hyper_model("hycora")
    with pytest.raises(ZeroDivisionError), model.active_roles(torch.tensor([1])):
        assert all(linear.lora_weights is not None for linear in model.adapted_linears())
        raise ZeroDivisionError
    assert all(linear.lora_weights is None for linear in model.adapted_linears())


def test_unknown_method_and_target():
    with pytest.raises(ValueError, match="hycora"):
        hyper_model("adapter-fusion")
    with pytest.raises(ValueError, match="qkv"):
        hyper_model("lora", target_modules=("q_proj", "qkv"))
    assert set(hyper_model("lora", target_modules=("q_proj", "v_proj")).adapted) == {"q_proj", "v_proj"}


@pytest.mark.parametrize("role_ids, shown", [([0, -1], "-1, 0"), ([1, 4], "1, 4")])
def test_a_role_that_is_not_there_is_named(role_ids, shown):
    """An index of -1 would have been the last role."""
    with pytest.raises(ValueError, match=rf"role ids \[{shown}\]: the model has 4 roles"):
        hyper_model("hycora")(torch.zeros(2, 3, dtype=torch.long), torch.tensor(role_ids))


def test_a_line_in_the_table_is_a_method(monkeypatch, tmp_path):
    """The README's recipe: a B of each role's own beside a shared A, without a hyper-network."""
    monkeypatch.setitem(METHODS, "mrs-a-ind-b", ("shared", "role"))
    test_mixed_batch_equals_role_by_role_in_training("mrs-a-ind-b")
    test_a_blend_of_roles_uses_the_blended_embeddings("mrs-a-ind-b")
    test_who_gets_a_gradient_when("mrs-a-ind-b")
    test_saved_keys_are_the_trainable_set_and_come_back("mrs-a-ind-b", tmp_path)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_backbone_trains_fp32_adapters_under_its_own_autocast(dtype):
    model = hyper_model("hycora", small_backbone().to(dtype))
    assert {p.dtype for p in model.trainable().values()} == {torch.float32}
    generated = []
    model.hyper.register_forward_hook(lambda module, roles, made: generated.append(made["q_proj"]["A"].dtype))
    logits = model(torch.randint(97, (2, 16)), torch.tensor([0, 1]))
    assert logits.dtype == dtype and generated == [dtype]
    logits.float().square().mean().backward()
    assert model.adapted["q_proj"][0].B.grad.dtype == torch.float32
    assert not torch.is_autocast_enabled("cpu")


def test_a_hyper_source_forced_to_a_constant_is_shared_lora():
    backbone = small_backbone()
    lora = randomise(hyper_model("lora", copy.deepcopy(backbone)), 0.05)
    hycora = hyper_model("hycora", backbone)
    made = {kind: {"A": torch.stack([linear.A for linear in linears]).expand(2, -1, -1, -1)} for kind, linears in lora.adapted.items()}
    hycora.hyper.forward = lambda roles: made
    for kind, linears in hycora.adapted.items():
        for mine, theirs in zip(linears, lora.adapted[kind]):
            mine.B.data, mine.base = theirs.B.data, theirs.base
    hycora.backbone = lora_free(hycora.backbone, lora.backbone)
    ids, roles = torch.randint(97, (2, 16)), torch.tensor([0, 3])
    torch.testing.assert_close(hycora(ids, roles), lora(ids, roles))


def lora_free(mine, theirs):
    """`mine` with the norms, embedding and head of `theirs` (randomise has moved them)."""
    state = {k: v for k, v in theirs.state_dict().items() if not k.endswith((".A", ".B"))}
    mine.load_state_dict(state, strict=False)
    return mine


def test_neeko_is_the_gated_sum_of_its_blocks():
    model = randomise(hyper_model("neeko"), 0.05)
    linear, x, roles = model.adapted["down_proj"][1], torch.randn(3, 7, 80), torch.tensor([3, 1, 3])
    with model.active_roles(roles):
        out = linear(x)
    for b, role in enumerate(roles):
        gate = (linear.gate @ model.gate_inputs[role]).softmax(0)
        branch = sum(gate[e] * linear.B[e] @ linear.A[e] @ x[b].t() for e in range(4)).t()
        torch.testing.assert_close(out[b], linear.base(x[b]) + DIMS["alpha"] / DIMS["rank"] * branch, rtol=1e-4, atol=1e-5)


def test_neeko_with_a_one_hot_gate_is_independent_lora():
    neeko = randomise(hyper_model("neeko"), 0.05)
    ids, roles = torch.randint(97, (3, 16)), torch.tensor([2, 0, 1])
    with torch.no_grad():
        for linear in (linear for linears in neeko.adapted.values() for linear in linears):
            linear.gate.copy_(1e4 * neeko.gate_inputs)
    out = neeko(ids, roles)
    neeko.config = dataclasses.replace(neeko.config, method="ind-lora")     # the same blocks, each role its own
    torch.testing.assert_close(neeko(ids, roles), out, rtol=1e-4, atol=1e-5)


# -------------------------------------------------------------------------------------------------- peft as oracle
def hf_pair(tmp_path):
    """The same random backbone in transformers and here."""
    transformers = pytest.importorskip("transformers")
    from conftest import SMALL

    from model import Transformer
    theirs = randomise(transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**SMALL))).eval()
    theirs.save_pretrained(tmp_path)
    return theirs, Transformer.from_pretrained(tmp_path)


def peft_model(theirs, names):
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=4, lora_alpha=8, lora_dropout=0.0, task_type="CAUSAL_LM", target_modules="all-linear")
    model = peft.get_peft_model(theirs, config, adapter_name=names[0])
    for name in names[1:]:
        model.add_adapter(name, config)
    return model


def paired(model, theirs, adapter, role=None):
    """[(our parameter (of a role), peft's)] for A and B of every adapted linear."""
    pairs = []
    for name, module in model.backbone.named_modules():
        if hasattr(module, "lora_weights"):
            other = theirs.base_model.model.get_submodule(name)
            for factor, lora in (("A", other.lora_A), ("B", other.lora_B)):
                own = getattr(module, factor)
                pairs.append((own if role is None else own.data[role], lora[adapter].weight))
    return pairs


def test_shared_lora_is_pefts_lora_in_forward_gradient_and_training(tmp_path):
    theirs, backbone = hf_pair(tmp_path)
    theirs = peft_model(theirs, ["shared"]).double()
    ours = hyper_model("lora", backbone.double(), adapter_dropout=0.0).double()
    pairs = paired(ours, theirs, "shared")
    assert len(pairs) == 3 * 7 * 2
    with torch.no_grad():
        for mine, other in pairs:
            mine.copy_(torch.randn_like(mine) * 0.05)
            other.copy_(mine)
    trained = [p for _, p in pairs]
    # theirs has norms and angles in fp32 even here; this eps keeps Adam from blowing such differences up
    optimizers = [torch.optim.AdamW(params, lr=1e-2, eps=1e-3) for params in (ours.trainable().values(), trained)]
    for _ in range(4):
        ids = torch.randint(97, (3, 20))
        a, b = ours(ids, torch.tensor([0, 2, 1])), theirs(ids).logits
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
        for optimizer, logits in zip(optimizers, (a, b)):
            optimizer.zero_grad()
            logits.log_softmax(-1).square().mean().backward()
        for mine, other in pairs:
            torch.testing.assert_close(mine.grad, other.grad, rtol=1e-3, atol=1e-6)
        for optimizer in optimizers:
            optimizer.step()
    for mine, other in pairs:
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)


def test_independent_lora_is_pefts_adapters_chosen_per_sample(tmp_path):
    theirs, backbone = hf_pair(tmp_path)
    names = ["r0", "r1", "r2", "r3"]
    theirs, ours = peft_model(theirs, names).eval(), hyper_model("ind-lora", backbone, adapter_dropout=0.0)
    with torch.no_grad():
        for role, name in enumerate(names):
            for mine, other in paired(ours, theirs, name, role):
                mine.copy_(torch.randn_like(mine) * 0.05)
                other.copy_(mine)
    ids, roles = torch.randint(97, (5, 20)), torch.tensor([2, 0, 3, 2, 1])
    with torch.no_grad():
        expected = theirs(ids, adapter_names=[names[r] for r in roles]).logits
        torch.testing.assert_close(ours(ids, roles), expected, rtol=1e-4, atol=1e-5)
