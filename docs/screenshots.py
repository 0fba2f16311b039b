"""Takes the screenshots in docs/pictures/screenshots: the report, the search page, the command line.

    tf-detreg demo
    make screenshots        # python docs/screenshots.py --run runs/demo --model saved_models/demo

It shows the run's report as it is, copies the run to build/screenshots, writes test images of some classes as files
there, makes an index of them and serves it on this machine alone. Chromium with its driver takes the pictures; text of
the terminal becomes SVG by rich. Queries are drawn by `--seed` among the images that are not in the index.
"""

import argparse
import base64
import contextlib
import io
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

ROOT = pathlib.Path(__file__).parents[1]
PICTURES = ROOT / "docs" / "pictures" / "screenshots"
WORK = ROOT / "build" / "screenshots"
CLASSES, LIMIT, WIDTH = 150, 100_000, 92
# As rich writes it, without the fonts that it loads from another host.
TERMINAL = """<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace;
  font-size: {char_height}px; line-height: {line_height}px; }}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: system-ui, "DejaVu Sans", sans-serif; }}
{styles}
</style>
<defs><clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/></clipPath>
{lines}</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">{matrix}</g>
</g>
</svg>
"""


def command(*arguments: str) -> str:
    """What a command prints in a terminal, with its colors."""
    from typer.testing import CliRunner

    from tf_detreg.cli.app import app

    done = CliRunner().invoke(app, arguments)
    if done.exit_code:
        raise RuntimeError(f"tf-detreg {' '.join(arguments)} failed: {done.output}") from done.exception
    return done.stdout


def terminal(shown: list[tuple[str, str]], path: pathlib.Path, width: int = WIDTH) -> None:
    """Draw commands and what they printed as an SVG that needs no fonts from elsewhere."""
    from rich.console import Console
    from rich.text import Text

    console = Console(record=True, width=width, file=io.StringIO(), force_terminal=True, legacy_windows=False)
    for number, (line, output) in enumerate(shown):
        if number:
            console.print()
        console.print(Text.assemble(("$ ", "bold green"), (line, "bold")))
        console.print(Text.from_ansi(output.rstrip("\n")))
    path.write_text(console.export_svg(title="", code_format=TERMINAL, unique_id="terminal"), encoding="utf-8")


def write_images(run_directory: pathlib.Path, seed: int) -> tuple[list[pathlib.Path], pathlib.Path]:
    """Write test images of some classes as files: all but one of each into `characters`, and three queries."""
    import numpy as np
    from PIL import Image

    from tf_detreg import training

    images = training.load_run(run_directory).splits().test
    rng = np.random.default_rng(seed)
    queries = []
    chosen = rng.permutation(images.num_classes)[: CLASSES + 1]
    for number, label in enumerate(chosen):
        rows = rng.permutation(np.flatnonzero(images.labels == label))
        name = re.sub(r"[^\w ()+-]", "_", str(images.class_names[label]))
        for place, row in enumerate(rows):
            # The last class is in no index; of the first three, one image is a query.
            query = number == CLASSES or (number < 3 and place == 0)
            if number == CLASSES and place:
                break
            directory = WORK / ("queries" if query else f"characters/{name}")
            directory.mkdir(parents=True, exist_ok=True)
            path = directory / (f"{name}.png" if query else f"{place:03}.png")
            Image.fromarray(images.images[row]).resize((128, 128), Image.Resampling.NEAREST).save(path)
            if query:
                queries.append(path)
    noise = WORK / "queries" / "noise.png"
    Image.fromarray(rng.integers(0, 256, (128, 128, 3), dtype=np.uint8)).save(noise)
    return queries[:3], noise


