"""The site has versions: the workflow publishes what `make publish` commits, in the pinned environment."""

import json
import os
import pathlib
import shutil
import subprocess

import pytest
import yaml

ROOT = pathlib.Path(__file__).parents[1]
SITE = ROOT / ".venv-site" / "bin" / "python"


def test_the_workflow_publishes_main_and_tags():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "site.yml").read_text(encoding="utf-8"))
    assert workflow[True]["push"] == {"branches": ["main"], "tags": ["v*"]}  # YAML reads `on` as true
    assert workflow["permissions"] == {"contents": "write"}
    steps = {step.get("if", ""): step["run"] for step in workflow["jobs"]["publish"]["steps"] if "run" in step}
    assert "publish VERSION=dev" in steps["github.ref_type == 'branch'"]
    assert "ALIAS=latest" in steps["github.ref_type == 'tag'"] and steps[""] == "git push origin gh-pages"


def test_the_pages_ask_for_the_list_of_versions():
    assert "provider: mike" in (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert "\nmike==" in (ROOT / "constraints-docs.txt").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.skipif(not SITE.exists(), reason="no .venv-site here: `make site` makes it")
def test_two_versions_are_committed_side_by_side(tmp_path):
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
    for page in (clone / "docs").glob("*.md"):  # one page is enough
        if page.name != "faq.md":
            page.unlink()
    for folder in ("losses", "migration", "tutorials"):
        shutil.rmtree(clone / "docs" / folder)
    (clone / "docs" / "index.md").write_text("# Home\n", encoding="utf-8")
    config = "site_name: x\ndocs_dir: docs\nsite_dir: build/site\ntheme: {name: material, font: false}\n"
    (clone / "mkdocs.yml").write_text(config + "extra:\n  version: {provider: mike}\n", encoding="utf-8")
    environment = {**os.environ, "GIT_AUTHOR_NAME": "x", "GIT_AUTHOR_EMAIL": "x@example.com"}
    environment |= {"GIT_COMMITTER_NAME": "x", "GIT_COMMITTER_EMAIL": "x@example.com"}
    for version, alias in (("0.1", "latest"), ("0.2", "latest"), ("dev", "")):
        command = ["make", "-o", f"{SITE.parent.parent}/.ready", "publish", f"SITE={SITE.parent.parent}"]
        done = subprocess.run(
            [*command, f"VERSION={version}", f"ALIAS={alias}"],
            cwd=clone, env=environment, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr

    def show(path):
        return subprocess.run(["git", "show", f"gh-pages:{path}"], cwd=clone, capture_output=True, text=True).stdout

    versions = {one["version"]: one["aliases"] for one in json.loads(show("versions.json"))}
    assert versions == {"0.1": [], "0.2": ["latest"], "dev": []}
    assert "Home" in show("0.1/index.html") and "Home" in show("0.2/index.html")
    assert "latest" in show("index.html")
