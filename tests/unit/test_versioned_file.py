"""Files that say which format they have, and texts that are filled in: nothing is guessed in either."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jinja2
import msgspec
import pytest

from framework.errors import BadInputError
from framework.templates import fill_in
from framework.versioned_file import load_versioned, now_utc, replace_file, write_versioned


class Answer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: int
    words: tuple[str, ...]


ANSWER = Answer(format=2, words=("größer", "<b>"))


def loaded(path: Path) -> Answer:
    return load_versioned(path, Answer, formats=(1, 2), made_by="`kilonode ask`")


class TestReading:
    def test_gives_what_was_written(self, tmp_path: Path) -> None:
        write_versioned(tmp_path / "answer.json", ANSWER)
        assert loaded(tmp_path / "answer.json") == ANSWER

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b'{"format": 2',
            b'{"words": []}',
            b'{"format": "2", "words": []}',
            b'{"format": 2, "words": [1]}',
            b'{"format": 2, "words": [], "more": 1}',
            b"[2]",
            b"\xff\xfe",
            b"[" * 100_000,
            b'{"format": 2, "more": ' + b"[" * 100_000,
        ],
        ids=[
            "nothing",
            "half",
            "no format",
            "no number",
            "others",
            "more",
            "list",
            "binary",
            "deep",
            "deeper",
        ],
    )
    def test_refuses_a_damaged_file(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "answer.json"
        path.write_bytes(content)
        with pytest.raises(BadInputError, match="the file is damaged: ") as caught:
            loaded(path)
        assert (caught.value.where, caught.value.remedy) == (
            str(path),
            "give a file that `kilonode ask` wrote",
        )

    def test_refuses_another_format_whatever_else_is_in_it(self, tmp_path: Path) -> None:
        path = tmp_path / "answer.json"
        path.write_bytes(b'{"format": 3, "unheard_of": {}}')
        with pytest.raises(BadInputError, match="has format 3, this kilonode reads 1, 2") as caught:
            loaded(path)
        assert "make it again with `kilonode ask`" in caught.value.remedy

    @pytest.mark.parametrize(("name", "says"), [("missing", "No such file"), (".", "Is a directory")])
    def test_refuses_what_is_no_file(self, tmp_path: Path, name: str, says: str) -> None:
        with pytest.raises(BadInputError, match=f"the file can't be read: {says}"):
            loaded(tmp_path / name)


class TestWriting:
    def test_is_for_eyes_too(self, tmp_path: Path) -> None:
        write_versioned(tmp_path / "answer.json", ANSWER)
        text = (tmp_path / "answer.json").read_text()
        assert text.splitlines()[1] == '  "format": 2,'
        assert text.endswith("}\n")

    @pytest.mark.parametrize(
        ("name", "says"),
        [
            ("missing/answer.json", "No such file"),
            ("file/answer.json", "Not a directory"),
            ("folder", "directory"),
        ],
    )
    def test_to_a_place_that_is_none_is_refused_and_leaves_nothing(
        self, tmp_path: Path, name: str, says: str
    ) -> None:
        (tmp_path / "file").touch()
        (tmp_path / "folder").mkdir()
        with pytest.raises(BadInputError, match=f"the file can't be written: .*{says}") as caught:
            write_versioned(tmp_path / name, ANSWER)
        assert caught.value.where == str(tmp_path / name)
        assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder"]

    @pytest.mark.parametrize("fails", ["fsync", "replace"])
    def test_that_fails_leaves_the_old_file_whole(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fails: str
    ) -> None:
        path = tmp_path / "answer.json"
        replace_file(path, b"old")

        def refuse(*_: object) -> None:
            raise OSError(28, "No space left on device")

        owner: object = os if fails == "fsync" else Path
        monkeypatch.setattr(owner, fails, refuse)
        with pytest.raises(OSError, match="No space left"):
            replace_file(path, b"new")
        assert path.read_bytes() == b"old"
        assert list(tmp_path.iterdir()) == [path]


def test_a_moment_is_in_utc_and_of_whole_seconds() -> None:
    moment = datetime.fromisoformat(now_utc())
    assert moment.utcoffset() == timedelta(0)
    assert moment.microsecond == 0
    assert abs(datetime.now(UTC) - moment) < timedelta(minutes=1)


class TestTemplates:
    @pytest.fixture
    def package(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str, str], str]:
        """``package("x.txt.j2", text)`` gives the name of a package that has this template."""
        folder = tmp_path / "texts_to_fill_in"
        folder.mkdir()
        (folder / "__init__.py").touch()
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, folder.name, raising=False)

        def add(name: str, text: str) -> str:
            (folder / name).write_text(text)
            return folder.name

        return add

    @pytest.mark.parametrize(
        ("name", "filled"), [("x.html.j2", "a &lt;b&gt; &amp; c\n"), ("x.md.j2", "a <b> & c\n")]
    )
    def test_escape_values_in_html_and_nowhere_else(
        self, package: Callable[[str, str], str], name: str, filled: str
    ) -> None:
        assert fill_in(package(name, "a {{ what }}\n"), name, {"what": "<b> & c"}) == filled

    @pytest.mark.parametrize("text", ["{{ missing }}", "{{ there.missing }}", "{% if missing %}{% endif %}"])
    def test_miss_no_value_silently(self, package: Callable[[str, str], str], text: str) -> None:
        with pytest.raises(jinja2.UndefinedError, match="missing"):
            fill_in(package("x.md.j2", text), "x.md.j2", {"there": {}})

    def test_lines_of_control_leave_no_lines(self, package: Callable[[str, str], str]) -> None:
        text = "{% for each in all %}\n  - {{ each | loud }}\n  {% endfor %}\nend\n"
        filled = fill_in(
            package("x.md.j2", text), "x.md.j2", {"all": ["a", "b"]}, filters={"loud": str.upper}
        )
        assert filled == "  - A\n  - B\nend\n"
