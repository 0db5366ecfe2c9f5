"""Training in the manner of nanoGPT: random blocks of text, micro-steps, hand-written cosine schedule, scaler, clipping, DDP.

`fault` plants one fault; everything else is what a user writes.
"""

import math

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Dataset

VOCABULARY, BLOCK, WIDTH = 11, 6, 12
MAX_LR, WARMUP = 1e-3, 1


class Blocks(Dataset):
    def __init__(self):
        self.text = torch.randint(VOCABULARY, (90,), generator=torch.Generator().manual_seed(2))

    def __len__(self):
        return len(self.text) - BLOCK

    def __getitem__(self, i):
        return self.text[i : i + BLOCK], self.text[i + 1 : i + 1 + BLOCK]


class TinyGPT(nn.Module):
    def __init__(self):
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, WIDTH)
        self.places = nn.Embedding(BLOCK, WIDTH)
        self.norm = nn.LayerNorm(WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.head = nn.Linear(WIDTH, VOCABULARY)

    def forward(self, idx, targets):
        x = self.tokens(idx) + self.places(torch.arange(idx.shape[1]))
        q, k, v = self.qkv(self.norm(x)).split(WIDTH, dim=2)
        p = 0.1 if self.training else 0.0
        x = x + F.scaled_dot_product_attention(q, k, v, dropout_p=p, is_causal=True)
        logits = self.head(x)
        return logits, F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def make_optimizer(model):
    decayed = [p for p in model.parameters() if p.dim() >= 2]
    spared = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": spared, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=MAX_LR, betas=(0.9, 0.95))


def get_lr(it, max_iters):
    if it < WARMUP:
        return MAX_LR * (it + 1) / (WARMUP + 1)
    ratio = (it - WARMUP) / max(1, max_iters - WARMUP)
    return 0.1 * MAX_LR + 0.45 * MAX_LR * (1 + math.cos(math.pi * ratio))


def get_batch(data, batch_size):
    ix = torch.randint(len(data), (batch_size,))
    x, y = zip(*(data[i] for i in ix), strict=True)
    return torch.stack(x), torch.stack(y)


def train(model, data, *, batch_size, accumulate=1, epochs=1, fault=None):  # noqa: C901 - nanoGPT's form
    ddp = dist.is_initialized()
    rank, ranks = (dist.get_rank(), dist.get_world_size()) if ddp else (0, 1)
    torch.manual_seed(1337 + (0 if fault == "same batches" else rank))
    max_iters = -(-epochs * len(data) // (batch_size * accumulate * ranks))
    optimizer = make_optimizer(model)
    scaler = torch.amp.GradScaler("cpu", enabled=True)
    raw, by_hand = model, fault in {"added by hand", "own weights"}
    if fault == "own weights":
        for p in raw.parameters():
            p.data += 0.1 * rank
    if ddp and not by_hand:
        model = DistributedDataParallel(model)
    model.train()
    passes = 0
    x, y = get_batch(data, batch_size)
    for it in range(max_iters):
        lr = get_lr(passes if fault == "lr per pass" else it, max_iters)
        for group in optimizer.param_groups:
            group["lr"] = lr
        for micro_step in range(accumulate):
            if ddp and not by_hand:
                last = micro_step == accumulate - 1
                model.require_backward_grad_sync = last and fault != "never synchronised"
                if fault == "early sync":
                    model.require_backward_grad_sync = micro_step == 0
            with torch.autocast("cpu", dtype=torch.bfloat16):
                _, loss = model(x, y)
                loss = loss if fault == "undivided" else loss / accumulate
            x, y = get_batch(data, batch_size)  # prefetched while the device is at work
            scaler.scale(loss).backward()
            passes += 1
            if fault == "clip every pass":
                nn.utils.clip_grad_norm_(raw.parameters(), 1.0)
        if by_hand and ddp:
            for p in raw.parameters():
                dist.all_reduce(p.grad)
                p.grad /= ranks if fault == "own weights" else 1
        update(raw, optimizer, scaler, fault)


def update(raw, optimizer, scaler, fault):
    if fault not in {"clip scaled", "past the scaler"}:
        scaler.unscale_(optimizer)
    nn.utils.clip_grad_norm_(raw.parameters(), 1.0)
    if fault == "past the scaler":
        optimizer.step()
    else:
        scaler.step(optimizer)
        scaler.update()
    if fault != "no zero_grad":
        optimizer.zero_grad(set_to_none=True)
