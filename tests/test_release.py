"""What is published: links, archives that are the same to the bit, and nothing left out."""

import importlib.util
import io
import pathlib
import re
import tarfile
import zipfile

import pytest

from tools.release import building, contents

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
