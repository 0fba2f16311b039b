"""The page of examples/browser: a `.tflite` of ours in a real browser gives the embeddings that Keras gives."""

import contextlib
import functools
import http.server
import pathlib
import shutil
import threading
import urllib.parse

import keras
import numpy as np
import pytest
from PIL import Image

from tf_detreg import export, heads

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed: the browser test cannot run")
PAGE = pathlib.Path(__file__).parents[2] / "examples" / "browser"
BROWSER, DRIVER = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.skipif(
        not (BROWSER and DRIVER), reason="no chromium with chromedriver here: apt-get install chromium chromium-driver"
    ),
    pytest.mark.skipif(
        not (PAGE / "node_modules" / "@litertjs").is_dir(),
        reason="LiteRT's web runtime is not installed: npm ci --prefix examples/browser",
    ),
]


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        """Print nothing."""


@contextlib.contextmanager
def served(folder):
    """The address of a folder."""
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def browser():
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--lang=en"):
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def embedder():
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Rescaling(1 / 127.5, -1), keras.layers.Conv2D(8, 3, 2, activation="relu")]
    layers += [keras.layers.GlobalAveragePooling2D(), heads.RealNVP(8, depth=2, hidden=8)]
    return keras.Sequential([keras.Input((16, 16, 3)), *layers])


@pytest.fixture
def folder(tmp_path):
    for name in ("index.html", "search.js"):
        shutil.copy(PAGE / name, tmp_path)
    (tmp_path / "node_modules").symlink_to(PAGE / "node_modules")
    return tmp_path


def text(browser, name):
    return browser.find_element("id", name).text


def until(browser, condition):
    from selenium.webdriver.support.wait import WebDriverWait

    def done(_):
        assert "did not work" not in text(browser, "state"), text(browser, "state")
        return condition()

    return WebDriverWait(browser, 120).until(done)


@pytest.mark.parametrize("options", [{}, {"quantize": "float16"}, {"input_dtype": "uint8"}], ids=str)
def test_the_page_ranks_by_the_cosines_of_keras(browser, embedder, folder, options):
    export.litert(embedder, folder / "model.tflite", **options)
    # Pictures of the model's size: the browser's way of resizing is its own.
    pictures = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3)).astype(np.uint8)
    pictures[:, :, :, 0] //= np.arange(1, 6, dtype=np.uint8)[:, None, None]
    names = [f"{number}.png" for number in range(5)]
    for picture, name in zip(pictures, names, strict=True):
        Image.fromarray(picture).save(folder / name)
    vectors = embedder.predict(pictures.astype(np.float32), verbose=0)
    expected = vectors @ vectors[2]
    with served(folder) as address:
        browser.get(address)
        until(browser, lambda: "ready" in text(browser, "state"))
        browser.find_element("id", "gallery").send_keys("\n".join(str(folder / name) for name in names))
        until(browser, lambda: "5 of 5" in text(browser, "state"))
        browser.find_element("id", "query").send_keys(str(folder / names[2]))
        until(browser, lambda: "nearest of 5" in text(browser, "state"))
        lines = [item.text.split() for item in browser.find_elements("css selector", "#results li")]
        loaded = browser.execute_script("return performance.getEntriesByType('resource').map((one) => one.name)")
    scores = [float(score) for _, score in lines]
    assert lines[0] == [names[2], "1.0000"] and scores == sorted(scores, reverse=True)
    assert scores == pytest.approx([expected[names.index(name)] for name, _ in lines], abs=1e-3)
    hosts = {urllib.parse.urlparse(each).netloc for each in loaded if not each.startswith("blob:")}
    assert hosts == {urllib.parse.urlparse(address).netloc}


def test_a_missing_model_is_said(browser, folder):
    with served(folder) as address:
        browser.get(address)
        from selenium.webdriver.support.wait import WebDriverWait

        WebDriverWait(browser, 120).until(lambda _: "did not work" in text(browser, "state"))
