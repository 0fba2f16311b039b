"""The page of the search and what it may do."""

import base64
import hashlib
import re

from tf_detreg.serving import search


def test_nothing_runs_in_the_page_but_its_style_and_its_script():
    page, policy = search._page()
    for tag in ("style", "script"):
        (text,) = re.findall(rf"<{tag}>(.+?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'; " in policy
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert {name for name, what in rules.items() if what == "'none'"} == {
        "default-src",
        "base-uri",
        "form-action",
        "frame-ancestors",
    }
    assert rules["connect-src"] == "'self'" and "unsafe" not in policy
