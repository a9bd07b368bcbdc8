"""Compose the image at the top of README.md from what `dalle sample` writes.

dalle sample - --recipe glide --out out/front < docs/images/front.txt | python docs/front_image.py docs/images/front.jpg
"""

import json
import sys
import textwrap
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

COLUMNS, CELL, CAPTION = 6, 160, 34  # pixels


def compose(rows: list[dict], out: Path) -> None:
    """Write a grid of the images of `rows` (`path`, `prompt`), each above its prompt."""
    lines = -(-len(rows) // COLUMNS)
    page = Image.new("RGB", (COLUMNS * CELL, lines * (CELL + CAPTION)), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(12)
    for i, row in enumerate(rows):
        left, top = i % COLUMNS * CELL, i // COLUMNS * (CELL + CAPTION)
        with Image.open(row["path"]) as image:
            page.paste(image.convert("RGB").resize((CELL - 8, CELL - 8), Image.Resampling.LANCZOS), (left + 4, top))
        text = "\n".join(textwrap.wrap(row["prompt"], 24))
        pen.multiline_text((left + CELL // 2, top + CELL - 4), text, "#333", font, anchor="ma", align="center")
    page.save(out, quality=90)


if __name__ == "__main__":
    compose([json.loads(line) for line in sys.stdin], Path(sys.argv[1]))
