"""Tables as people have them: a row that cannot be read is listed by its line, and costs no other row."""

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limber_interp.datasets import Rejected, open_dataset
from limber_interp.datasets.rows import Lines, Row, csv_rows, tsv_rows

UNCLOSED = "its quotes are not closed, or not written twice within others, or too long: "


def fields(rows) -> list[list[str] | str]:
    """Of each row its fields, or `line: what is wrong with it`."""
    return [f"{row.line}: {row.flaw}" if row.flaw else row.fields for row in rows]


def of_csv(*lines: str) -> list[list[str] | str]:
    return fields(csv_rows(Lines(io.StringIO("image,caption\n" + "\n".join(lines) + "\n", newline=""))))[1:]


def of_tsv(*lines: str) -> list[list[str] | str]:
    return fields(tsv_rows(Lines(io.StringIO("image\tcaption\n" + "\n".join(lines) + "\n", newline=""))))[1:]


def test_quotes_in_tsv_are_text() -> None:
    """Read as quoted CSV, seven rows had become five: a quote took all up to the next one, rows and all."""
    told = ['" a small dog', "a red bus", 'a "big" cat', 'a frog"', "an egg", '"a" and "b"', '" the last']
    assert of_tsv(*(f"{i}.jpg\t{caption}" for i, caption in enumerate(told))) == [
        [f"{i}.jpg", caption] for i, caption in enumerate(told)
    ]


def test_tsv_as_spreadsheets_write_it() -> None:
    stream = io.StringIO()
    told = [["0.jpg", 'say "hi"'], ["1.jpg", "a\ttab"], ["2.jpg", "two\n\nlines"], ["3.jpg", "a cat"]]
    csv.writer(stream, delimiter="\t", lineterminator="\r\n").writerows([["image", "caption"], *told])
    assert fields(tsv_rows(Lines(io.StringIO(stream.getvalue(), newline=""))))[1:] == told


def test_what_is_no_row_of_a_tsv() -> None:
    """Of the row with an open quote, it is not known whether the line after it belongs to it: both are listed."""
    found = of_tsv('0.jpg\t"a cat', "on a mat", "1.jpg\ta\tb", '2.jpg\t"a\tb', '3.jpg\tc"', "4.jpg\tan egg")
    assert found == [
        "2: a quote that is not closed before a line that is no row",
        "3: 1 field, but the header has 2",
        "4: 3 fields, but the header has 2",
        "5: 3 fields, but the header has 2",
        ["3.jpg", 'c"'],
        ["4.jpg", "an egg"],
    ]


def test_an_unquoted_comma_does_not_cut_the_caption() -> None:
    """It had become 'a cat', and the rest was dropped without a word."""
    found = of_csv("0.jpg,a cat, a dog and a bus", "1.jpg,a red bus", "2.jpg")
    assert found == [
        "2: 3 fields, but the header has 2; a field with a comma has to stand in quotes",
        ["1.jpg", "a red bus"],
        "4: 1 field, but the header has 2",
    ]


def test_a_blank_after_the_comma_is_no_part_of_a_field() -> None:
    """The caption had kept the blank and the quotes."""
    assert of_csv('0.jpg, "a cat, a dog"', "1.jpg, a bus") == [["0.jpg", "a cat, a dog"], ["1.jpg", "a bus"]]


@pytest.mark.parametrize(
    ("following", "why"),
    [
        ([], f"{UNCLOSED}unexpected end of data"),
        (['8.jpg,"closed"'], f"{UNCLOSED}',' expected after '\"'"),
        (['8.jpg,a,"closed"'], f"{UNCLOSED}',' expected after '\"'"),
        (['8.jpg,a cat"'], "a quote that is not closed before the next rows begin"),
    ],
)
def test_an_open_quote_costs_its_own_row_alone(following: list[str], why: str) -> None:
    """It had eaten the rest of the file, or all up to the next quote."""
    found = of_csv("0.jpg,a", '1.jpg,"an open one', "2.jpg,b", "3.jpg,c", *following)
    assert found[:4] == [["0.jpg", "a"], f"3: {why}", ["2.jpg", "b"], ["3.jpg", "c"]]
    assert len(found) == 4 + len(following)


