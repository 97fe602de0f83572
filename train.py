"""Training: a hand-written loop, from the command line to the scored run.

    python train.py                                              the demo: tiny backbone, tiny data, minutes on a CPU
    python train.py --config configs/tiny.json [--any-key value]
    python train.py --model FOLDER_OR_ID --data FOLDER_OR_ID --language en --out runs/mine
    python train.py --resume runs/mine [--epochs 6]              after a stop, or longer than planned
    torchrun --nproc_per_node 8 train.py --config ...            many GPUs; only adapter gradients are exchanged

What has which precision, and where it is decided:
    backbone: weights, activations              bf16 if the GPU has it, else fp32; frozen  config.resolve (--precision)
    A and B                                     the backbone's, made under autocast        HyperModel.active_roles
    trainable: weights, gradients, AdamW        fp32, torch's default                      HyperModel.__init__
    softmax and sums of the losses              fp32                                       losses.py
A step whose loss or gradient is not finite is skipped, and logged as such; three in a row end the run. With fp16 the
loss is scaled (GradScaler), and the first steps are often skipped while it finds its scale: there twenty end the run.

Eq. 7's set I is a micro-batch: `batch_size` samples of one process, however many of them a step accumulates. The
cross-entropy is divided by the supervised tokens of the whole step, so that 1 x 4 accumulated equals 4 x 1, and N
processes do what one does with N times the `grad_accum`, apart from rounding and from dropout, which each process
draws separately.
"""
from console import StopSignals, counted, one_line_errors

import math
import os
import sys
from contextlib import nullcontext

import torch
from tqdm import tqdm

from arguments import LONGER
from batches import Steps
from checkpoint import build, lengthen, load_checkpoint, read_run, reserved, rng_state, save_checkpoint
from eval import evaluate_before_after
from likelihood import lines_to_read
from losses import hyper_contrastive_loss, lambda_at, pool_response, response_cross_entropy, total_loss
from memory import GIB
from metrics_log import MetricsLog
from prepare import encode, load_data, read_arguments, run_folder
from processes import any_process, gather, join, leave, sum_over_processes, world
from report import describe_model
from selection import subsample
from watch import HeldOut, contrast_never_starts, expected_memory, too_few_steps


# --------------------------------------------------------------------------------------------------------- schedules
def lr_at(step, total, cfg):
    """Learning rate at a step: linear warm-up over warmup_ratio of the run, then a cosine to 0."""
    warmup = round(cfg.warmup_ratio * total)
    if step < warmup:
        return cfg.lr * (step + 1) / warmup
    angle = math.pi * (step - warmup) / max(1, total - warmup)           # from 0 to pi
    return cfg.lr * (1 + math.cos(angle)) / 2


def lambda_of_step(step, steps_per_epoch, total, model, cfg):
    """lambda of Eq. 8 at a step; 0 for a method without role embeddings, which has nothing to contrast."""
    if model.projections is None:
        return 0.0
    return lambda_at(step / steps_per_epoch, cfg.lambda_start_epoch, total / steps_per_epoch, cfg.lambda_min,
                     cfg.lambda_max, cfg.lambda_schedule)


