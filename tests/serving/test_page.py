"""The search page in a real browser: by pointer, by keyboard alone, and at a phone's width."""

import dataclasses
import os

import numpy as np
import pytest

from tests import browsers
from tests.browsers import until
from tests.serving.conftest import listening, png
from tf_detreg import retrieval
from tf_detreg.index import Index

pytestmark = browsers.needed


@pytest.fixture(scope="module")
def browser():
    with browsers.opened() as driver:
        yield driver


@pytest.fixture
def photo(pictures, tmp_path):
    """A file with picture 7, which is red."""
    path = tmp_path / "red.png"
    path.write_bytes(png(pictures[7]))
    return path


def find(browser, selector):
    return browser.find_elements("css selector", selector)


def opened(browser, address, width=1100, height=800):
    browser.set_window_size(width, height)
    browser.get("about:blank")  # another fragment alone would load nothing
    browser.get(address)
    until(browser, lambda: find(browser, "#results .item"))


def labels(browser):
    # In one step: the list is replaced by each answer.
    return browser.execute_script("return [...document.querySelectorAll('#results .name')].map((e) => e.textContent)")


def shoot(browser, name):
    """Keeps a screenshot where the environment says."""
    if os.environ.get("TF_DETREG_SCREENSHOTS"):
        until(browser, lambda: browser.execute_script("return [...document.images].every((i) => i.complete)"))
        browser.save_screenshot(os.path.join(os.environ["TF_DETREG_SCREENSHOTS"], f"{name}.png"))


def test_a_chosen_file_finds_its_class(browser, address, photo):
    opened(browser, address)
    assert "40 pictures" in find(browser, "#about")[0].text
    shoot(browser, "start")
    find(browser, "#file")[0].send_keys(str(photo))
    until(browser, lambda: len(labels(browser)) == 12)
    assert labels(browser)[:5] == ["red"] * 5
    assert "item 7" in find(browser, "#results .id")[0].text
    assert "cosine similarity" in find(browser, "#meaning")[0].text
    assert "12 nearest" in find(browser, "#status")[0].text
    loaded = "return [...document.images].filter((i) => !i.hidden && i.complete && i.naturalWidth == 0).length"
    until(browser, lambda: browser.execute_script(loaded) == 0)
    shoot(browser, "desktop")