def test_quoted_line_breaks_and_quotes_stay_one_row() -> None:
    found = of_csv('0.jpg,"a ""big"" cat', "on a mat, happily", "", 'and a dog"', '1.jpg,a "small" bus', '2.jpg,"a" b')
    assert found[:2] == [["0.jpg", 'a "big" cat\non a mat, happily\n\nand a dog'], ["1.jpg", 'a "small" bus']]
    assert found[2] == f"7: {UNCLOSED}',' expected after '\"'"


def test_rows_without_text_are_none() -> None:
    assert of_csv("", "   ", ",", "0.jpg,a", "") == [["0.jpg", "a"]]
    assert of_tsv("", "   ", "\t", "0.jpg\ta", "") == [["0.jpg", "a"]]


def test_a_field_beyond_csvs_limit_is_a_row_that_is_listed(tmp_path: Path) -> None:
    """The whole table had been refused, as "not in UTF-8"."""
    (tmp_path / "0.png").write_bytes(b"")
    content = f"path,caption\n0.png,{'x' * 200_000}\n0.png,a cat\n"
    (tmp_path / "t.csv").write_text(content)
    dataset = open_dataset(tmp_path / "t.csv")
    assert len(dataset) == 2
    with pytest.raises(Rejected, match=r"t\.csv, line 2: .* too long: field larger than field limit \(131072\)"):
        dataset[0]
    assert dataset[1].captions == ("a cat",)


@pytest.mark.parametrize(("name", "delimiter"), [("t.csv", ","), ("t.tsv", "\t")])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_byte_order_mark_and_line_ends(tmp_path: Path, name: str, delimiter: str, newline: str) -> None:
    for index in range(2):
        (tmp_path / f"{index}.png").write_bytes(b"")
    rows = [["path", "caption"], ["0.png", "a cat"], ["1.png", "a dog"], ["0.png", "a tom"]]
    content = "".join(delimiter.join(row) + newline for row in rows)
    (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + content.encode())
    dataset = open_dataset(tmp_path / name)
    assert [dataset[i].captions for i in range(len(dataset))] == [("a cat", "a tom"), ("a dog",)]


TEXT = st.text(st.sampled_from('ab "\n,\t\r'), max_size=6)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(TEXT, min_size=1, max_size=6), st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
def test_whatever_csv_writes_is_read_back(told: list[str], quoting) -> None:
    """Up to the blanks before a field."""
    stream = io.StringIO()
    csv.writer(stream, quoting=quoting).writerows(
        [["image", "caption"], *([f"{i}.jpg", t] for i, t in enumerate(told))]
    )
    found = fields(csv_rows(Lines(io.StringIO(stream.getvalue(), newline=""))))[1:]
    assert [(row[0], row[1].lstrip(" ")) for row in found] == [(f"{i}.jpg", t.lstrip(" ")) for i, t in enumerate(told)]


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.text(st.sampled_from('ab ",\t\n'), max_size=40), st.sampled_from([csv_rows, tsv_rows]))
def test_every_letter_is_in_a_row_or_in_a_line_that_is_listed(text: str, rows) -> None:
    """Whatever is in the lines, nothing of them vanishes, and nothing is there twice."""
    lines = list(io.StringIO("image,caption\timage\n" + text, newline=""))
    found: list[Row] = list(rows(Lines(lines)))[1:]
    assert [row.line for row in found] == sorted({row.line for row in found})
    kept = "".join(lines[row.line - 1] if row.flaw else "".join(row.fields) for row in found)
    for letter in "ab":
        assert kept.count(letter) == text.count(letter)