# --------------------------------------------------------------------------------------------- the gradient of a step
def backward(model, batches, cfg, lam, scaler, supervised=None, num_micro_batches=None):
    """Accumulates the gradient of Eq. 6 over micro-batches. Returns their (ce, contrastive), detached.

    supervised, num_micro_batches: tokens and micro-batches of the whole step; default: those of `batches`.
    """
    supervised = supervised or sum(len(batch.targets) for batch in batches)
    num_micro_batches = num_micro_batches or len(batches)
    device = model.backbone.device
    stats = torch.zeros(2, device=device)
    for batch in batches:
        batch = batch.to(device)

        # not the paper's: e_t of Eq. 5 from another reading than the one that the cross-entropy is about
        other_hidden = None
        if lam and cfg.contrast_reader != "role":
            other_hidden = model.read_by(cfg.contrast_reader, batch.input_ids, batch.role_ids)

        with model.active_roles(batch.role_ids):          # backward in here too: recomputed blocks need their roles
            hidden = model.backbone.hidden_states(batch.input_ids).flatten(0, 1)           # (B * T, C)

            # cross-entropy of the responses, per supervised token of the whole step
            head = model.backbone.lm_head.weight
            ce = response_cross_entropy(hidden[batch.positions], head, batch.targets) / supervised

            # contrastive loss of this micro-batch
            contrastive = torch.zeros_like(ce)
            if lam:
                read = hidden if other_hidden is None else other_hidden
                e_t = pool_response(read, batch.pooled, batch.pooled_rows, len(batch.input_ids))
                roles = batch.role_ids.to(device, non_blocking=True)
                e_c = model.hyper.role_embedding(roles)                                    # (B, d_c)
                z_r, z_t = model.projections(e_c, e_t)                                     # (B, d_z) each
                contrastive = hyper_contrastive_loss(z_r, z_t, roles, cfg.tau, cfg.contrast_anchor) / num_micro_batches

            scaler.scale(total_loss(ce, contrastive, lam)).backward()
        stats = stats + torch.stack((ce, contrastive)).detach()
    return stats


# --------------------------------------------------------------------------------------------------------- the loop
def fit(model, steps, cfg, run, resume, held_out=None):
    """The loop. Returns True when all steps are done, False when a signal ended it (after a checkpoint).

    held_out: a watch.HeldOut, which reads test lines every few steps, if given.
    """
    device = model.backbone.device
    rank, processes = world()
    is_main = rank == 0

    # what trains; the projections have a gradient only in steps with a contrastive loss
    params = model.trainable()
    without_projections = [p for name, p in params.items() if not name.startswith("projections")]
    params = list(params.values())
    model.train()
    model.backbone.checkpoint_activations = cfg.checkpoint_activations
    if cfg.compile:
        model.backbone.compile_blocks()

    # the optimizer; the scaler is called once, so that it has a scale even in a process without a micro-batch
    optimizer = torch.optim.AdamW(params, lr=cfg.lr, weight_decay=cfg.weight_decay, fused=True)
    scaler = torch.amp.GradScaler(device.type, enabled=cfg.precision == "fp16")
    scaler.scale(torch.zeros((), device=device))

    # where to begin
    first = load_checkpoint(run, model, optimizer, scaler, rank, processes) if resume else 0
    done = first
    print(steps.describe() + (f", from step {first}" if first else ""))

    log = MetricsLog(run, first, writes=is_main, max_skipped=20 if scaler.is_enabled() else 3)
    bar = tqdm(range(first, steps.total), cfg.method, initial=first, total=steps.total, dynamic_ncols=True,
               disable=not is_main)

    with StopSignals() as stop_signals:
        for step in bar:
            data = steps[step]

            # learning rate, and lambda of Eq. 8
            lr = lr_at(step, steps.total, cfg)
            for group in optimizer.param_groups:
                group["lr"] = lr
            lam = lambda_of_step(step, steps.per_epoch, steps.total, model, cfg)

            # gradient of Eq. 6, over the micro-batches of all processes
            stats = backward(model, data.micro_batches, cfg, lam, scaler, data.supervised, data.num_micro_batches)
            stats = sum_over_processes(params if lam else without_projections, stats)

            # clip and step; fused AdamW changes nothing where `found_inf` is 1, so that the host need not wait to know
            # (it is GradScaler's attribute; in fp16 the scaler puts its own in place, from the gradients alone)
            scaler.unscale_(optimizer)
            grad_norm = torch.nn.utils.clip_grad_norm_(params, cfg.max_grad_norm)
            optimizer.found_inf = (~(stats.sum() + grad_norm).isfinite()).float()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            done = step + 1

            # stop? all processes have to agree at the same step
            log_now = done % cfg.log_every == 0
            stopping = False
            if log_now or processes == 1:
                stopping = any_process(bool(stop_signals), device)
            save_now = stopping or done % cfg.save_every == 0 or done == steps.total

            # log: numbers are fetched from the GPU only every few steps
            log.add({"step": step, "lambda": lam, "lr": lr, **data.counts}, data.rows, stats, grad_norm)
            if log_now or save_now:
                shown = log.flush()
                if held_out:
                    shown |= held_out.look(done)
                bar.set_postfix(shown)

                # save after the log: where that ends the run, after too many skipped steps, no checkpoint follows
                if save_now:
                    rng_states = gather(rng_state(device))
                    if is_main:
                        save_checkpoint(run, done, model, optimizer, scaler, rng_states)
                log.start_clock()                        # neither a look nor a checkpoint counts as training

            if stopping:
                break
    bar.close()
    return done == steps.total