def test_a_picture_of_noise_is_not_in_the_catalog(browser, served, index, embedder, pictures, settings, tmp_path):
    from tf_detreg.serving.app import create_app
    from tf_detreg.serving.gallery import Gallery

    vectors = np.asarray(embedder(pictures.astype(np.float32)))
    made = retrieval.calibrate(vectors, np.arange(40) // 5, target=0.3, bound="point", resamples=20)
    decided = Index(vectors, metadata=[{"label": n // 5} for n in range(40)], fingerprint=index.fingerprint)
    decided.decision = dataclasses.replace(made, threshold=0.95)
    noise = tmp_path / "noise.png"
    noise.write_bytes(png(np.random.default_rng(0).integers(0, 256, (16, 16, 3))))
    known = tmp_path / "known.png"
    known.write_bytes(png(pictures[7]))
    with listening(create_app(served, Gallery(decided, pictures), settings), settings) as address:
        opened(browser, address)
        find(browser, "#file")[0].send_keys(str(noise))
        until(browser, lambda: find(browser, "#heading")[0].text == "Not in the catalog")
        assert len(find(browser, "#results .item.below")) == len(labels(browser)) == 12
        assert "similar enough" in find(browser, "#status")[0].text
        shoot(browser, "unknown")
        find(browser, "#file")[0].send_keys(str(known))
        until(browser, lambda: find(browser, "#heading")[0].text == "Most similar pictures")
        first = find(browser, "#results .item")[0]
        assert "below" not in first.get_attribute("class") and "%" in first.text


DROP = """
    const [files, texts, kind] = arguments;
    const data = new DataTransfer();
    for (const [name, bytes] of files) {
        data.items.add(new File([Uint8Array.from(bytes)], name, {type: "image/png"}));
    }
    for (const [type, text] of Object.entries(texts)) data.setData(type, text);
    const event = kind === "drop"
        ? new DragEvent("drop", {dataTransfer: data, bubbles: true})
        : new ClipboardEvent("paste", {clipboardData: data, bubbles: true});
    document.getElementById("drop").dispatchEvent(event);
"""


def give(browser, *files, kind="drop", **texts):
    """Drops or pastes files, `(name, bytes)`, or texts."""
    types = {f"text/{name}": text for name, text in texts.items()}
    browser.execute_script(DROP, [[name, list(content)] for name, content in files], types, kind)


def status(browser):
    return find(browser, "#status")[0].text


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_every_file_that_is_given_can_be_searched(browser, address, pictures, kind):
    opened(browser, address)
    give(browser, ("blue.png", png(pictures[21])), ("red.png", png(pictures[7])), kind=kind)
    until(browser, lambda: labels(browser)[:1] == ["blue"])
    assert find(browser, "#caption")[0].text == "blue.png"
    shoot(browser, "two-files")
    (other,) = find(browser, "#others button")
    assert other.text == "red.png"
    other.click()
    until(browser, lambda: set(labels(browser)[:5]) == {"red"})
    assert find(browser, "#caption")[0].text == "red.png"


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_what_is_no_file_is_said(browser, address, kind):
    opened(browser, address)
    give(browser, kind=kind, plain="https://example.com/cat.jpg")
    assert "loads nothing from addresses" in status(browser)
    give(browser, kind=kind, plain="a cat on a mat")
    assert "Text was" in status(browser)
    give(browser, kind=kind)
    assert "holds no picture" in status(browser)
    give(browser, kind=kind, plain=f"{address}/thumbnails/12")  # a picture of the page itself
    until(browser, lambda: set(labels(browser)[:4]) == {"green"})


def test_one_bad_file_leaves_the_results(browser, address, pictures):
    opened(browser, address)
    give(browser, ("red.png", png(pictures[7])))
    until(browser, lambda: len(labels(browser)) == 12)
    before = labels(browser)
    give(browser, ("broken.png", b"no image"))
    until(browser, lambda: find(browser, "#status.bad"))
    assert "broken.png: This is not an image" in status(browser)
    assert (labels(browser), find(browser, "#caption")[0].text) == (before, "red.png")
    shoot(browser, "bad-file")


def test_a_server_that_is_gone_is_said_and_can_be_asked_again(browser, address, pictures):
    opened(browser, address)
    offline = {"offline": True, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    browser.execute_cdp_cmd("Network.enable", {})
    browser.execute_cdp_cmd("Network.emulateNetworkConditions", offline)
    try:
        give(browser, ("red.png", png(pictures[7])))
        until(browser, lambda: find(browser, "#status.bad"))
        assert "The server does not answer" in status(browser)
    finally:
        browser.execute_cdp_cmd("Network.emulateNetworkConditions", {**offline, "offline": False})
    find(browser, "#retry")[0].click()
    until(browser, lambda: len(labels(browser)) == 12)
    assert not find(browser, "#retry")[0].is_displayed()


def test_a_hit_is_shown_in_full_with_its_path(browser, address):
    opened(browser, f"{address}/#like=12")
    until(browser, lambda: len(labels(browser)) == 12)
    find(browser, "#results .item")[0].click()
    dialog = find(browser, "#detail")[0]
    until(browser, lambda: find(browser, "#path")[0].get_attribute("value"))
    assert dialog.is_displayed()
    assert find(browser, "#detail-title")[0].text == "green"
    facts = find(browser, "#detail-facts")[0].text
    assert "Similarity" in facts
    assert "size" in facts
    path = find(browser, "#path")[0].get_attribute("value")
    assert path.endswith(".png")
    width = "return document.getElementById('detail-picture').naturalWidth"
    until(browser, lambda: browser.execute_script(width))
    shoot(browser, "detail")
    find(browser, "#copy")[0].click()
    until(browser, lambda: find(browser, "#copy")[0].text == "Copied")
    find(browser, "#next")[0].click()
    until(browser, lambda: find(browser, "#path")[0].get_attribute("value") not in ("", path))
    find(browser, "#more")[0].click()
    until(browser, lambda: not dialog.is_displayed())
    until(browser, lambda: "#like=12" not in browser.current_url)
    browser.back()
    until(browser, lambda: browser.current_url.endswith("#like=12"))


def test_back_goes_through_the_searches_and_stays_on_the_page(browser, address, pictures):
    opened(browser, address)
    give(browser, ("blue.png", png(pictures[21])))
    until(browser, lambda: labels(browser)[:1] == ["blue"])
    give(browser, ("red.png", png(pictures[7])))
    until(browser, lambda: labels(browser)[:1] == ["red"])
    find(browser, "#results .item")[2].click()
    until(browser, lambda: find(browser, "#detail[open]"))
    browser.back()
    until(browser, lambda: not find(browser, "#detail[open]"))
    assert labels(browser)[:1] == ["red"]
    browser.back()
    until(browser, lambda: labels(browser)[:1] == ["blue"])
    assert find(browser, "#caption")[0].text == "blue.png"
    browser.back()
    until(browser, lambda: "start from" in find(browser, "#heading")[0].text)
    browser.forward()
    until(browser, lambda: labels(browser)[:1] == ["blue"])


def test_an_address_with_an_item_opens_it_again(browser, address):
    opened(browser, f"{address}/#like=12&show=13")
    until(browser, lambda: find(browser, "#detail[open]"))
    browser.back()
    until(browser, lambda: not find(browser, "#detail[open]"))
    until(browser, lambda: len(labels(browser)) == 12)


def test_a_search_from_a_hit_does_not_list_the_hit(browser, address):
    opened(browser, f"{address}/#like=12")
    until(browser, lambda: len(labels(browser)) == 12)
    names = "return [...document.querySelectorAll('#results .id')].map((e) => e.textContent)"
    assert "item 12.png" not in browser.execute_script(names)
    assert find(browser, "#caption")[0].text == "green"


def test_keyboard_alone(browser, address):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    opened(browser, address)

    def press(*keys):
        ActionChains(browser).send_keys(*keys).perform()

    def focused():
        return browser.switch_to.active_element

    press(Keys.TAB)
    assert focused().get_attribute("id") == "file"
    press(Keys.TAB)
    assert "Search for pictures like item" in focused().get_attribute("aria-label")
    press(Keys.ENTER)
    until(browser, lambda: labels(browser))
    assert focused().get_attribute("id") == "file"
    shoot(browser, "keyboard")
    assert "similarity" in find(browser, "#results .item")[0].get_attribute("aria-label")
    press(Keys.TAB, Keys.ARROW_UP)  # fewer results
    until(browser, lambda: len(labels(browser)) == 6)
    press(Keys.TAB, Keys.ENTER)
    until(browser, lambda: find(browser, "#detail[open]"))
    until(browser, lambda: find(browser, "#path")[0].get_attribute("value"))
    press(Keys.ESCAPE)
    until(browser, lambda: not find(browser, "#detail[open]"))
    assert len(labels(browser)) == 6


def test_a_phone(browser, address, photo):
    # Chromium's own windows are never narrower than 500 pixels.
    device = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", device)
    try:
        opened(browser, address)
        shoot(browser, "phone-start")
        find(browser, "#file")[0].send_keys(str(photo))
        until(browser, lambda: labels(browser))
        shoot(browser, "phone")
        texts = "[...document.querySelectorAll('#results .name, #results .id')]"
        assert browser.execute_script(f"return {texts}.filter((e) => e.scrollWidth > e.clientWidth)") == []
        assert find(browser, "#results .id")[0].text == "item 7.png"
        assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
        assert browser.execute_script("return window.innerWidth") == 390
        outside = "(box => box.width && (box.left < 0 || box.right > innerWidth))(e.getBoundingClientRect())"
        shown = f"[...document.querySelectorAll('body *')].filter((e) => {outside}).map((e) => e.outerHTML)"
        assert browser.execute_script(f"return {shown}") == []
        for element in [*find(browser, "#results .item")[:3], find(browser, "#count")[0], find(browser, "#drop")[0]]:
            assert element.size["height"] >= 40  # a finger's width
            assert element.size["width"] >= 40
        find(browser, "#results .item")[1].click()
        until(browser, lambda: find(browser, "#path")[0].get_attribute("value"))
        shoot(browser, "phone-detail")
        sheet = "return document.getElementById('detail').scrollWidth <= document.getElementById('detail').clientWidth"
        assert browser.execute_script(sheet)
        browser.back()
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_no_image_is_said_aloud_and_the_page_goes_on(browser, address, tmp_path, photo):
    opened(browser, address)
    text = tmp_path / "letter.jpg"
    text.write_text("no image")
    find(browser, "#file")[0].send_keys(str(text))
    until(browser, lambda: find(browser, "#status.bad[role=status]"))
    assert "not an image" in find(browser, "#status")[0].text
    shoot(browser, "refused")
    find(browser, "#file")[0].send_keys(str(photo))
    until(browser, lambda: labels(browser))
    assert not find(browser, "#status.bad")


def test_the_page_breaks_no_rule_of_its_policy(browser, address, photo):
    opened(browser, address)
    browser.get_log("browser")
    browser.refresh()
    until(browser, lambda: find(browser, "#results .item"))
    find(browser, "#file")[0].send_keys(str(photo))
    until(browser, lambda: labels(browser))
    assert [entry["message"] for entry in browser.get_log("browser")] == []
    controls = "[...document.querySelectorAll('button, input, select')]"
    assert (
        browser.execute_script(
            f"return {controls}.filter((e) => !e.ariaLabel && !e.labels?.length && !e.textContent.trim())"
        )
        == []
    )