@contextlib.contextmanager
def served(model: pathlib.Path):
    """The address of a server of the index, on this machine alone."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    arguments = ["serve", str(model), "--index", "characters.index", "--port", str(port), "--grpc-port", "0"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    with open(WORK / "server.log", "w", encoding="utf-8") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tf_detreg", *arguments], cwd=WORK, env=environment, stdout=log, stderr=log
        )
    address = f"http://127.0.0.1:{port}/"
    try:
        for _ in range(600):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(address, timeout=5).close()
                break
            if process.poll() is not None:
                raise RuntimeError(f"The server ended: {(WORK / 'server.log').read_text(encoding='utf-8')}")
            time.sleep(0.5)
        yield address
    finally:
        process.terminate()
        process.wait()


class Browser:
    """Chromium without a window."""

    def __init__(self) -> None:
        from selenium import webdriver

        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium") or shutil.which("google-chrome") or ""
        for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--lang=en"):
            options.add_argument(argument)
        options.add_argument("--hide-scrollbars")
        self.driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))

    def open(self, address: str, width: int, height: int, dark: bool = False, phone: bool = False) -> None:
        """Load a page in a window of a size."""
        screen = {"width": width, "height": height, "deviceScaleFactor": 2 if phone else 1, "mobile": phone}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
        self.driver.get("about:blank")
        self.driver.get(address)

    def run(self, script: str):
        """What a line of JavaScript returns."""
        return self.driver.execute_script(script)

    def wait(self, script: str, seconds: float = 60) -> None:
        """Wait until a line of JavaScript returns something true."""
        end = time.monotonic() + seconds
        while not self.run(script):
            if time.monotonic() > end:
                raise TimeoutError(script)
            time.sleep(0.1)

    def shoot(self, name: str) -> None:
        """Keep what the window shows, with as many colors as fit into the limit."""
        from PIL import Image

        time.sleep(0.7)  # transitions end
        self.wait("return [...document.images].every((i) => i.complete)")
        data = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})["data"]
        picture = Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")
        path = PICTURES / f"{name}.png"
        for colors in (256, 128, 64, 32):
            picture.quantize(colors, dither=Image.Dither.NONE).save(path, optimize=True)
            if path.stat().st_size < LIMIT:
                break


def show_report(browser: Browser, page: pathlib.Path) -> None:
    """The report: its map with an image under the pointer, its list of classes; on a phone and in the dark."""
    to = "document.querySelector('{}').scrollIntoView({{block: 'start'}}); window.scrollBy(0, -70)"
    point = (
        "const field = document.querySelector('.map-field'); field.focus(); const g = [...document.querySelectorAll"
        "('.map g')].sort((a, b) => b.children.length - a.children.length)[0];"
        "const b = g.querySelector('circle').getBoundingClientRect();"
        "field.dispatchEvent(new MouseEvent('click', {clientX: b.x + b.width / 2, clientY: b.y + b.height / 2}))"
    )
    for name, *window in (
        ("report", 1040, 980),
        ("report-dark", 1040, 980, True),
        ("report-phone", 390, 780, False, True),
    ):
        pointed = name != "report-dark"  # where all colors are to be seen
        browser.open(page.as_uri(), *window)
        browser.run(to.format("section:has(.map)"))
        if pointed:
            browser.run(point)
        browser.shoot(name)
    browser.open(page.as_uri(), 1040, 760)
    browser.run(to.format("section:has(.classes)"))
    browser.shoot("report-classes")


def show_search(browser: Browser, address: str, queries: list[pathlib.Path], noise: pathlib.Path) -> None:
    """The search page with a query: on a desktop, in the dark, on a phone; and with a picture of nothing."""
    for name, query, *window in (
        ("search", queries[1], 1040, 900),
        ("search-dark", queries[0], 1040, 900, True),
        ("search-phone", queries[2], 390, 780, False, True),
        ("search-no-match", noise, 1040, 700),
    ):
        browser.open(address, *window)
        browser.wait("return document.querySelector('#results .item')")
        browser.driver.find_element("css selector", "#file").send_keys(str(query))
        browser.wait("return document.querySelector('#caption').textContent !== ''")
        browser.wait("return document.querySelector('#status').textContent.includes('nearest')"
                     " || document.querySelector('#status').textContent.includes('similar')")  # fmt: skip
        browser.shoot(name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=pathlib.Path, default=ROOT / "runs" / "demo")
    parser.add_argument("--model", type=pathlib.Path, default=ROOT / "saved_models" / "demo")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    run, model = options.run.resolve(), options.model.resolve()
    shutil.rmtree(WORK, ignore_errors=True)
    PICTURES.mkdir(parents=True, exist_ok=True)
    shutil.copytree(run, WORK / "runs" / "demo")
    queries, noise = write_images(WORK / "runs" / "demo", options.seed)
    os.chdir(WORK)
    # The threshold of the demo is strict, and fitted to a gallery of six times as many classes.
    command("calibrate", "runs/demo", "--target", "0.3", "--bound", "point")
    lines = (
        "index runs/demo characters --to characters.index",
        "index list characters.index -n 0",
        "search characters.index queries -k 2",
    )
    shown = [(f"tf-detreg {line}", command(*line.split())) for line in lines]
    terminal(shown, PICTURES / "terminal.svg")
    browser = Browser()
    try:
        show_report(browser, WORK / "runs" / "demo" / "report.html")
        with served(model) as address:
            show_search(browser, address, queries, noise)
    finally:
        browser.driver.quit()
    for path in sorted(PICTURES.iterdir()):
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    os.environ |= {"FORCE_COLOR": "1", "COLUMNS": str(WIDTH), "TF_CPP_MIN_LOG_LEVEL": "3"}
    main()
