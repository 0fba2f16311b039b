"""Chromium without a window, for tests of pages."""

import contextlib
import shutil

import pytest

webdriver = pytest.importorskip(
    "selenium.webdriver", reason="selenium is not installed: the pages' browser tests cannot run"
)
BROWSER, DRIVER = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
needed = pytest.mark.skipif(
    not (BROWSER and DRIVER), reason="no chromium with chromedriver here: apt-get install chromium chromium-driver"
)


@contextlib.contextmanager
def opened():
    """A driver of Chromium that keeps what pages write to the console."""
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--lang=en"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    try:
        yield driver
    finally:
        driver.quit()


def until(browser, condition):
    """What `condition` returns once it is true."""
    from selenium.webdriver.support.wait import WebDriverWait

    return WebDriverWait(browser, 20).until(lambda _: condition())