# ------------------------------------------------------------------------------------- from command line to scores
def run_training(argv):
    """Everything from the command line to the scores."""
    cfg, resume = read_arguments(argv)
    is_main = world()[0] == 0
    torch.manual_seed(cfg.seed)

    # data, model, training examples
    samples, tests, roles, profiles = load_data(cfg)
    model, tokenizer = build(vars(cfg), len(roles), cfg.device)
    print(f"{cfg.method} on {cfg.model}: {counted(len(roles), 'role')}, {cfg.device}, {cfg.precision}")
    print(describe_model(model))
    examples = encode(samples, roles, profiles, tokenizer, cfg, model.backbone.config)
    steps = Steps(examples, cfg, tokenizer.eos_id, *world())         # raises its errors before a folder is made
    run = run_folder(cfg, resume, roles, profiles, examples, tokenizer.sample_prompt())

    # what to watch
    warnings = [too_few_steps(steps.total)]
    if model.projections is not None:
        warnings.append(contrast_never_starts(steps, cfg))
    for warning in filter(None, warnings):
        print(warning)
    held_out = None
    if tests and cfg.test_every and not cfg.compile and is_main:
        held_out = HeldOut(model, tokenizer, read_run(run), subsample(tests, cfg.score_limit), cfg.test_every, run)
    on_gpu = model.backbone.device.type == "cuda"
    if on_gpu and is_main:
        print(expected_memory(model, steps, cfg, backward))

    # training; the weights are made, and from here on each process has its own dropout
    torch.manual_seed(cfg.seed + world()[0])
    with reserved(run) if is_main else nullcontext():
        if resume and is_main:
            lengthen(run, {key: getattr(cfg, key) for key in LONGER}, steps.total)
        finished = fit(model, steps, cfg, run, resume, held_out)
        leave()

        # the held-out summary, and the scores
        if on_gpu:
            print(f"the peak was {torch.cuda.max_memory_allocated(model.backbone.device) / GIB:.1f} GiB")
            torch.cuda.empty_cache()                       # memory of training is free for scoring
        if held_out and held_out.summary():
            print(held_out.summary())
        if is_main and finished:
            to_read = subsample(tests, lines_to_read(vars(cfg)))
            save_and_score(model, tokenizer, run, roles, subsample(tests, cfg.score_limit), to_read)
    if not finished and is_main:
        print(f"stopped; go on with: python train.py --resume {run}")


def save_and_score(model, tokenizer, run, roles, tests, to_read):
    """Writes the adapter of a finished run and its scores: answers to `tests`, likelihood of `to_read` (test samples).
    OSError says how to continue.
    """
    advice = "its checkpoint is whole: go on with python train.py --resume"
    try:
        model.save(run)
        advice = "the run is whole: score it with python eval.py --run"
        if tests:
            evaluate_before_after(model.eval(), tokenizer, run, tests, to_read)
    except OSError as error:
        raise OSError(f"{error}; {advice} {run}") from None
    print(f"\nwrote {run}; talk with: python chat.py --run {run} --role \"{next(iter(roles))}\"")


def main():
    """Runs the training; bad input ends it with one line and exit code 1."""
    try:
        with one_line_errors("train.py"):                  # in the loop, Ctrl-C ends with a checkpoint instead
            join()
            run_training(sys.argv[1:])
    except SystemExit as stop:
        # bad input is the same for every process of a machine, and its first one prints it; memory is not
        if os.environ.get("LOCAL_RANK", "0") == "0" or "out of memory" in str(stop.code):
            raise
        sys.exit(1)


if __name__ == "__main__":
    main()
