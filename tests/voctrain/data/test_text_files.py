import re

import pytest

from tests.voctrain.data.drawing import write_lines
from voctrain.data.text_files import naming_file, read_header, read_lines, read_table, read_text


class TestText:
    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"])
    @pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
    def test_encodings_and_line_endings(self, tmp_path, encoding, end):
        write_lines(tmp_path / "x.txt", ["img_01", "Straße 7", ""], encoding, end)
        assert read_text(tmp_path / "x.txt") == "img_01\nStraße 7\n\n"

    def test_lines_end_nowhere_else(self, tmp_path):
        """Python ends lines at these characters, too."""
        write_lines(tmp_path / "x.txt", ["a\x0bb", "  c\x85d ", "", "   ", "e\u2028f"])
        assert read_lines(tmp_path / "x.txt") == ["a\x0bb", "c\x85d", "e\u2028f"]

    @pytest.mark.parametrize("raw", [b"\x89PNG\r\n\x1a\n\0\0", b"a\0b", b"\0\5\x16\7", b"\x1f\x8b\x08"])
    def test_other_files_are_refused(self, tmp_path, raw):
        (tmp_path / "x.txt").write_bytes(raw)
        with pytest.raises(ValueError, match=r"^(lists and tables must be text, but|every file must be readable, but)"):
            read_text(tmp_path / "x.txt")

    def test_a_missing_file_is_named(self, tmp_path):
        with pytest.raises(ValueError, match=r"every file must be readable, but .*x.txt is not \(FileNotFoundError"):
            read_lines(tmp_path / "x.txt")


class TestTables:
    def read(self, tmp_path, text):
        (tmp_path / "x.csv").write_bytes(text.encode())
        header, rows = read_table(tmp_path / "x.csv")
        assert read_header(tmp_path / "x.csv") == header
        return header, rows

    @pytest.mark.parametrize("delimiter", [",", ";", "\t"])
    def test_delimiters(self, tmp_path, delimiter):
        text = "filename,cat,dog\nx 1.jpg, 1 ,0\n".replace(",", delimiter)
        assert self.read(tmp_path, text) == (["filename", "cat", "dog"], [["x 1.jpg", "1", "0"]])

    def test_an_index_column(self, tmp_path):
        assert self.read(tmp_path, ",file\n0,x\n") == (["", "file"], [["0", "x"]])
        assert self.read(tmp_path, "\tfile\n0\tx\n") == (["", "file"], [["0", "x"]])

    def test_quotes(self, tmp_path):
        text = 'file,"dog, wild; tame"\n"x, y.jpg","a ""b"""\n'
        assert self.read(tmp_path, text) == (["file", "dog, wild; tame"], [["x, y.jpg", 'a "b"']])

    def test_line_feeds_in_cells_are_blanks(self, tmp_path):
        assert self.read(tmp_path, 'file,"wild\ndog"\nx,"1\n"\n') == (["file", "wild dog"], [["x", "1"]])

    def test_blank_rows_and_trailing_delimiters(self, tmp_path):
        text = "\n\nfile,cat\r\n\r\nx,1,,\r\n,\r\ny,0,\r\n"
        assert self.read(tmp_path, text) == (["file", "cat"], [["x", "1"], ["y", "0"]])

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "must have a header, but .*x.csv is empty"),
            ("\n , \n", "must have a header, but .*x.csv is empty"),
            ("a,b\n1,2\n1\n", r"as long as its header \(2\), but row 3 of .*x.csv has 1 cells: correct it"),
            ("a,b\n1,2,3\n", r"row 2 of .*x.csv has 3 cells"),
            ("a,b\n" + "1" * 200_000, r"x.csv is not \(Error: field larger than field limit"),
        ],
    )
    def test_bad_tables_are_refused(self, tmp_path, text, message):
        (tmp_path / "x.csv").write_text(text)
        with pytest.raises(ValueError, match=r"^") as raised:
            read_table(tmp_path / "x.csv")
        assert re.search(message, str(raised.value))
        assert "\n" not in str(raised.value)


def test_any_error_becomes_one_line_with_the_path(tmp_path):
    message = r"^every file must be readable, but x is not \(KeyError: 'a'\): replace"
    with pytest.raises(ValueError, match=message), naming_file("x"):
        raise KeyError("a")
    with pytest.raises(ValueError, match=r"\(RuntimeError: two lines\)"), naming_file("x"):
        raise RuntimeError("two\nlines")
