"""What is published: links, archives that are the same to the bit, and nothing left out."""

import importlib.util
import io
import pathlib
import re
import subprocess
import sys
import tarfile
import zipfile

import pytest

from tools.release import __main__ as command
from tools.release import building, contents, tagging

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture
def setup(monkeypatch):
    pytest.importorskip("setuptools")
    monkeypatch.setenv("TF_DETREG_REPOSITORY", "https://example.com/us/it/")
    spec = importlib.util.spec_from_file_location("project_setup", ROOT / "setup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_links_are_absolute_where_a_package_index_shows_them(setup):
    text = "[page](docs/x.md#a) ![picture](docs/x.svg) [web](https://example.org) [here](#here) `[a](b)`"
    assert setup.absolute(text, "https://example.com/us/it", "v1.2.3") == (
        "[page](https://example.com/us/it/blob/v1.2.3/docs/x.md#a) "
        "![picture](https://example.com/us/it/raw/v1.2.3/docs/x.svg) [web](https://example.org) [here](#here) "
        "`[a](https://example.com/us/it/blob/v1.2.3/b)`"
    )
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)\s]+)\)", setup.absolute(readme, "https://forge.example/o/it", "v1"))
    assert len(links) > 20 and all(re.match(r"https?:|#", link) for link in links)
    inside = [link for link in links if link.startswith("https://forge.example/o/it/")]
    assert "https://forge.example/o/it/raw/v1/docs/pictures/neighbors.png" in inside
    for link in inside:
        path = link.removeprefix("https://forge.example/o/it/").split("/", 2)[2].partition("#")[0]
        assert (ROOT / path).exists(), link
    assert all(address.startswith("https://example.com/us/it") for address in setup.addresses("1.2.3").values())


def packed(path, files, when):
    with tarfile.open(path, "w:gz") as archive:
        for number, name in enumerate(files):
            member = tarfile.TarInfo(name)
            member.size, member.mtime, member.uid, member.uname = (
                len(name),
                when + number,
                int(when) % 9,
                f"user {when}",
            )
            archive.addfile(member, io.BytesIO(name.encode()))
    return path


def test_an_archive_does_not_tell_when_and_by_whom_it_was_made(tmp_path):
    names = ["it-1/b.py", "it-1/a.py"]
    first = packed(tmp_path / "first.tar.gz", names, 1_000_000.25)
    second = packed(tmp_path / "second.tar.gz", names[::-1], 2_000_000.75)
    assert first.read_bytes() != second.read_bytes()
    again = [tmp_path / "1" / "it.tar.gz", tmp_path / "2" / "it.tar.gz"]
    for source, target in zip((first, second), again, strict=True):
        target.parent.mkdir()
        building.repacked(source, target, 1_700_000_000)
    assert again[0].read_bytes() == again[1].read_bytes()
    with tarfile.open(again[0]) as archive:
        assert archive.getnames() == sorted(names)
        assert {member.mtime for member in archive} == {1_700_000_000}
        assert archive.extractfile("it-1/a.py").read() == b"it-1/a.py"


def test_the_source_distribution_takes_every_file_of_the_repository():
    """Of the package setuptools sees to itself; `python -m tools.release check` compares what was really built."""
    try:
        tracked = building.tracked(ROOT)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not in a clone")
    rules = [line.split() for line in (ROOT / "MANIFEST.in").read_text(encoding="utf-8").splitlines()]
    folders = {"tf_detreg", *(name for rule in rules if rule[:1] == ["graft"] for name in rule[1:])}
    patterns = [
        "MANIFEST.in",
        "pyproject.toml",
        "setup.py",
        *(name for rule in rules if rule[:1] == ["include"] for name in rule[1:]),
    ]
    left = [
        name
        for name in tracked
        if name.partition("/")[0] not in folders and not any(pathlib.PurePath(name).match(each) for each in patterns)
    ]
    assert left == []


def test_what_an_archive_lacks_is_named(tmp_path):
    source = packed(tmp_path / "it.tar.gz", ["it-1/tf_detreg/a.py", "it-1/README.md"], 0)
    assert contents.missing_in_source(source, ["tf_detreg/a.py", "README.md", "tests/x.py"]) == ["tests/x.py"]
    wheel = tmp_path / "it.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in ("tf_detreg/a.py", "tests/x.py", "it-1.dist-info/METADATA"):
            archive.writestr(name, "x")
    tracked = ["tf_detreg/a.py", "tf_detreg/page.html", "tests/x.py"]
    assert contents.wrong_in_wheel(wheel, tracked) == ["lacks tf_detreg/page.html", "holds tests/x.py"]
    assert contents.metadata(wheel) == "x"


