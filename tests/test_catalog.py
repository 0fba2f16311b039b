"""The commands of an index, from a folder of photos and a table of prices to other databases."""

import json
import logging
import re
import types

import keras
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from tf_detreg import cli, indexing, item_table
from tf_detreg.index import Index
from tf_detreg.retrieval import bulk_shards
from tf_detreg.retrieval.embedding import embed_parts

COLORS = {"red": (200, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 200)}


def command(*arguments, code=0) -> str:
    """Runs the command in this process; its errors come out as they are."""
    result = CliRunner().invoke(cli.app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.stdout  # without the progress that a slow machine shows


@pytest.fixture(scope="module")
def embedder():
    """Puts an image where its mean color lies."""
    layers = [keras.Input((8, 8, 3)), keras.layers.GlobalAveragePooling2D(), keras.layers.UnitNormalization()]
    return keras.Sequential(layers)


@pytest.fixture
def run(monkeypatch, embedder, tmp_path):
    """A run whose model is that one."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    loaded = types.SimpleNamespace(embedder=embedder, directory=folder)
    monkeypatch.setattr("tf_detreg.training.load_run", lambda directory, data=None: loaded)
    return folder


def photo(path, color, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(-15, 16, (8, 8, 3))
    Image.fromarray((np.asarray(color) + noise).clip(0, 255).astype(np.uint8)).save(path)
    return path


@pytest.fixture
def shop(run, tmp_path):
    """Six photos in folders of three colors, a file that is none, and an index of all of them."""
    photos = tmp_path / "photos"
    for number, (name, color) in enumerate(COLORS.items()):
        for seed in range(2):
            photo(photos / name / f"{seed}.png", color, 2 * number + seed)
    (photos / "broken.png").write_text("no picture")
    place = tmp_path / "shop.index"
    assert "6 images indexed" in command("index", run, photos, "--to", place)
    return types.SimpleNamespace(photos=photos, place=place, run=run)


def rows(shop, *more):
    return [json.loads(line) for line in command("index", "list", shop.place, "--json", *more).splitlines()]


def test_building_has_a_name_too(shop, tmp_path):
    command("index", "build", shop.run, shop.photos, "--to", tmp_path / "again")
    assert Index.load(tmp_path / "again").ids == Index.load(shop.place).ids
    command("index", "--to", tmp_path / "third", shop.run, shop.photos)
    assert len(Index.load(tmp_path / "third")) == 6


def test_new_photos_are_added_and_known_ones_passed_over(shop, monkeypatch):
    photo(shop.photos / "red" / "new.png", COLORS["red"])
    said = command("index", "add", shop.place, shop.photos)
    assert said.startswith("1 images added, 6 there already, 1 unreadable")
    assert len(rows(shop)) == 7 and rows(shop)[-1]["label"] == "red"
    # The same file by another name is the same file.
    monkeypatch.chdir(shop.photos)
    assert command("index", "add", shop.place, "red/new.png").startswith("0 images added, 1 there already")
    before = Index.load(shop.place).vector(str(shop.photos / "red" / "new.png"))
    photo(shop.photos / "red" / "new.png", COLORS["blue"])
    said = command("index", "add", shop.place, shop.photos / "red" / "new.png", "--replace")
    assert said.startswith("0 images added, 1 replaced")
    after = Index.load(shop.place).vector(str(shop.photos / "red" / "new.png"))
    assert after[2] > 0.9 > before[2]


def test_work_that_is_stopped_goes_on(shop, monkeypatch):
    for number in range(7):
        photo(shop.photos / "green" / f"more {number}.png", COLORS["green"], number)
    monkeypatch.setattr(indexing, "_PART", 2)
    monkeypatch.setattr("tf_detreg.retrieval.embedding.embed_parts", small_parts(stop=3))
    with pytest.raises(KeyboardInterrupt):
        indexing.add_files(shop.place, [shop.photos])
    assert len(rows(shop)) == 6 + 4
    monkeypatch.setattr("tf_detreg.retrieval.embedding.embed_parts", small_parts())
    done = indexing.add_files(shop.place, [shop.photos])
    assert (done.added, done.known, len(rows(shop))) == (3, 10, 13)


def small_parts(stop=None):
    def parts(embedder, images, progress=None):
        for number, part in enumerate(embed_parts(embedder, images, batch_size=1)):
            if stop is not None and number == 2 * stop - 1:
                raise KeyboardInterrupt
            yield part

    return parts


def test_another_model_is_refused_before_anything_is_embedded(shop, monkeypatch):
    layers = [keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(3), keras.layers.UnitNormalization()]
    other = types.SimpleNamespace(embedder=keras.Sequential(layers), directory=shop.run)
    monkeypatch.setattr("tf_detreg.training.load_run", lambda directory, data=None: other)
    with pytest.raises(ValueError, match="another model"):
        command("index", "add", shop.place, shop.photos)


def test_photos_are_not_added_to_an_index_that_went_to_another_model_meanwhile(shop, monkeypatch):
    def parts(embedder, images, progress=None):
        vectors = np.random.default_rng(0).standard_normal((6, 3))
        Index.load(shop.place).refresh(vectors, Index.load(shop.place).ids, "0123456789abcdef")
        yield from embed_parts(embedder, images)

    photo(shop.photos / "red" / "new.png", COLORS["red"])
    monkeypatch.setattr("tf_detreg.retrieval.embedding.embed_parts", parts)
    with pytest.raises(ValueError, match="the index was made by another model"):
        indexing.add_files(shop.place, [shop.photos])
    assert len(rows(shop)) == 6


def test_a_table_gives_prices_ids_and_files(shop, tmp_path, caplog):
    photo(tmp_path / "tables" / "violet.png", (200, 20, 200))
    table = tmp_path / "tables" / "items.csv"
    lines = [
        "path,id,price,article,sold",
        "violet.png,v1,12.5,007,false",
        "../photos/red/0.png,r0,8,,true",
        "gone.png,g,1,,",
    ]
    table.write_text("\n".join(lines))
    command("index", shop.run, shop.photos, "--csv", table, "--to", tmp_path / "priced")
    made = Index.load(tmp_path / "priced")
    assert len(made) == 7 and {"v1", "r0"} <= set(made.ids) and "1 of 3 files are not there" in caplog.text
    assert made.metadata("v1")["price"] == 12.5 and made.metadata("v1")["article"] == "007"
    assert made.metadata("r0")["label"] == "red" and made.metadata("r0")["sold"] is True
    assert "article" not in made.metadata("r0")
    # The table alone.
    command("index", shop.run, "--csv", table, "--to", tmp_path / "alone")
    assert Index.load(tmp_path / "alone").ids == ["v1", "r0"]
    assert command("index", "add", shop.place, "--csv", table).startswith("1 images added, 1 there already")


def test_search_filters_and_prints_json(shop, tmp_path):
    query = shop.photos / "red" / "0.png"
    said = command("search", shop.place, query, "-k", 3, "--where", 'label in ("green", "blue")', "--json")
    (row,) = map(json.loads, said.splitlines())
    assert [one["metadata"]["label"] for one in row["neighbors"]] != [] and row["query"] == "0.png"
    assert {one["metadata"]["label"] for one in row["neighbors"]} <= {"green", "blue"}
    assert len(row["neighbors"]) == 3 and row["neighbors"][0]["id"].endswith(".png")
    # More are asked for than the filter keeps.
    picture = ["--picture", tmp_path / "n.png"]
    said = command("search", shop.place, query, "-k", 5, "--where", "label = 'blue'", "--json", *picture)
    assert len(json.loads(said)["neighbors"]) == 2 and (tmp_path / "n.png").is_file()
    with pytest.raises(ValueError, match="matches no item"):
        command("search", shop.place, query, "--where", "label = 'grey'", *picture)
    with pytest.raises(ValueError, match="--where filters the items of an index"):
        command("search", shop.run, query, "--where", "label = 'grey'", *picture)


def test_items_are_listed(shop):
    said = command("index", "list", shop.place, "-n", 2)
    assert "6 of 3 dimensions" in said and "label (text)" in said and "search      exact" in said
    assert len(said.strip().splitlines()) == 5 + 2
    assert len(rows(shop, "--where", 'label = "red"')) == 2
    assert "2 items: label" in command("index", "list", shop.place, "--where", 'label = "red"', "-n", 0)


def test_items_are_removed_and_the_space_given_back(shop):
    assert "2 items removed, 4 left" in command("index", "remove", shop.place, "--where", 'label = "red"')
    gone = rows(shop)[0]["id"]
    assert "1 items removed, 3 left" in command("index", "remove", shop.place, gone)
    with pytest.raises(ValueError, match="is not in the index"):
        command("index", "remove", shop.place, gone)
    for wrong in ([], [gone, "--where", "price > 1"]):
        with pytest.raises(ValueError, match="Say which items"):
            command("index", "remove", shop.place, *wrong)
    assert "3 vectors that `compact` gives back" in command("index", "list", shop.place)
    assert "MB before" in command("index", "compact", shop.place)
    assert "gives back" not in command("index", "list", shop.place)
    assert "as it was written: 3 items" in command("index", "verify", shop.place)


def test_an_integer_is_an_id_where_it_is_one(tmp_path):
    Index(np.eye(4), [7, "8", "x", 9], [{"id": "y"}] * 4).save(tmp_path / "i")
    command("index", "remove", tmp_path / "i", "7", "8")
    assert Index.load(tmp_path / "i").ids == ["x", 9]
    for wrong in ("009", "+9", "9_", " 9"):
        with pytest.raises(ValueError, match="is not in the index"):
            command("index", "remove", tmp_path / "i", wrong)
    # What is listed is what can be removed, whatever the metadata say.
    assert [json.loads(line) for line in command("index", "list", tmp_path / "i", "--json").splitlines()] == [
        {"id": "x"},
        {"id": 9},
    ]


def test_damage_is_found(shop):
    (file,) = (shop.place / "segments").iterdir()
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match="does not match its checksum"):
        command("index", "verify", shop.place)


def test_an_index_is_exported_by_its_ending(shop, tmp_path):
    pytest.importorskip("pyarrow")
    assert "6 items written as parquet" in command("index", "export", shop.place, "--to", tmp_path / "x.parquet")
    assert Index.from_parquet(tmp_path / "x.parquet").ids == Index.load(shop.place).ids
    only = ["--where", 'label = "red"']
    assert "2 items written as pgvector" in command("index", "export", shop.place, "--to", tmp_path / "x.sql", *only)
    assert "embedding vector(3)" in (tmp_path / "x.sql").read_text()
    with pytest.raises(ValueError, match="say what to write with --format"):
        command("index", "export", shop.place, "--to", tmp_path / "x")


def test_an_index_is_exported_to_embedded_databases(shop, tmp_path):
    qdrant_client, lancedb = pytest.importorskip("qdrant_client"), pytest.importorskip("lancedb")
    for name in ("qdrant", "lancedb"):
        command("index", "export", shop.place, "--to", tmp_path / name, "--format", name, "--table", "shop")
    assert qdrant_client.QdrantClient(path=str(tmp_path / "qdrant")).count("shop").count == 6
    assert lancedb.connect(str(tmp_path / "lancedb")).open_table("shop").count_rows() == 6


def test_an_index_moves_to_a_new_model(shop, monkeypatch, embedder):
    assert "is of this model already" in command("index", "refresh", shop.place, "--run", shop.run)
    before = rows(shop)
    layers = [embedder, keras.layers.Dense(4, use_bias=False), keras.layers.UnitNormalization()]
    other = types.SimpleNamespace(embedder=keras.Sequential([keras.Input((8, 8, 3)), *layers]), directory="new")
    monkeypatch.setattr("tf_detreg.training.load_run", lambda directory, data=None: other)
    query = shop.photos / "red" / "0.png"
    with pytest.raises(ValueError, match="4 dimensions and the index has 3"):
        command("search", shop.place, query, "--json")
    (shop.photos / "blue" / "1.png").rename(shop.photos / "blue" / "1.bak")
    with pytest.raises(ValueError, match="1 items cannot be embedded again, and 5 that can are too few"):
        command("index", "refresh", shop.place, "--run", shop.run)
    assert rows(shop) == before
    (shop.photos / "blue" / "1.bak").rename(shop.photos / "blue" / "1.png")
    assert "6 images embedded again: " in command("index", "refresh", shop.place, "--run", shop.run)
    assert Index.load(shop.place).dimension == 4 and rows(shop) == before
    said = json.loads(command("search", shop.place, query, "-k", 1, "--json"))
    assert said["neighbors"][0]["id"] == str(query)


def test_an_index_goes_into_shards_that_answer_as_one(shop, tmp_path):
    shards, query = tmp_path / "shards", photo(tmp_path / "query.png", COLORS["green"], 9)
    said = command("index", "shard", shop.place, "--to", shards, "--shards", 3, "--field", "label")
    assert said.startswith("6 items in 3 shards")
    asked = ["--json", "-k", 3, "--where", 'label in ("green", "red")']
    assert command("search", shards, query, *asked) == command("search", shop.place, query, *asked)
    listed = [json.loads(line) for line in command("index", "list", shards, "--json").splitlines()]
    assert sorted(row["id"] for row in listed) == sorted(row["id"] for row in rows(shop))
    said = command("index", "list", shards, "-n", 1, "--where", 'label = "red"')
    assert "6 of 3 dimensions, in 3 shards" in said and "2 items" in said and "label (text, indexed)" in said
    assert "as it was written: 6 items" in command("index", "verify", shards)


def test_a_filter_that_cannot_be_read_is_refused_before_anything_is_listed(shop):
    result = CliRunner().invoke(cli.app, ["index", "list", str(shop.place), "--where", "price <"])
    assert "`where` cannot be read" in str(result.exception) and result.output == ""


def test_metadata_that_a_table_does_not_change_is_told(shop, tmp_path):
    first, *_ = rows(shop)
    (tmp_path / "items.csv").write_text(f"path,price\n{first['path']},7\n", encoding="utf-8")
    said = command("index", "add", shop.place, "--csv", tmp_path / "items.csv")
    assert "1 there already" in said and "--replace takes those of the table" in said
    said = command("index", "add", shop.place, "--csv", tmp_path / "items.csv", "--replace")
    assert "1 replaced" in said and "--replace takes" not in said
    assert "there already" in (said := command("index", "add", shop.place, first["path"])) and "--replace" not in said


def test_a_folder_of_shards_changes_as_an_index_does(shop, tmp_path):
    shards = tmp_path / "shards"
    command("index", "shard", shop.place, "--to", shards, "--shards", 3)
    photo(tmp_path / "new" / "red" / "7.png", COLORS["red"], 7)
    first, *_ = rows(shop)
    for place in (shop.place, shards):
        said = command("index", "add", place, tmp_path / "new", tmp_path / "photos")
        assert said.startswith("1 images added, 6 there already")
        assert command("index", "remove", place, first["id"]).startswith("1 items removed, 6 left")
        assert command("index", "remove", place, "--where", 'label = "green"').startswith("2 items removed, 4 left")
        command("index", "add", place, tmp_path / "photos")
    listed = [json.loads(line) for line in command("index", "list", shards, "--json").splitlines()]
    assert sorted(map(str, listed)) == sorted(map(str, rows(shop))) and len(listed) == 7
    assert "as it was written: 7 items" in command("index", "verify", shards)  # each in its shard
    with pytest.raises(ValueError, match="is not in the index"):
        command("index", "remove", shards, listed[0]["id"], "nothing.png")
    assert "7 of 3 dimensions" in command("index", "list", shards)


def test_a_filter_on_a_field_that_is_not_there_names_those_that_are(shop, tmp_path):
    shards, query = tmp_path / "shards", photo(tmp_path / "query.png", COLORS["green"], 9)
    command("index", "shard", shop.place, "--to", shards, "--shards", 2)
    for place in (shop.place, shards):
        said = r"matches no item.* No item has the field 'prize'; the fields are: .*label"
        with pytest.raises(ValueError, match=said):
            command("search", place, query, "--json", "--where", "prize < 3")
        with pytest.raises(ValueError, match=r"matches no item.*there is nothing to find\.$"):
            command("search", place, query, "--json", "--where", 'label = "pink"')


@pytest.mark.parametrize(
    "given",
    [
        "index compact {}",
        "index compress {}",
        "index export {} --to a.sql",
        "index refresh {} --run {run}",
    ],
)
def test_a_command_that_takes_no_shards_says_which_do(shop, tmp_path, given):
    command("index", "shard", shop.place, "--to", tmp_path / "shards", "--shards", 2)
    given = [word.format(tmp_path / "shards", run=shop.run) for word in given.split()]
    with pytest.raises(ValueError, match=r"holds 2 shards of an index\. .*index-00000-of-00002"):
        command(*given)


def test_a_bulk_embedding_goes_into_shards(run, tmp_path, monkeypatch):
    source = tmp_path / "vectors"
    source.mkdir()
    for shard in range(2):
        names = [name for name in "abcdefgh" if bulk_shards.shard_of(name, 2) == shard]
        with bulk_shards.writing(
            source / bulk_shards.name_of("embeddings", shard, 2, "tfrecord"), "tfrecord", 3
        ) as write:
            write(names, np.eye(3)[[ord(name) % 3 for name in names]])
    assert command("index", "shard", source, "--to", tmp_path / "a", "--run", run).startswith("8 items in 2 shards")
    assert command("index", "shard", source, "--to", tmp_path / "b", "--shards", 5).startswith("8 items in 5 shards")
    narrow = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(2)])
    wrong = r"`dimension` must be that of the vectors, 3; received 2\. Another model"
    with monkeypatch.context() as patch:
        patch.setattr("tf_detreg.training.load_run", lambda directory: types.SimpleNamespace(embedder=narrow))
        for more in ([], ["--shards", 2]):
            with pytest.raises(ValueError, match=wrong):
                command("index", "shard", source, "--to", tmp_path / "c", "--run", run, *more)
    assert not (tmp_path / "c").exists()
    kept = [command("index", "list", tmp_path / name, "--json").splitlines() for name in "ab"]
    assert sorted(kept[0]) == sorted(kept[1]) and json.loads(kept[0][0]).keys() == {"id", "path"}
    photo(tmp_path / "query.png", COLORS["red"])
    with pytest.raises(ValueError, match="does not say which run"):
        command("search", tmp_path / "a", tmp_path / "query.png")
    found = command("search", tmp_path / "a", tmp_path / "query.png", "--run", run, "--json", "-k", 2)
    assert found.count('"id"') == 2 and re.search('"id": "[cf]"', found)
    with pytest.raises(FileNotFoundError, match="`source`: there is no"):
        command("index", "shard", tmp_path / "nothing", "--to", tmp_path / "c")
    with pytest.raises(ValueError, match="how many shards, such as --shards 4"):
        command("index", "shard", tmp_path / "b" / "index-00000-of-00005", "--to", tmp_path / "c")


def test_help_teaches():
    group = command("index", "--help")
    names = ("build", "add", "remove", "list", "verify", "compact", "compress", "refresh", "export")
    assert "shop.index" in group and all(name in group for name in names)
    for name in names:
        assert len(command("index", name, "--help")) > 200
    assert "index" in command("--help") and command("index", code=2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,price\n", "lists no images"),
        ("file,price\na.png,1\n", "needs a column 'path'"),
        ("path,price\na.png\n", "number of columns is wrong"),
        ("path,price\na.png,1,2\n", "number of columns is wrong"),
        ("path,id\na.png,x\nb.png,x\n", "the id 'x' is there twice"),
        ("path,id\na.png,\n", "the id is empty"),
        ("path\n\0.png\n", "zero byte"),
        (b"path\ncaf\xe9.png\n", "is not UTF-8"),
    ],
)
def test_a_table_that_cannot_be_used_is_told(tmp_path, text, message):
    table = tmp_path / "items.csv"
    table.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=message):
        item_table.read_items(table)


def test_columns_have_types(tmp_path):
    table = tmp_path / "items.csv"
    rows = ["path,n,x,flag,code,mixed,none", "a,1,1.5,true,01,1,", "b,,2,False,2,x,", "c,-3,1e3,,3,,"]
    table.write_text("\ufeff" + "\n".join(rows), encoding="utf-8")
    found = [item.metadata for item in item_table.read_items(table)]
    assert found == [
        {"n": 1, "x": 1.5, "flag": True, "code": "01", "mixed": "1"},
        {"x": 2.0, "flag": False, "code": "2", "mixed": "x"},
        {"n": -3, "x": 1000.0, "code": "3"},
    ]


def test_a_table_without_files_is_refused(shop, tmp_path, caplog):
    (tmp_path / "t.csv").write_text("path\ngone.png\n")
    with caplog.at_level(logging.WARNING), pytest.raises(ValueError, match="not one of its 1 files is there"):
        command("index", shop.run, "--csv", tmp_path / "t.csv", "--to", tmp_path / "x")
    with pytest.raises(ValueError, match="or a table"):
        command("index", shop.run, "--to", tmp_path / "x")
