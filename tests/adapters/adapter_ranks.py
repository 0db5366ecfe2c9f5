"""One of two processes that train together with an adapter; run as `adapter_ranks.py PACKAGE FOLDER`, writes what it found."""

import json
import os
import sys
import warnings
from pathlib import Path

import torch
import torch.nn.functional as F
from adapter_networks import BATCH, LR, PASSES, flat, loader, network, rows
from torch.utils.data import DataLoader, DistributedSampler

RANK_SAMPLES, RANK_EPOCHS, REFERENCE = 64, 3, 2 * BATCH * PASSES  # the batch is the reference: lr stays


def lightning(folder):
    from test_lightning_adapter import LrScalingCallback, NoiseScaleCallback, Steady, fitted

    module, noise, scaling = (
        Steady(),
        NoiseScaleCallback(every=3, max_overhead=1.0),
        LrScalingCallback("sqrt", reference_batch=REFERENCE),
    )
    data = loader(RANK_SAMPLES).dataset
    in_turn = DistributedSampler(data, 2, int(os.environ["RANK"]), shuffle=False)  # Lightning's own shuffles
    given = {"devices": 2, "strategy": "ddp", "max_epochs": RANK_EPOCHS}
    fitted(module, [noise, scaling], batches=DataLoader(data, BATCH, sampler=in_turn), **given)
    return noise.monitor, module, scaling.change


def transformers(folder):
    from test_transformers_adapter import LrScalingCallback, Model, NoiseScaleCallback, trainer_of

    scaling = LrScalingCallback("sqrt", reference_batch=REFERENCE)
    given = {"num_train_epochs": RANK_EPOCHS, "ddp_backend": "gloo", "max_grad_norm": 1000.0}
    trainer = trainer_of(Model(), folder, [scaling], RANK_SAMPLES, **given)
    noise = NoiseScaleCallback(trainer, every=3, max_overhead=1.0)
    trainer.add_callback(noise)
    trainer.train()
    return noise.monitor, trainer.model, scaling.change


def accelerate(folder):
    from accelerate import Accelerator

    from gengap.adapters.accelerate import NoiseScaleLogger, prepare_large_batch
    from gengap.adapters.lr_scaling import LrScaling

    accelerator, model = Accelerator(cpu=True, gradient_accumulation_steps=PASSES), network()
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    model, optimizer, batches = accelerator.prepare(model, optimizer, loader(RANK_SAMPLES))
    scaling = LrScaling("sqrt", REFERENCE)
    change = prepare_large_batch(accelerator, model, optimizer, batch_size=BATCH, scaling=scaling)
    noise = NoiseScaleLogger(accelerator, model, every=3, max_overhead=1.0)
    for _ in range(RANK_EPOCHS):
        for x, y in batches:
            with accelerator.accumulate(model):
                accelerator.backward(F.cross_entropy(model(x), y))
                noise.after_backward(x)
                optimizer.step()
                optimizer.zero_grad()
    return noise.monitor, model, change


def main(package, folder):
    torch.set_num_threads(1)
    monitor, model, change = {"lightning": lightning, "transformers": transformers, "accelerate": accelerate}[package](
        folder
    )
    found = {"rows": rows(monitor), "weights": flat(model), "batch": change.batch, "new": change.new}
    (Path(folder) / f"{os.environ['RANK']}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(sys.argv[1], sys.argv[2])
