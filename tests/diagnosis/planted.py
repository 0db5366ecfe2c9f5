"""Three loops in public styles, and which findings each planted fault must turn into faults; nothing else may be one."""

from functools import partial

from loops import accelerate_style, imagenet_style, nanogpt_style

from gengap.diagnosis.loop import Loop

LOOPS = {
    "imagenet": (imagenet_style, imagenet_style.make_model, imagenet_style.make_data),
    "nanogpt": (nanogpt_style, nanogpt_style.TinyGPT, nanogpt_style.Blocks),
    "accelerate": (accelerate_style, accelerate_style.Tagger, accelerate_style.Sentences),
}
ONE_PROCESS = {
    ("imagenet", "sum"): {"loss reduction"},
    ("imagenet", "not accumulated"): {"accumulation"},
    ("imagenet", "ragged"): {"last window"},
    ("imagenet", "drop_last"): {"samples of an epoch"},
    ("imagenet", "unshuffled"): {"order of samples"},
    ("imagenet", "eval"): {"training mode"},
    ("imagenet", "frozen norm"): {"batch-norm mode"},
    ("imagenet", "train mode in validation"): {"batch-norm mode"},
    ("imagenet", "validation with gradients"): set(),
    ("imagenet", "decay"): {"weight decay"},
    ("imagenet", "forgotten layer"): {"parameters of the optimizer"},
    ("imagenet", "frozen"): {"parameters of the optimizer"},
    ("imagenet", "scheduler first"): {"scheduler steps"},
    ("imagenet", "constant lr"): {"learning-rate rule"},
    ("nanogpt", "undivided"): {"accumulation"},
    ("nanogpt", "lr per pass"): {"learning rate per update"},
    ("nanogpt", "clip every pass"): {"gradient clipping"},
    ("nanogpt", "clip scaled"): {"gradient clipping"},
    ("nanogpt", "past the scaler"): {"loss scaling", "gradient clipping"},
    ("nanogpt", "no zero_grad"): {"cleared gradients"},
    ("accelerate", "mean of means"): {"accumulation", "last window"},
    ("accelerate", "mean over padding"): {"loss reduction"},
    ("accelerate", "last window dropped"): {"last window"},
    ("accelerate", "last window left over"): {"last window"},
    ("accelerate", "window dropped before its passes"): {"last window"},
    ("accelerate", "scheduler every pass"): {"scheduler steps", "learning rate per update"},
}
TWO_PROCESSES = {
    ("imagenet", None): set(),
    ("imagenet", "no sampler"): {"samples of processes"},
    ("imagenet", "no set_epoch"): {"order of processes"},
    ("imagenet", "no DDP"): {"gradient of processes"},
    ("imagenet", "same seed"): {"random numbers of processes"},
    ("imagenet", "lr without ranks"): {"learning rate of processes"},
    ("nanogpt", None): set(),
    ("nanogpt", "same batches"): {"samples of processes", "random numbers of processes"},
    ("nanogpt", "never synchronised"): {"gradient of processes"},
    ("nanogpt", "early sync"): {"gradient of processes"},
    ("nanogpt", "added by hand"): {"gradient of processes"},
    ("nanogpt", "own weights"): {"gradient of processes", "random numbers of processes"},
    ("accelerate", None): set(),
}
RULES = {"imagenet": "linear", "nanogpt": "constant", "accelerate": "constant"}


def loop(style, fault):
    module, model, data = LOOPS[style]
    return Loop(partial(module.train, fault=fault), model, data)
