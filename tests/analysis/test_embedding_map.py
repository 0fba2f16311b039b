"""The map of the report: what is drawn, its size, and how it answers pointer, keyboard and a strict policy."""

import base64
import doctest
import io
import re

import numpy as np
import pytest
from PIL import Image

from tests import browsers
from tf_detreg.analysis import embedding_map, neighbors, report
from tf_detreg.datasets import ImageSet

EVIL = "<script>document.title = 'injected'</script>"


def image_set(labels, names, size=8, seed=0):
    noise = np.random.default_rng(seed).integers(0, 256, (len(labels), size, size, 3), dtype=np.uint8)
    return ImageSet(labels=labels, class_names=names, images=noise)


def sheet(section):
    return base64.b64decode(re.search(r"data:image/jpeg;base64,([^\"]+)", section.fragment)[1])


def test_all_images_that_fit_are_drawn_else_those_of_classes_drawn_by_the_seed():
    labels = np.random.default_rng(0).integers(0, 5000, 100_000)
    rows = embedding_map.sample(labels, seed=3)
    assert len(rows) == 1000 == len(np.unique(rows)) and (np.diff(rows) > 0).all()
    assert (embedding_map.sample(labels, seed=3) == rows).all()
    assert len(np.intersect1d(embedding_map.sample(labels, seed=4), rows)) < 100
    # Whole classes: each but the last has all of its images, or twenty.
    drawn, counts = np.unique(labels[rows], return_counts=True)
    whole = np.minimum(np.bincount(labels)[drawn], 20)
    assert (counts != whole).sum() <= 1 and len(drawn) < 60
    few = embedding_map.sample(np.arange(90_000) % 3, seed=1)
    assert len(few) == 1000 and np.bincount(few % 3).min() > 300
    assert embedding_map.sample([7, 7, 2]).tolist() == [0, 1, 2]


def test_every_image_of_a_class_may_be_drawn():
    labels = np.repeat(np.arange(4), 100)
    seen = {row for seed in range(150) for row in embedding_map.sample(labels, points=40, per_class=5, seed=seed)}
    assert len(seen) == 400


def test_pca_finds_the_two_directions_of_the_largest_variance():
    rng = np.random.default_rng(0)
    spread = rng.normal(size=(25, 6)) * [0.1, 5, 0.1, 0.1, 2, 0.1]
    (view,) = embedding_map.views(spread)
    assert view.name == "PCA" and view.kept > 0.8
    for column, axis in enumerate((1, 4)):
        assert abs(np.corrcoef(view.points[:, column], spread[:, axis])[0, 1]) > 0.97
    (single,) = embedding_map.views(np.array([[3.0]]))
    assert single.points.tolist() == [[0, 0]] and single.kept == 1


def test_the_method_that_keeps_more_neighbors_comes_first():
    rng = np.random.default_rng(1)
    # Sixteen groups in as many dimensions: two straight axes cannot part them.
    points = np.eye(16)[np.arange(160) % 16] + 0.05 * rng.normal(size=(160, 16))
    first, second = embedding_map.views(points)
    assert (first.name, second.name) == ("t-SNE", "PCA") and first.kept > second.kept + 0.1
    assert (embedding_map.views(points)[0].points == first.points).all()


def test_thumbnails_are_those_of_the_points():
    grays = np.array([10, 90, 170, 250], np.uint8)
    images = ImageSet([0, 0, 1, 1], ["a", "b"], images=np.tile(grays[:, None, None], (1, 20, 10)))
    section = embedding_map.section(images, np.random.default_rng(0).normal(size=(4, 3)))
    picture = np.asarray(Image.open(io.BytesIO(sheet(section))).convert("L"))
    assert picture.shape == (96, 96)
    middles = picture[24::48, 24::48].ravel().astype(int)
    assert np.abs(middles - grays).max() < 4
    assert re.findall(r'data-n="(\d)"', section.fragment) == ["0", "1", "2", "3"]


def test_a_hundred_thousand_images_make_a_small_page():
    labels = np.arange(100_000) // 20
    rng = np.random.default_rng(0)
    names = [f"class {n} " + "é" * 40 for n in range(5000)]
    # Noise is what compresses worst.
    section = embedding_map.section(image_set(labels, names, 12), rng.normal(size=(100_000, 4)))
    assert section.fragment.count("<circle") == 1000
    assert "1,000 of 100,000 images, of 50 of 5,000 classes, at random" in section.lead
    assert len(section.fragment.encode()) < 3_000_000


