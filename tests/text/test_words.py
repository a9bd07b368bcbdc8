import subprocess
import sys

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dalle_cli.text import words

# Pieces at which two alternatives of a pattern, or two characters of a repair, could meet.
PIECES = [
    "'",
    "s",
    "'re",
    "'LL",
    "<",
    "|",
    "startoftext",
    "<|startoftext|>",
    "<|EndOfText|>",
    "|>",
    " ",
    "  ",
    "\t",
    "\n",
]
PIECES += [
    "\r\n",
    "\r",
    "\f",
    "\v",
    "\0",
    "\x1b[3m",
    "\x1c",
    "\x7f",
    "&",
    "&amp;",
    "&lt",
    ";",
    "#",
    "9",
    "42",
    "_",
    "-",
    "A",
]
ascii_text = st.lists(st.sampled_from(PIECES) | st.characters(max_codepoint=127), max_size=25).map("".join)
any_text = st.lists(
    st.sampled_from([*PIECES, "\ud83e", "\udd51", "🥑", "\u200d", "\ufeff", "Ã©", "’", "ﬁ", "İ", "ß", "①", "\u2028"])
    | st.characters(exclude_categories=[]),
    max_size=25,
).map("".join)


@given(text=ascii_text)
@settings(max_examples=400, deadline=None)
@example("a <|startoftext|> b!<|endoftext|>'s")
def test_the_fast_paths_give_the_words_of_the_slow_ones(text):
    assert words.clip_words(text) == words._clip_words_of_any(text)
    assert words.gpt2_words(text) == words._gpt2_words_of_any(text)


def test_the_fast_paths_hold_for_every_pair_of_characters():
    for first in map(chr, range(128)):
        text = "".join(f"{first}{chr(second)}a1{first}." for second in range(128))
        assert words.gpt2_words(text) == words._gpt2_words_of_any(text)
        for second in map(chr, range(128)):
            if words._PLAIN(first + second):
                pair = f"a{first}{second}b{first}{second}"
                assert words.clip_words(pair) == words._clip_words_of_any(pair)


def test_the_fast_paths_are_taken_by_plain_captions_only(monkeypatch):
    monkeypatch.setattr(words, "_clip_words_of_any", lambda text: ["slow"])
    assert words.clip_words("A photo of 2 cats,\n<b>isn't</b> it?") != ["slow"]
    for text in ("&lt;", "é", "\0", "\x0b", "\x1b[0m", "\x7f", "“"):
        assert words.clip_words(text) == ["slow"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("  Two\tCATS\n", ["two", "cats"]),
        ("it's they're I'LL", ["it", "'s", "they", "'re", "i", "'ll"]),
        ("1,024 px", ["1", ",", "0", "2", "4", "px"]),
        ("foo_bar!?", ["foo", "_", "bar", "!?"]),
        ("&amp;amp;lt; caf\xe9", ["<", "café"]),
        ("mojibake: Ã©", ["mojibake", ":", "é"]),
        ("it'ſ", ["it", "'ſ"]),  # case is ignored, and that is an s
        ("a<|EndOfText|>b", ["a", "<|endoftext|>", "b"]),
        ("nul\0l \ud83e\udd51 \ud800", ["null", "🥑", "\ufffd"]),
    ],
)
def test_clip_words(text, expected):
    assert words.clip_words(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("Two  CATS ", ["two", " ", " cats", " "]),
        ("it's I'LL", ["it", "'s", " i", "'ll"]),
        ("1,024 px", ["1", ",", "024", " px"]),
        ("a\n\nb", ["a", "\n", "\n", "b"]),
        ("caf\xe9 &amp;", ["café", " &", "amp", ";"]),
        ("\ud83e\udd51 \ud800x", ["🥑", " \ufffd", "x"]),
    ],
)
def test_gpt2_words(text, expected):
    assert words.gpt2_words(text) == expected


@given(text=any_text)
@settings(max_examples=400, deadline=None)
def test_any_string_gives_words_that_utf8_can_hold(text):
    for word in words.clip_words(text) + words.gpt2_words(text):
        assert word.encode()


@given(text=any_text)
@settings(deadline=None)
def test_gpt2_words_lose_nothing(text):
    repaired = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    assert "".join(words.gpt2_words(text)) == repaired.lower()


def test_captions_of_hostile_length_pass():
    assert len(words.clip_words("word " * 10_000)) == 10_000
    assert len(words.clip_words("café " * 10_000)) == 10_000
    assert words.clip_words("a &#" + "9" * 5000 + "; b")[0] == "a"  # int() refuses that many digits
    assert len(words.gpt2_words("’ " * 10_000)) == 10_001


def test_plain_captions_import_neither_ftfy_nor_regex():
    code = (
        "import sys; from dalle_cli.text import words; "
        "assert words.clip_words('a cat') == ['a', 'cat'] and words.gpt2_words('a cat') == ['a', ' cat']; "
        "print(sorted({'ftfy', 'regex', 'torch', 'numpy'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
