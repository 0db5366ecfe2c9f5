"""Training in the manner of Hugging Face scripts, without the library: padded batches, an accumulating loop, linear warm-up.

`fault` plants one fault; everything else is what a user writes.
"""

import contextlib

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset, DistributedSampler

PAD, IGNORE, VOCABULARY = 0, -100, 9


class Sentences(Dataset):
    def __len__(self):
        return 50

    def __getitem__(self, i):
        rng = torch.Generator().manual_seed(i)
        ids = torch.randint(1, VOCABULARY, (2 + i % 5,), generator=rng)
        return {"input_ids": ids, "labels": torch.roll(ids, 1)}


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 10)
        self.norm = nn.LayerNorm(10)
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Linear(10, VOCABULARY)

    def forward(self, input_ids, labels=None):
        return self.head(self.dropout(torch.tanh(self.norm(self.embedding(input_ids)))))


def collate(features):
    def pad(key, value):
        return nn.utils.rnn.pad_sequence([f[key] for f in features], batch_first=True, padding_value=value)

    return {"input_ids": pad("input_ids", PAD), "labels": pad("labels", IGNORE)}


class Accelerator:
    """What the library would do: prepare for several processes, and gather the passes of an update."""

    def __init__(self, steps):
        self.steps = steps
        self.processes = dist.get_world_size() if dist.is_initialized() else 1

    def prepare(self, model, loader):
        if self.processes > 1:
            model = DistributedDataParallel(model)
            sampler = DistributedSampler(loader.dataset)
            loader = DataLoader(loader.dataset, loader.batch_size, sampler=sampler, collate_fn=loader.collate_fn)
        return model, loader

    def reduce(self, value):
        if self.processes > 1:
            dist.all_reduce(value)
        return value

    def windows(self, loader, drop):
        window = []
        for batch in loader:
            window.append(batch)
            if len(window) == self.steps:
                yield window
                window = []
        if window and not drop:
            yield window

    def synchronised(self, model, last):
        return contextlib.nullcontext() if last or self.processes == 1 else model.no_sync()


def loss_of(logits, labels, tokens, fault, steps):
    total = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORE, reduction="sum")
    if fault == "mean of means":
        return total / (labels != IGNORE).sum() / steps
    if fault == "mean over padding":
        return total / labels.numel() / steps
    return total / tokens


def train(model, data, *, batch_size, accumulate=1, epochs=1, fault=None):
    accelerator = Accelerator(accumulate)
    loader = DataLoader(data, batch_size, shuffle=True, collate_fn=collate)
    decayed = [p for n, p in model.named_parameters() if "norm" not in n and "bias" not in n]
    spared = [p for n, p in model.named_parameters() if "norm" in n or "bias" in n]
    optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.01}, {"params": spared, "weight_decay": 0.0}])
    raw = model
    model, loader = accelerator.prepare(model, loader)
    total = epochs * -(-len(loader) // accumulate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda u: min(1.0, (u + 1) / 2) * max(0.0, 1 - u / total))
    for epoch in range(epochs):
        if hasattr(loader.sampler, "set_epoch"):
            loader.sampler.set_epoch(epoch)
        model.train()
        for window in accelerator.windows(loader, drop=fault == "window dropped before its passes"):
            count = accelerator.reduce(torch.stack([(b["labels"] != IGNORE).sum() for b in window]).sum())
            tokens = count / accelerator.processes
            for number, batch in enumerate(window, start=1):
                with accelerator.synchronised(model, number == len(window)):
                    loss_of(model(**batch), batch["labels"], tokens, fault, len(window)).backward()
                if fault == "scheduler every pass" and number < len(window):
                    schedule.step()
            if len(window) == accumulate or fault not in {"last window dropped", "last window left over"}:
                nn.utils.clip_grad_norm_(raw.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
            elif fault == "last window dropped":
                optimizer.zero_grad()
