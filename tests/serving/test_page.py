"""The search page in a real browser: by pointer, by keyboard alone, and at a phone's width."""

import os
import shutil

import pytest

from tests.serving.conftest import png

webdriver = pytest.importorskip(
    "selenium.webdriver", reason="selenium is not installed: the page's browser test cannot run"
)
BROWSER, DRIVER = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (BROWSER and DRIVER), reason="no chromium with chromedriver here: apt-get install chromium chromium-driver"
)


@pytest.fixture(scope="module")
def browser():
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--lang=en"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def photo(pictures, tmp_path):
    """A file with picture 7, which is red."""
    path = tmp_path / "red.png"
    path.write_bytes(png(pictures[7]))
    return path


def find(browser, selector):
    return browser.find_elements("css selector", selector)


def until(browser, condition):
    """What `condition` returns once it is true."""
    from selenium.webdriver.support.wait import WebDriverWait

    return WebDriverWait(browser, 20).until(lambda _: condition())


def opened(browser, address, width=1100, height=800):
    browser.set_window_size(width, height)
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
    assert "12 nearest" in find(browser, "#status")[0].text
    loaded = "return [...document.images].filter((i) => !i.hidden && i.complete && i.naturalWidth == 0).length"
    until(browser, lambda: browser.execute_script(loaded) == 0)
    shoot(browser, "desktop")


def test_a_dropped_file_is_searched(browser, address, pictures):
    opened(browser, address)
    drop = """
        const bytes = Uint8Array.from(arguments[0]);
        const data = new DataTransfer();
        data.items.add(new File([bytes], "dropped.png", {type: "image/png"}));
        document.getElementById("drop").dispatchEvent(new DragEvent("drop", {dataTransfer: data, bubbles: true}));
    """
    browser.execute_script(drop, list(png(pictures[21])))
    until(browser, lambda: labels(browser))
    assert set(labels(browser)[:5]) == {"blue"}
    assert find(browser, "#caption")[0].text == "dropped.png"


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
    assert "similarity 1.000" in find(browser, "#results .item")[0].get_attribute("aria-label")
    press(Keys.TAB, Keys.ARROW_UP)  # fewer results
    until(browser, lambda: len(labels(browser)) == 6)


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
        assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
        assert browser.execute_script("return window.innerWidth") == 390
        outside = "(box => box.width && (box.left < 0 || box.right > innerWidth))(e.getBoundingClientRect())"
        shown = f"[...document.querySelectorAll('body *')].filter((e) => {outside}).map((e) => e.outerHTML)"
        assert browser.execute_script(f"return {shown}") == []
        for element in [*find(browser, "#results .item")[:3], find(browser, "#count")[0], find(browser, "#drop")[0]]:
            assert element.size["height"] >= 40  # a finger's width
            assert element.size["width"] >= 40
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
    assert browser.execute_script(f"return {controls}.filter((e) => !e.ariaLabel && !e.labels?.length)") == []
