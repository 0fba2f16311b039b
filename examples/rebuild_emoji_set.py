"""Rebuild the emoji cross-style set from npm packages: one class is an emoji, one image is it in one design.

    cd node && npm install --ignore-scripts emoji-datasource @iconify-json/{noto,noto-v1,fxemoji} \\
        @iconify-json/{fluent-emoji,fluent-emoji-flat,fluent-emoji-high-contrast}
    pip install resvg-py pillow
    python examples/rebuild_emoji_set.py node/node_modules emoji_styles_96.npz
    TF_DETREG_DATA=. tf-detreg ablate studies/emoji-heads.toml

By default only permissively licensed designs (Apache-2.0, MIT) are taken; `--all-licenses` adds those with attribution
or share-alike terms (CC-BY, CC-BY-SA), if their packages are installed. The numbers in `docs/results.md` come from a
set of 16 styles; one of fewer styles has fewer images a class and gives other numbers.
"""

import argparse
import io
import json
import pathlib
import re

import numpy as np

# style: (package, design family, license)
STYLES = {
    "noto": ("noto", "noto", "Apache-2.0"),
    "noto-v1": ("noto-v1", "noto-v1", "Apache-2.0"),
    "fxemoji": ("fxemoji", "fxemoji", "Apache-2.0"),
    "fluent-emoji": ("fluent-emoji", "fluent", "MIT"),
    "fluent-emoji-flat": ("fluent-emoji-flat", "fluent", "MIT"),
    "fluent-emoji-high-contrast": ("fluent-emoji-high-contrast", "fluent", "MIT"),
    "twemoji": ("twemoji", "twemoji", "CC-BY-4.0"),
    "emojione": ("emojione", "emojione", "CC-BY-4.0"),
    "emojione-monotone": ("emojione-monotone", "emojione", "CC-BY-4.0"),
    "streamline-emojis": ("streamline-emojis", "streamline", "CC-BY-4.0"),
    "openmoji": ("openmoji", "openmoji", "CC-BY-SA-4.0"),
    "emojione-v1": ("emojione-v1", "emojione", "CC-BY-SA-4.0"),
}
PERMISSIVE = ("Apache-2.0", "MIT")
SKIN_TONES = {"1f3fb", "1f3fc", "1f3fd", "1f3fe", "1f3ff"}


def code_of(text: str) -> str:
    """Code points in lower case without the variation selector: `263A-FE0F` → `263a`."""
    return "-".join(part for part in re.split(r"[-_ ]", text.lower()) if part != "fe0f")


def name_of(text: str) -> str:
    """A name in one spelling: `Sun with Face` and `sun_with_face` → `sun-with-face`."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def emojis(folder: pathlib.Path) -> dict[str, dict]:
    """What is known of each emoji, by its code: English name, group, subgroup. No flags, no skin tones."""
    entries = json.loads((folder / "emoji-datasource" / "emoji.json").read_text(encoding="utf-8"))
    return {
        code_of(entry["unified"]): {
            "code": code_of(entry["unified"]),
            "label": entry["name"].lower(),
            "name": entry["short_name"].replace("_", " "),
            "group": entry["category"],
            "subgroup": entry["subcategory"],
        }
        for entry in entries
        if entry["category"] not in ("Flags", "Component")
        and not set(code_of(entry["unified"]).split("-")) & SKIN_TONES
    }


def drawings(package: pathlib.Path, known: dict[str, dict]) -> dict[str, str]:
    """SVG text by emoji code, from one Iconify package: by its table of code points, else by name."""
    icons = json.loads((package / "icons.json").read_text(encoding="utf-8"))
    table = package / "chars.json"
    names = {code_of(code): name for code, name in json.loads(table.read_text()).items()} if table.is_file() else {}
    by_name = {name_of(name): name for name in icons["icons"]}
    found = {}
    for code, entry in known.items():
        name = names.get(code) or by_name.get(name_of(entry["label"])) or by_name.get(name_of(entry["name"]))
        if name in icons["icons"]:
            icon = icons["icons"][name]
            width, height = (icon.get(side, icons.get(side, 16)) for side in ("width", "height"))
            left, top = icon.get("left", icons.get("left", 0)), icon.get("top", icons.get("top", 0))
            found[code] = (
                f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
                f'viewBox="{left} {top} {width} {height}" width="{width}" height="{height}">{icon["body"]}</svg>'
            )
    return found


def render(svg: str, size: int) -> bytes:
    """A palette PNG of size × size, the drawing centered on white with a small margin."""
    import resvg_py
    from PIL import Image

    drawn = Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg, width=4 * size)))).convert("RGBA")
    box = drawn.getbbox()
    if box is None:
        raise ValueError("nothing was drawn")
    drawn = drawn.crop(box)
    drawn.thumbnail((size - 8, size - 8), Image.Resampling.LANCZOS)
    page = Image.new("RGBA", (size, size), "white")
    page.alpha_composite(drawn, ((size - drawn.width) // 2, (size - drawn.height) // 2))
    file = io.BytesIO()
    page.convert("RGB").quantize(64, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
    return file.getvalue()


def build(folder: pathlib.Path, output: pathlib.Path, size: int, all_licenses: bool, limit: int | None) -> str:
    """Render every design of every emoji that at least four designs draw, and write the set."""
    known = emojis(folder)
    known = dict(list(known.items())[:limit])
    styles, sheets = [], []
    for style, (package, family, license) in STYLES.items():
        place = folder / "@iconify-json" / package
        if place.is_dir() and (all_licenses or license in PERMISSIVE):
            styles.append(
                {"name": style, "family": family, "license": license, "source": f"npm @iconify-json/{package}"}
            )
            sheets.append(drawings(place, known))
    if not styles:
        raise SystemExit(f"{folder} holds no @iconify-json package that is allowed. See the top of this file.")
    enough = min(4, len(styles))
    classes = [code for code in known if sum(code in sheet for sheet in sheets) >= enough]
    png, label, style_of, skipped = [], [], [], 0
    for number, code in enumerate(classes):
        for style, sheet in enumerate(sheets):
            if code not in sheet:
                continue
            try:
                png.append(np.frombuffer(render(sheet[code], size), np.uint8))
            except ValueError:
                skipped += 1
                continue
            label.append(number)
            style_of.append(style)
    info = {"styles": styles, "classes": [known[code] for code in classes], "size": size}
    np.savez(
        output,
        png=np.concatenate(png),
        offset=np.concatenate([[0], np.cumsum([len(p) for p in png])]).astype(np.int64),
        label=np.array(label, np.int16),
        style=np.array(style_of, np.uint8),
        info=np.frombuffer(json.dumps(info).encode(), np.uint8),
    )
    names = ", ".join(style["name"] for style in styles)
    return f"{output}: {len(label)} images of {len(classes)} classes, {skipped} not drawn, in these styles: {names}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("node_modules", type=pathlib.Path, help="the folder that npm installed into")
    parser.add_argument("output", type=pathlib.Path, help="the .npz file to write")
    parser.add_argument("--size", type=int, default=96, help="side of an image in pixels (96)")
    parser.add_argument("--all-licenses", action="store_true", help="also CC-BY and CC-BY-SA designs")
    parser.add_argument("--limit", type=int, default=None, help="only the first so many emoji, to try it out")
    options = parser.parse_args()
    print(build(options.node_modules, options.output, options.size, options.all_licenses, options.limit))


if __name__ == "__main__":
    main()