ADDRESS = "https://example.com/us/it"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A repository of its own, ready to be tagged, which the command takes for the project."""
    root = tmp_path / "project"
    (root / "tf_detreg").mkdir(parents=True)
    (root / "pyproject.toml").write_text('[project]\nname = "it"\nversion = "1.2.3"\n')
    (root / "tf_detreg" / "__init__.py").write_text('__version__ = "1.2.3"\n')
    (root / "CITATION.cff").write_text("cff-version: 1.2.0\nversion: 1.2.3\n")
    (root / "CHANGELOG.md").write_text("# Changelog\n\n## 1.2.3 (2026-01-02)\n\n- New.\n\n## 1.2.2 (2025-01-02)\n")
    git = ["git", "-c", "user.name=A", "-c", "user.email=a@example.com"]
    for key, value in (("AUTHOR_NAME", "A"), ("AUTHOR_EMAIL", "a@example.com")):
        monkeypatch.setenv(f"GIT_{key}", value)
        monkeypatch.setenv(f"GIT_{key.replace('AUTHOR', 'COMMITTER')}", value)
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "All"]):
        subprocess.run([*git, *arguments], cwd=root, check=True)
    monkeypatch.setattr(command, "ROOT", root)
    return root


def commit(root, name, text):
    (root / name).write_text(text)
    building.git(root, "commit", "-q", "-a", "-m", f"Change {name}")


def test_a_commit_that_is_ready_is_tagged_once(project, monkeypatch, capsys):
    built = []
    monkeypatch.setattr(
        building, "build", lambda root, *_: built.append(root) or [project / "a.tar.gz", project / "a.whl"]
    )
    monkeypatch.setattr(command, "check_archives", lambda *_: built.append("checked"))
    monkeypatch.setattr(command, "check_installed", lambda *_: built.append("installed"))
    monkeypatch.setattr(sys, "argv", ["release", "tag", "--repository", ADDRESS + "/"])
    command.main()
    assert built == [project, "checked", "installed"]
    assert building.git(project, "tag", "--list") == "v1.2.3"
    assert building.git(project, "cat-file", "-t", "v1.2.3") == "tag"  # with a message, not a mere name
    assert building.git(project, "rev-parse", "v1.2.3^{commit}") == building.git(project, "rev-parse", "HEAD")
    assert f"git push origin v1.2.3; twine upload {project / 'a.tar.gz'}" in capsys.readouterr().out
    with pytest.raises(SystemExit, match=r"^v1\.2\.3 is tagged already\.$"):
        command.main()
    assert len(built) == 3  # nothing was built for it


def test_a_check_that_fails_leaves_no_tag(project, monkeypatch):
    monkeypatch.setattr(building, "build", lambda *_: [project / "a.tar.gz", project / "a.whl"])
    monkeypatch.setattr(command, "check_archives", lambda *_: sys.exit("a.whl lacks a.py."))
    monkeypatch.setattr(sys, "argv", ["release", "tag", "--repository", ADDRESS])
    with pytest.raises(SystemExit, match="lacks"):
        command.main()
    assert building.git(project, "tag", "--list") == ""


def test_a_commit_that_is_not_ready_is_refused_with_every_reason(project):
    assert tagging.refusals(project, ADDRESS) == []
    assert tagging.refusals(project, "") == ["A release needs --repository, the https address that its links lead to."]
    (project / "new.py").write_text("")
    assert tagging.refusals(project, ADDRESS) == ["There are uncommitted changes."]
    (project / "new.py").unlink()
    commit(project, "CITATION.cff", "cff-version: 1.2.0\nversion: 1.2.2\n")
    commit(project, "tf_detreg/__init__.py", "")
    assert tagging.refusals(project, ADDRESS) == [
        "pyproject.toml says 1.2.3, and tf_detreg/__init__.py no version.",
        "pyproject.toml says 1.2.3, and CITATION.cff 1.2.2.",
    ]


@pytest.mark.parametrize(
    "changes",
    [
        "## 1.2.3 (unreleased)\n",
        "## 1.2.2 (2025-01-02)\n",
        "## 1.2.4 (unreleased)\n\n## 1.2.3 (2026-01-02)\n",
        "## 1x2.3 (2026-01-02)\n",
        "",
    ],
)
def test_the_changelog_begins_with_the_version_and_its_day(project, changes):
    commit(project, "CHANGELOG.md", f"# Changelog\n\n{changes}")
    assert tagging.refusals(project, ADDRESS) == ["CHANGELOG.md must begin with the heading '## 1.2.3 (YYYY-MM-DD)'."]