def test_pictures_that_compress_badly_are_kept_below_the_limit():
    noise = image_set(np.arange(64) // 2, [str(n) for n in range(32)], 48)
    good, small = (embedding_map.sprites(noise, np.arange(64), most) for most in (10**6, 60_000))
    assert len(good) > 80_000 and len(small) <= 60_000


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Four groups of points, with names that would run if they were taken for HTML."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 10)
    corners = np.array([[-1, -1, 0], [1, -1, 0], [-1, 1, 0], [1, 1, 0]])[labels]
    images = image_set(labels, [EVIL, 'straße & "b"', "c", "d"])
    section = embedding_map.section(images, corners + 0.05 * rng.normal(size=(40, 3)))
    style = neighbors.STYLE + embedding_map.STYLE
    path = tmp_path_factory.mktemp("page") / "report.html"
    report.write(path, "Title", "Lead", [section], style, embedding_map.SCRIPT)
    return path


@pytest.fixture(scope="module")
def browser():
    with browsers.opened() as driver:
        yield driver


@pytest.fixture
def opened(browser, page):
    browser.set_window_size(1000, 1000)
    browser.get(page.as_uri())
    browser.execute_script("document.querySelector('.map-field').scrollIntoView({block: 'start'})")
    return browser


def run(browser, script, *arguments):
    return browser.execute_script(f"return {script}", *arguments)


NAME = "document.querySelector('.map-tip:not([hidden]) span')?.textContent ?? null"


def move(browser, selector, click=False):
    from selenium.webdriver import ActionChains

    target = browser.find_element("css selector", selector)
    actions = ActionChains(browser, duration=0).move_to_element(target)
    (actions.click() if click else actions).perform()


def press(browser, *keys):
    from selenium.webdriver import ActionChains

    ActionChains(browser, duration=0).send_keys(*keys).perform()


@browsers.needed
def test_a_point_under_the_pointer_shows_its_picture_and_name(opened):
    for group, name in ((1, EVIL), (2, 'straße & "b"')):
        move(opened, f".map g:nth-of-type({group}) circle")
        assert run(opened, NAME) == name
        on = run(opened, "[...document.querySelectorAll('.map g')].map((g) => g.classList.contains('on'))")
        assert on == [n + 1 == group for n in range(4)]
    pixels = run(opened, "[...document.querySelector('.map canvas').getContext('2d').getImageData(0, 0, 96, 96).data]")
    assert np.std(np.reshape(pixels, (-1, 4))[:, 0]) > 20  # noise, and not an empty canvas
    move(opened, "h1")
    assert run(opened, NAME) is None and opened.title == "Title"
    assert not [line for line in opened.get_log("browser") if line["level"] == "SEVERE"]


@browsers.needed
def test_the_keyboard_alone_goes_over_the_map(opened):
    from selenium.webdriver import Keys

    reached = []
    while len(reached) < 3:  # the class, the method, the map
        press(opened, Keys.TAB)
        reached.append(run(opened, "document.activeElement.tagName"))
    assert reached == ["SELECT", "INPUT", "DIV"] and run(opened, NAME)
    ring = "['cx', 'cy'].map((at) => Number(document.querySelector('.ring').getAttribute(at)))"
    for key, axis, sign in ((Keys.ARROW_RIGHT, 0, 1), (Keys.ARROW_UP, 1, -1), (Keys.ARROW_LEFT, 0, -1)):
        before = run(opened, ring)
        press(opened, key)
        after = run(opened, ring)
        assert sign * (after[axis] - before[axis]) >= 0 and (before != after or key != Keys.ARROW_RIGHT)
    name = run(opened, NAME)
    seen = set()
    for _ in range(10):
        press(opened, Keys.PAGE_DOWN)
        seen.add(tuple(run(opened, ring)))
        assert run(opened, NAME) == name == run(opened, "document.querySelector('.map-said').textContent")
    assert len(seen) == 10
    press(opened, Keys.ESCAPE)
    assert run(opened, NAME) is None


@browsers.needed
def test_a_class_and_a_method_can_be_chosen(opened):
    choices = run(opened, "[...document.querySelectorAll('.map option')].map((o) => o.textContent)")
    assert choices[0] == "all 4" and sorted(choices[1:]) == sorted([EVIL, 'straße & "b"', "c", "d"])
    opened.execute_script(
        "const s = document.querySelector('.map select'); s.value = '3'; s.dispatchEvent(new Event('change'))"
    )
    assert run(opened, "document.querySelectorAll('.map .dim g.on').length") == 1
    before = run(opened, "document.querySelector('.map circle').getAttribute('cx')")
    opened.find_element("css selector", ".map input:not(:checked)").click()
    assert run(opened, "document.querySelector('.map circle').getAttribute('cx')") != before
    assert run(opened, "document.querySelector('.map-field').getAttribute('aria-label')").count("by ") == 1


@browsers.needed
def test_a_finger_shows_a_point_on_a_narrow_screen(opened):
    opened.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 390, "height": 800, "deviceScaleFactor": 2, "mobile": True}
    )
    try:
        assert run(opened, "document.documentElement.scrollWidth") <= 390
        x, y = run(
            opened,
            "(() => { const b = document.querySelector('.map g:nth-of-type(3) circle').getBoundingClientRect();"
            " return [b.x + b.width / 2 + 6, b.y + b.height / 2]; })()",
        )
        touch = [{"x": x, "y": y}]
        opened.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": touch})
        opened.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        assert browsers.until(opened, lambda: run(opened, NAME)) == "c"
    finally:
        opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@browsers.needed
def test_the_policy_lets_no_other_script_run(browser, page, tmp_path):
    attacked = tmp_path / "attacked.html"
    text = page.read_text(encoding="utf-8")
    attacked.write_text(text.replace("<h1>", f"{EVIL}<img src=x onerror=\"document.title='injected'\"><h1>"), "utf-8")
    browser.get(attacked.as_uri())
    assert browser.title == "Title"
    assert run(browser, "document.querySelector('.map-field').tabIndex") == 0  # ours ran


def test_examples():
    assert doctest.testmod(embedding_map).failed == 0
