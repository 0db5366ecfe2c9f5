"""The data sets."""

from collections.abc import Mapping

from gengap.core.catalogue.entries import Data

DIGIT, IMAGE, LARGE_IMAGE = (1, 28, 28), (3, 32, 32), (3, 224, 224)
GAUSSIAN = "Smith & Le 2018, arXiv:1710.06451, fig. 1"
CIFAR = "Krizhevsky 2009"


def gaussian(builder: str, figure: str, note: str) -> Data:
    """Enter a task of Smith & Le."""
    return Data(
        f"gengap.data.synthetic:{builder}",
        200,
        10_000,
        (200,),
        2,
        "logistic",
        f"{GAUSSIAN}{figure}",
        loss="binary_cross_entropy",
        small=10,
        large="100%",
        epochs=100,
        note=note,
    )


DATA: Mapping[str, Data] = {
    "digits": Data(
        "gengap.data.digits:load",
        1_000,
        797,
        (1, 8, 8),
        10,
        "convnet",
        "Alpaydin & Kaynak 1998, in scikit-learn; embedded",
        small=32,
        large="100%",
        epochs=60,
    ),
    "mnist": Data("gengap.data.idx:mnist", 60_000, 10_000, DIGIT, 10, "keskar-f1", "LeCun et al. 1998", "MNIST/raw"),
    "mnist-autoencoder": Data(
        "gengap.data.idx:mnist_autoencoder",
        60_000,
        10_000,
        DIGIT,
        784,
        "smith2020-autoencoder",
        "LeCun et al. 1998",
        "MNIST/raw",
        loss="mean_square",
        note="the target is the image",
        obtain="its files are those of mnist: `gengap data fetch mnist`",
    ),
    "fashion-mnist": Data(
        "gengap.data.idx:fashion_mnist", 60_000, 10_000, DIGIT, 10, "keskar-f1", "Xiao et al. 2017", "FashionMNIST/raw"
    ),
    "cifar-10": Data("gengap.data.cifar:cifar10", 50_000, 10_000, IMAGE, 10, "keskar-c1", CIFAR, "cifar-10-batches-py"),
    "cifar-100": Data("gengap.data.cifar:cifar100", 50_000, 10_000, IMAGE, 100, "keskar-c3", CIFAR, "cifar-100-python"),
    "imagenet": Data(
        "gengap.data.imagefolder:imagenet",
        1_281_167,
        50_000,
        LARGE_IMAGE,
        1000,
        "goyal-resnet50",
        "Russakovsky et al. 2015, arXiv:1409.0575",
        "imagenet",
        large=8192,
        epochs=90,
        note="streamed; crops and flips",
        obtain="register at image-net.org, and unpack to train/CLASS/*.JPEG and val/CLASS/*.JPEG",
    ),
    "image-folder": Data(
        "gengap.data.imagefolder:image_folder",
        0,
        0,
        LARGE_IMAGE,
        0,
        "goyal-resnet50",
        "your own",
        "images",
        note="streamed; crops and flips",
        obtain="put your images there as train/CLASS/*.jpg and val/CLASS/*.jpg",
    ),
    "timit": Data(
        "gengap.data.kaldi:timit",
        721_329,
        310_621,
        (360,),
        1973,
        "keskar-f2",
        "Garofolo et al. 1993, LDC93S1",
        "timit",
        note="frames; sizes are those of Keskar et al.",
        obtain="it is licensed (LDC93S1): make features and alignments with a Kaldi recipe",
    ),
    "spoken-digits": Data(
        "gengap.data.speech:spoken_digits",
        90_085,
        35_152,
        (360,),
        100,
        "keskar-f2",
        "Jackson et al. 2018, doi:10.5281/zenodo.1342401",
        "fsdd",
        note="frames; a public set of the form of TIMIT, not TIMIT",
        obtain="put the recordings of the Free Spoken Digit Dataset there, as recordings.zip or as the folder recordings",
    ),
    "penn-treebank": Data(
        "gengap.data.text:penn_treebank",
        26_559,
        2_355,
        (35,),
        10_000,
        "lstm-small",
        "Marcus et al. 1993; Mikolov et al. 2010",
        "ptb",
        small=32,
        note="a sample is a window of 35 words",
        obtain="put Mikolov's ptb.train.txt, ptb.valid.txt and ptb.test.txt there",
        tokens=True,
    ),
    "text": Data(
        "gengap.data.text:characters",
        0,
        0,
        (64,),
        0,
        "transformer-small",
        "your own",
        "text",
        small=32,
        note="a sample is a window of 64 characters",
        obtain="put one text file there, UTF-8, named input.txt, or name another with the option file",
        tokens=True,
    ),
    "gaussian-informative": gaussian("informative", "b", "the label can be learnt"),
    "gaussian-random": gaussian("random_labels", "a", "the label is a coin"),
}
