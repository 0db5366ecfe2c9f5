"""One of several processes that share batch norm; run as `span_ranks.py FOLDER RANK WORLD`, says what it found in JSON."""

import copy
import json
import sys
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn

from gengap.core.errors import BadInput
from gengap.nets.norm_conversion import average_statistics, convert_span_batch_norm, last_batch_statistics

SHAPES = {"vectors": (4,), "rows": (4, 5), "images": (3, 2, 4), "channels last": (3, 2, 4), "volumes": (2, 2, 1, 3)}
SIZES = {2: [5, 3], 3: [4, 1, 6]}
EMPTY = {2: [6, 0], 3: [3, 0, 4]}
SPANS = {2: ["all", 1, "rank", 2], 3: ["all", 2, 7]}
LAYERS = (nn.BatchNorm1d, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
STEPS = 2


def layer(shape, momentum=0.1):
    """A layer with weights, biases and running statistics that are not those it begins with."""
    made = LAYERS[len(shape) - 1](shape[0], momentum=momentum).double()
    rng = torch.Generator().manual_seed(7)
    for tensor in (made.weight, made.bias, made.running_mean, made.running_var):
        tensor.data.copy_(torch.rand(shape[0], generator=rng, dtype=torch.float64) + 0.5)
    return made


def joint_batch(kind, sizes, step):
    """Inputs and the gradient of the outputs, of all ranks."""
    rng = torch.Generator().manual_seed(step)
    x, dy = (torch.randn(sum(sizes), *SHAPES[kind], generator=rng, dtype=torch.float64) for _ in range(2))
    if kind == "channels last":
        x, dy = (t.contiguous(memory_format=torch.channels_last) for t in (x, dy))
    return 3 + 2 * x, dy


def passes(norm, kind, sizes, mine):
    """Go forward and backward on some of the samples; give everything there is to compare."""
    found = []
    for step in range(STEPS):
        x, dy = (t[mine] for t in joint_batch(kind, sizes, step))
        x = x.clone().requires_grad_()
        norm.zero_grad()
        y = norm(x)
        y.backward(dy)
        found.append({"y": y, "dx": x.grad, "dw": norm.weight.grad, "db": norm.bias.grad})
    found.append(dict(norm.named_buffers()))
    return [{name: t.tolist() for name, t in each.items()} for each in found]


def slice_of(rank, sizes):
    return slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.ReLU(inplace=True), nn.Linear(5, 2)).double()


def trained(model, samples):
    """Two steps on the mean squared output, gradients averaged over ranks; gives all weights and running statistics."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(STEPS):
        x = torch.randn(12, 3, generator=torch.Generator().manual_seed(step), dtype=torch.float64)[samples]
        optimizer.zero_grad()
        model(x).square().mean().backward()
        for p in model.parameters() if dist.is_initialized() else ():
            dist.all_reduce(p.grad)
            p.grad /= dist.get_world_size()
        optimizer.step()
    return torch.cat([t.double().flatten() for t in model.state_dict().values()]).tolist()


def refused(rank):
    """All ranks together have one value per channel."""
    norm = convert_span_batch_norm(nn.BatchNorm1d(2).double(), "all")
    try:
        norm(torch.ones(1 if rank == 0 else 0, 2, dtype=torch.float64))
    except BadInput as error:
        return str(error)


def last_batches(rank, world):
    """Statistics of the last batch of every rank, averaged."""
    model = last_batch_statistics(nn.Sequential(nn.BatchNorm1d(2)).double())
    for step in range(STEPS):
        model(joint_batch("vectors", [6] * world, step)[0][6 * rank : 6 * rank + 6, :2])
    average_statistics(model)
    return [model[0].running_mean.tolist(), model[0].running_var.tolist()]


def main(folder, rank, world):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world, timeout=timedelta(seconds=60)
    )
    found = {"last": last_batches(rank, world), "refused": refused(rank)}
    for sizes_name, sizes in (("uneven", SIZES[world]), ("empty", EMPTY[world])):
        for kind in SHAPES:
            for span in SPANS[world] if sizes_name == "uneven" else ["all"]:
                for momentum in (0.1, None):
                    norm = copy.deepcopy(convert_span_batch_norm(layer(SHAPES[kind], momentum), span))
                    key = f"{sizes_name} {kind} {span} {momentum}"
                    found[key] = passes(norm, kind, sizes, slice_of(rank, sizes))
    share = 12 // world
    found["trained"] = trained(convert_span_batch_norm(network(), "all"), slice(rank * share, (rank + 1) * share))
    print(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
