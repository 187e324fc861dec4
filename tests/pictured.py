"""Pictures that are drawn, faces of a few strokes, and what scores and explains them without a network."""

import sys
from hashlib import sha256
from pathlib import Path
from random import Random

from PIL import Image, ImageDraw

from core.images import ImageRef
from core.uris import path_to_uri
from core.verdicts import Outcome, Status

#: In place of `model explain`, which needs a network: draws a red picture of each image, but for some.
EXPLAINER = """
import json, sys
from PIL import Image
images = sys.argv[2:sys.argv.index("--model")]
out, rows = sys.argv[sys.argv.index("--out") + 1], []
for number, image in enumerate(images):
    drawing = f"{out}/{number}.png"
    Image.new("RGB", (224, 224), "red").save(drawing)
    rows.append({"image": image, "p_real": 0.1, "label": "generated", "evidence_for": "generated", "drawing": drawing})
    if "bad" in image:
        rows[-1] = {"image": image, "error": "it is\\ntruncated"}
print(json.dumps(rows))
sys.exit(any("error" in row for row in rows))
"""


def draw_face(seed: int, width: int = 256, height: int = 256) -> Image.Image:
    """Draw a face on a background of its own."""
    chance = Random(seed)

    def colour(low: int, high: int) -> tuple[int, int, int]:
        return chance.randint(low, high), chance.randint(low, high), chance.randint(low, high)

    image = Image.linear_gradient("L").resize((width, height)).rotate(chance.choice((0, 90, 180, 270)))
    image = Image.merge("RGB", [image.point(lambda value, top=top: value * top // 255) for top in colour(60, 200)])
    pen = ImageDraw.Draw(image)
    left, top, right, bottom = (
        side * share // 100 for side, share in ((width, 22), (height, 14), (width, 78), (height, 92))
    )
    pen.ellipse((left, top - height // 20, right, bottom - height // 4), fill=colour(20, 90))  # hair
    pen.ellipse((left + width // 40, top + height // 12, right - width // 40, bottom), fill=colour(150, 240))
    for eye in (38, 62):
        x, y, size = width * eye // 100, height * chance.randint(46, 50) // 100, width // 22
        pen.ellipse((x - size, y - size * 2 // 3, x + size, y + size * 2 // 3), fill=(250, 250, 250))
        pen.ellipse((x - size // 2, y - size // 2, x + size // 2, y + size // 2), fill=colour(10, 90))
    mouth = (width * 40 // 100, height * 66 // 100, width * 60 // 100, height * chance.randint(73, 79) // 100)
    pen.chord(mouth, 0, 180, fill=(170, 50, 60))
    return image


def save_face(path: Path, seed: int, p_real: float) -> Outcome:
    """Draw a face into a file, and return the outcome of one that was scored."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = draw_face(seed)
    image.save(path, "JPEG", quality=85)
    return outcome_of(path, p_real, *image.size)


def outcome_of(path: Path, p_real: float, width: int = 256, height: int = 256) -> Outcome:
    """Return the outcome of a file that was scored."""
    content = path.read_bytes()
    ref = ImageRef(path_to_uri(str(path)), f"{len(content)}-1", len(content))
    return Outcome(ref, Status.OK, p_real, "", sha256(content).digest()[:16], width, height)


def make_explainer(folder: Path) -> tuple[str, ...]:
    """Return a command that does as ``model explain``: it draws red, and fails on files with "bad" in their paths."""
    script = folder / "explainer.py"
    script.write_text(EXPLAINER)
    return sys.executable, str(script)
