"""Many processes: what torchrun starts, one per GPU. Without torchrun there is one, and nothing here does anything.

Each process holds the whole model and trains on its share of a step's micro-batches. Only gradients are exchanged.
"""
import os
import sys

import torch
import torch.distributed as dist


def join():
    """Joins the processes that torchrun started, if it did. Only the first of them prints.

    ValueError if some of torchrun's variables are there and others are not.
    """
    if "RANK" not in os.environ or dist.is_initialized():
        return
    missing = [name for name in ("LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise ValueError(f"RANK is set, but {', '.join(missing)} not: start with torchrun, or unset RANK")
    # the tensors' device decides which of the two carries a message: --device cpu is possible on a machine with GPUs
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    if dist.get_rank() > 0:
        sys.stdout = open(os.devnull, "w")


def leave():
    """Ends the connection to the other processes, once all of them have reached this point.

    A process that left early would close its sockets while another may still read from them.
    """
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def world():
    """(this process's rank, number of processes): (0, 1) without torchrun."""
    if not dist.is_initialized():
        return 0, 1
    return dist.get_rank(), dist.get_world_size()


def sum_over_processes(params, stats):
    """Adds up the gradients of `params` and the step's losses over all processes, in one message.

    Only parameters that have a gradient this step belong here: to AdamW a gradient of zeros is not the same as none.
    """
    if world()[1] == 1:
        return stats
    parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in params] + [stats]
    flat = torch.cat([part.flatten().float() for part in parts])
    dist.all_reduce(flat)
    *grads, stats = flat.split([part.numel() for part in parts])
    for p, grad in zip(params, grads):
        p.grad = grad.view_as(p)
    return stats


def any_process(flag, device):
    """Whether `flag` is true in any process. All have to call it at the same step."""
    if world()[1] == 1:
        return flag
    votes = torch.tensor([float(flag)], device=device)
    dist.all_reduce(votes)
    return votes.item() > 0


def gather(value):
    """The value of every process, in the order of their ranks."""
    values = [value] * world()[1]
    if dist.is_initialized():
        dist.all_gather_object(values, value)
    return values
