"""The networks, by source."""

from collections.abc import Mapping

from gengap.core.catalogue.entries import Network

KESKAR = "Keskar et al. 2017, arXiv:1609.04836"
HOFFER = "Hoffer et al. 2017, arXiv:1705.08741"
SMITH_LE = "Smith & Le 2018, arXiv:1710.06451"
SMITH = "Smith, Elsen & De 2020, arXiv:2006.15081"
ZAREMBA = "Zaremba et al. 2014, arXiv:1409.2329"
AS_CODED = "form of the authors' code"
STRIDED = "stride 2 in the convolutions, as printed"
NO_INNER_DROPOUT = "no dropout inside the stacks, as printed"
POOLED_FIRST = "pools before it normalises, as coded"
IMAGE, DIGIT, WINDOW = (3, 32, 32), (1, 28, 28), (35,)


def keskar(builder: str, shape: tuple[int, ...], classes: int, weights: int, note: str = "") -> Network:
    """Enter a network of Keskar et al."""
    return Network(f"gengap.nets.keskar2017:{builder}", shape, classes, weights, KESKAR, note)


def hoffer(builder: str, shape: tuple[int, ...], classes: int, weights: int, note: str = "") -> Network:
    """Enter a network of Hoffer et al."""
    return Network(f"gengap.nets.hoffer2017:{builder}", shape, classes, weights, HOFFER, note)


def smith(builder: str, shape: tuple[int, ...], classes: int, weights: int, note: str = "") -> Network:
    """Enter a network of Smith, Elsen & De."""
    return Network(f"gengap.nets.smith2020:{builder}", shape, classes, weights, SMITH, note)


def language(builder: str, weights: int, source: str, note: str) -> Network:
    """Enter a language model with a vocabulary of 10,000 words."""
    return Network(f"gengap.nets.language:{builder}", WINDOW, 10_000, weights, source, note, tokens=True)


NETWORKS: Mapping[str, Network] = {
    "mlp": Network("gengap.nets.digits:mlp", (1, 8, 8), 10, 17_226, "gengap", "64-128-64-10 with ReLU"),
    "convnet": Network(
        "gengap.nets.digits:convnet", (1, 8, 8), 10, 26_090, "gengap", "3x3 convolutions 16-32-64 with batch norm"
    ),
    "smith-le-mlp": Network("gengap.nets.smith_le2018:mlp", DIGIT, 10, 636_010, SMITH_LE, "784-800-10"),
    "logistic": Network(
        "gengap.nets.smith_le2018:logistic", (200,), 2, 201, SMITH_LE, "one output, its sign is the class"
    ),
    "keskar-f1": keskar("f1", DIGIT, 10, 1_462_794),
    "keskar-f2": keskar("f2", (360,), 1973, 2_780_085),
    "keskar-c1": keskar("c1", IMAGE, 10, 1_757_834, AS_CODED),
    "keskar-c2": keskar("c2", IMAGE, 10, 14_991_946, AS_CODED),
    "keskar-c3": keskar("c3", IMAGE, 100, 1_775_204, AS_CODED),
    "keskar-c4": keskar("c4", IMAGE, 100, 15_038_116, AS_CODED),
    "keskar-c1-literal": keskar("c1_literal", IMAGE, 10, 283_274, STRIDED),
    "keskar-c3-literal": keskar("c3_literal", IMAGE, 100, 300_644, STRIDED),
    "keskar-c2-literal": keskar("c2_literal", IMAGE, 10, 14_991_946, NO_INNER_DROPOUT),
    "keskar-c4-literal": keskar("c4_literal", IMAGE, 100, 15_038_116, NO_INNER_DROPOUT),
    "keskar-vgg11": keskar("vgg11", IMAGE, 10, 28_149_514, "of the authors' PyTorch port, not in the paper"),
    "hoffer-f1": hoffer("f1", DIGIT, 10, 1_462_794, "F1 with torch's initial weights, as coded"),
    "hoffer-c1": hoffer("c1", IMAGE, 10, 1_388_490, POOLED_FIRST),
    "hoffer-c3": hoffer("c3", IMAGE, 100, 1_405_860, POOLED_FIRST),
    "hoffer-resnet44": hoffer("resnet44", IMAGE, 10, 661_338, "projected shortcuts, as coded"),
    "hoffer-vgg": hoffer("vgg", IMAGE, 10, 14_991_946, "layout of C2, no dropout inside the stacks"),
    "hoffer-vgg-one-linear": hoffer("vgg_one_linear", IMAGE, 10, 14_728_266, "without the dense layer of 512"),
    "hoffer-wresnet16-4": hoffer("wresnet16_4", IMAGE, 100, 2_800_804, "first convolution 64 wide, as coded"),
    "hoffer-alexnet": hoffer("alexnet", (3, 224, 224), 1000, 61_110_184, "one-weird-trick layout with batch norm"),
    "smith2020-wrn16-4": smith("wrn16_4", IMAGE, 10, 2_748_890, "canonical WRN-16-4, batch norm"),
    "smith2020-skipinit": smith("wrn16_4_skip_init", IMAGE, 10, 2_747_536, "WRN-16-4 without batch norm"),
    "smith2020-skipinit-no-bias": smith(
        "wrn16_4_skip_init_without_bias", IMAGE, 10, 2_745_280, "the same, convolutions without bias"
    ),
    "smith2020-autoencoder": smith("autoencoder", DIGIT, 784, 2_837_314, "784-1000-500-250-30 and back; mean_square"),
    "smith2020-autoencoder-logits": smith(
        "autoencoder_logits", DIGIT, 784, 2_837_314, "the same for binary_cross_entropy"
    ),
    "goyal-resnet50": Network(
        "gengap.nets.goyal2017:resnet50",
        (3, 224, 224),
        1000,
        25_557_032,
        "Goyal et al. 2017, arXiv:1706.02677",
        "blocks begin as their shortcuts",
    ),
    "lstm-small": language("lstm_small", 4_651_600, ZAREMBA, "2x200, no dropout"),
    "lstm-medium": language("lstm_medium", 19_775_200, ZAREMBA, "2x650, dropout 0.5"),
    "lstm-large": language("lstm_large", 66_022_000, ZAREMBA, "2x1500, dropout 0.65"),
    "transformer-small": language("transformer_small", 2_077_824, "gengap", "4 blocks of 128, tied embedding"),
    "transformer-medium": language(
        "transformer_medium", 14_500_992, "gengap", "6 blocks of 384, tied embedding, dropout 0.1"
    ),
}
