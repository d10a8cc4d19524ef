"""Files of labels: three formats, what a column is, and what is wrong with a file, said in one line."""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sfumato.conditions.attributes import Attribute
from sfumato.config.data import DataConfig
from sfumato.data import label_files, open_data
from sfumato.data.label_files import read_labels
from sfumato.data.labels import MOST_INTEGERS, MOST_VALUES, column, from_columns, remarks
from sfumato.data.sources.protocol import Labels
from sfumato.errors import UserError

ORIGINS = ("a/1.png", "a/2.png", "b/3.png")
Read = Callable[..., Labels]
MakeFolder = Callable[..., Path]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Read text, or bytes, as a file of labels of ORIGINS."""

    def done(content: str | bytes, name: str = "labels.csv", chosen: Sequence[str] = ()) -> Labels:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return read_labels(path, ORIGINS, chosen)

    return done


def told(labels: Labels) -> list[list[str]]:
    """What is known of each image, as words."""
    return [[a.text(x) for a, x in zip(labels.attributes, row, strict=True)] for row in labels.conditions.tolist()]


# ---- formats ----

TABLE = [["long", "35"], ["short", "not given"], ["not given", "53.5"]]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_csv(read: Read, separator: str, ends: str, mark: str) -> None:
    lines = ["path,hair,age", "./a/1.png,long,35", "b/3.png, ,53.5 ", "", "a/2.png,short,NaN"]
    labels = read(mark + ends.join(lines).replace(",", separator))
    assert told(labels) == TABLE
    assert labels.attributes == (Attribute("hair", ("long", "short")), Attribute("age", mean=44.25, std=9.25))
    assert labels.notes == ()


def test_json_lines(read: Read) -> None:
    rows = [
        {"file": "a/1.png", "hair": "long", "age": 35},
        {"hair": "short", "file": "a/2.png", "age": None},
        {"file": "b/3.png", "age": 53.5},
    ]
    assert told(read("\n".join(map(json.dumps, rows)), "labels.jsonl")) == TABLE
    truth = read('{"file": "a/1.png", "hat": true}\n\n{"file": "a/2.png", "hat": false}\n')
    assert truth.attributes == (Attribute("hat", ("no", "yes")),)
    assert told(truth) == [["yes"], ["no"], ["not given"]]


def test_celebas_list(read: Read) -> None:
    """The published layout: a count, the names, and a line an image, with spaces to align the signs."""
    text = "3\nEyeglasses Wavy_Hair \na/1.png -1  1\na/2.png  1 -1\nb/3.png  1  1\n"
    labels = read(text, "list_attr_celeba.txt")
    assert labels.attributes == (Attribute("Eyeglasses", ("no", "yes")), Attribute("Wavy_Hair", ("no", "yes")))
    assert labels.conditions.tolist() == [[0, 1], [1, 0], [1, 1]]


def test_quotes_and_any_script(read: Read) -> None:
    labels = read('file,title\na/1.png,"a ""b"", c"\nb/3.png,猫\n')
    assert told(labels) == [['a "b", c'], ["not given"], ["猫"]]


def test_rows_of_an_array_are_named_by_their_number(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("row,name\n2,c\n0,a\n")
    labels = read_labels(path, [f"digits[{n}]" for n in range(3)])
    assert told(labels) == [["a"], ["not given"], ["c"]]


def test_columns_are_chosen_by_name(read: Read) -> None:
    text = "file,a,b,c\na/1.png,1,x,0.5\na/2.png,0,y,1.5\n"
    labels = read(text, chosen=("c", "b"))
    assert [attribute.name for attribute in labels.attributes] == ["c", "b"]
    assert told(labels)[0] == ["0.5", "x"]
    with pytest.raises(UserError, match=r"labels\.csv' has no attribute 'bb'; did you mean 'b'"):
        read(text, chosen=("bb",))


def test_what_does_not_fit_is_counted(read: Read) -> None:
    labels = read("file,a\na/1.png,x\na/1.png,y\ngone.png,y\nb/4.png,z\n")
    assert told(labels) == [["x"], ["not given"], ["not given"]]
    assert labels.attributes == (Attribute("a", ("x",)),), "values of images that are not here are none"
    assert labels.notes == (
        "2 images have no row in labels.csv: they train without labels",
        "2 rows of labels.csv without an image in the data",
        "1 row of labels.csv for an image that has one: the first row counts",
    )


@pytest.mark.parametrize(
    "lines", [["a/1.png,pug", "a/2.png,husky", "b/3.png,pug"], ["1.png,pug", "2.png,husky", "3.png,pug"]]
)
def test_a_first_line_that_names_an_image_is_no_header(read: Read, lines: list[str]) -> None:
    labels = read("\n".join(lines))
    assert labels.attributes == (Attribute("class", ("husky", "pug")),)
    assert labels.conditions[:, 0].tolist() == [1, 0, 1]
    assert "labels.csv has no header: its columns are called class" in labels.notes


def test_columns_without_a_header_are_numbered(read: Read) -> None:
    labels = read("gone.jpg,pug,3.5\na/2.png,husky,4\n")
    assert [attribute.name for attribute in labels.attributes] == ["column2", "column3"]
    assert told(labels)[1] == ["husky", "4"]
    assert told(labels)[0] == ["not given", "not given"], "the picture of the first line is not in the data"


def test_names_without_folders_or_suffixes(read: Read) -> None:
    labels = read("id,breed\n1,pug\n3,husky\n")
    assert told(labels) == [["pug"], ["not given"], ["husky"]]
    assert "labels.csv gives no paths as the images have them: its rows were matched by file name without suffix" in (
        labels.notes
    )
    assert told(read("file,breed\nelsewhere/1.png,pug\n"))[0] == ["pug"]


def test_a_name_that_two_images_have_is_refused(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("file,a\n1.png,x\n")
    with pytest.raises(UserError, match=r"names images by file name alone, which several have: .* such as 'a/1\.png'"):
        read_labels(tmp_path / "labels.csv", ["a/1.png", "b/1.png"])


# ---- what a column is ----


@pytest.mark.parametrize("text", ["N/A", "n/a", "NA", "#N/A", "null", "None", "-", "?", "unknown"])
def test_missing_numbers_leave_a_column_of_numbers(read: Read, text: str) -> None:
    labels = read(f"file,age\na/1.png,1.5\na/2.png,{text}\nb/3.png, \n")
    assert labels.attributes == (Attribute("age", mean=1.5, std=1.0),)
    assert told(labels) == [["1.5"], ["not given"], ["not given"]]
    assert labels.notes == (f"age: '{text}' (1 cells) counts as not given",)


def test_missing_among_yes_and_no_and_among_words() -> None:
    attribute, values = column("c", ["yes", "N/A", "no"])
    assert attribute == Attribute("c", ("no", "yes"))
    np.testing.assert_array_equal(values, np.float32([1, math.nan, 0]))
    assert kind(["none", "clear", "dark"]).values == ("clear", "dark", "none"), "a word among words is a value"
    assert kind(["N/A", "N/A"]).values == ("N/A",)


def test_a_single_word_among_numbers_is_said(read: Read) -> None:
    labels = read("file,age\na/1.png,1.5\na/2.png,2.5\nb/3.png,about 3\n" + "x.png,4.5\n")
    assert labels.attributes[0].values == ("1.5", "2.5", "about 3")
    many = {f"{k}.png": str(k / 2) for k in range(8)} | {"8.png": "about 3"}
    columns = [(name, cell) for name, cell in many.items()]
    assert remarks({"age": [cell for _, cell in columns]}, ["age"]) == [
        "age is not read as a number, since 'about 3' is none: it has 9 values"
    ]


def test_integers_of_a_column_called_class_are_classes() -> None:
    """Such as the .cls of a set of a hundred classes."""
    many = [str(n) for n in range(100)]
    assert column("class", many)[0].values == tuple(many)
    assert column("Label", many)[0].values == tuple(many)
    assert column("age", many)[0].values == ()
    assert column("label", [str(n) for n in range(MOST_VALUES + 1)])[0].values == ()


def kind(cells: Sequence[str | None]) -> Attribute:
    return column("c", cells)[0]


@pytest.mark.parametrize("pair", [("no", "yes"), ("False", "TRUE"), ("0", "1"), ("-1", "1")])
def test_yes_or_no(pair: tuple[str, str]) -> None:
    attribute, values = column("c", [pair[1], pair[0], None, pair[1]])
    assert attribute == Attribute("c", ("no", "yes"))
    np.testing.assert_array_equal(values, np.float32([1, 0, math.nan, 1]))


def test_few_integers_are_names_and_many_a_scale() -> None:
    few = [str(n) for n in range(MOST_INTEGERS)]
    assert kind(few[::-1]).values == tuple(few), "in the order of numbers: 9 before 10"
    many = [str(n) for n in range(MOST_INTEGERS + 1)]
    assert kind(many) == Attribute("c", mean=MOST_INTEGERS / 2, std=float(np.arange(MOST_INTEGERS + 1).std()))
    assert kind(["1", "2.5"]).values == ()
    assert kind(["1", "2.5", "x"]).values == ("1", "2.5", "x")
    assert kind(["1_000", "2.5"]).values == ("1_000", "2.5")
    assert kind(["1e3", "-2"]).values == ("-2", "1e3")


def test_a_number_is_standardised_over_the_images_that_have_it() -> None:
    raw = np.random.default_rng(0).normal(40, 12, 500)
    cells = [None if n % 3 == 0 else repr(float(x)) for n, x in enumerate(raw)]
    attribute, values = column("age", cells)
    given = ~np.isnan(values)
    assert given.tolist() == [n % 3 != 0 for n in range(500)]
    assert abs(values[given].mean()) < 1e-6
    assert abs(values[given].std() - 1) < 1e-6
    np.testing.assert_allclose(attribute.mean + attribute.std * values[given], raw[given], rtol=1e-5)
    assert kind(["0.5", "0.5"]) == Attribute("c", mean=0.5, std=1.0), "a constant has no scale"


def test_a_column_that_tells_images_apart_is_refused() -> None:
    assert len(kind([f"t{n}" for n in range(MOST_VALUES)]).values) == MOST_VALUES
    with pytest.raises(UserError, match=r"1,001 different texts.*data.attributes"):
        kind([f"t{n}" for n in range(MOST_VALUES + 1)])


# ---- files that can't be used ----


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"\xef\xbb\xbf \n", "is empty"),
        ("file,näme\na/1.png,x".encode("latin-1"), "not UTF-8"),
        ("file,name\na/1.png,x".encode("utf-16"), "not UTF-8"),
        ("file\na/1.png", "only the column of file names"),
        ("file,a,b\na/1.png,x\n", "line 2 has 2 cells, and its header 3"),
        ("file,a\na/1.png,x\na/2.png,x,y\n", "line 3 has 3 cells, and its header 2"),
        ('file,a\na/1.png,"x\n', "line 2 is not CSV"),
        ("file,a,a\na/1.png,x,y\n", "two columns 'a'"),
        ("file,a,\na/1.png,x,y\n", "no name for its column 3"),
        ("file,a=b\na/1.png,x\n", "attribute 'a=b': a name must not"),
        ("file,a\n9.png,x\n", "names none of the images: it names '9.png' where the data has 'a/1.png'"),
        ("file,a\n", "names none of the images: it names 'nothing'"),
        ("file,a\na/1.png,\n", "the column 'a' is empty"),
        ("3\nA B\na/1.png -1 1\na/2.png 1 1\n", "has 2 images where its first line says 3"),
        ("1\nA B\na/1.png -1\n", "line 3 has 1 values for 2 attributes"),
        ('{"file": "a/1.png", "x": 1}\n{"x": 2}\n', "line 2 is not an object with a file"),
        ('{"file": "a/1.png", "x": [1]}', "line 1 is not an object"),
        ('{"file": "a/1.png", "x": 1}\n[]\n', "line 2"),
        ('{"file": "a/1.png", "x": 1}\n{"fi', "line 2"),
    ],
)
def test_a_bad_file_is_one_line(read: Read, content: str | bytes, words: str) -> None:
    with pytest.raises(UserError, match=words) as error:
        read(content)
    assert "\n" not in str(error.value)
    assert "labels.csv" in str(error.value)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'.*nowhere\.csv' can't be read \(No such file.*give none, source or"):
        read_labels(tmp_path / "nowhere.csv", ORIGINS)


def test_control_characters_in_columns_beside_the_images_are_escaped() -> None:
    labels = from_columns({"\x1b[2Jkind": ["a\x07", "b", "b"]}, 3)
    assert labels.attributes == (Attribute("\\x1b[2Jkind", ("a\\x07", "b")),)
    assert labels.conditions[:, 0].tolist() == [0, 1, 1]


def test_special_and_huge_files_are_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(UserError, match="not a regular file"):
            read_labels(path, ORIGINS)
    (tmp_path / "long.csv").write_text("file,kind\n" + "x.png,a\n" * 40)
    monkeypatch.setattr(label_files, "MOST_ROWS", 5)
    with pytest.raises(UserError, match=r"has 41 rows, far more than there are images"):
        read_labels(tmp_path / "long.csv", ("a.png", "b.png"))
    monkeypatch.setattr(label_files, "MOST_BYTES", 100)
    with pytest.raises(UserError, match="larger than 100 bytes"):
        read_labels(tmp_path / "long.csv", ORIGINS)


def test_more_attributes_than_a_network_can_have_are_refused(make_folder: MakeFolder, own_cache: Path) -> None:
    folder, most = make_folder("set", 3), 256
    names = [f"a{k}" for k in range(most + 1)]
    rows = [[f"000{n}.png", *(str((n + k) % 2) for k in range(most + 1))] for n in range(3)]
    (folder.parent / "l.csv").write_text("".join(",".join(row) + "\n" for row in [["file", *names], *rows]))
    config = DataConfig(str(folder), labels=str(folder.parent / "l.csv"), held_out=0.0)
    with pytest.raises(UserError, match=r"257 attributes, and at most 256 .* data\.attributes"):
        open_data(config)
    assert len(open_data(replace(config, attributes=("a5", "a7"))).attributes) == 2


def test_numbers_too_large_to_standardise_are_one_line_and_no_warning(read: Read) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserError, match="mean inf"):
            read("file,x\na/1.png,0.5\na/2.png,1.7e308\nb/3.png,1.6e308\n")
