"""Splitting of captions into words: CLIP's cleaning and splitting, and GPT-2's splitting.

Most captions are plain ASCII, for which the standard library's `re` gives the same words many times faster than ftfy
and regex; those two are imported by the first caption that needs them. Any string is accepted, including control
characters and lone surrogates.
"""

import contextlib
import re

_CLIP = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

# In tab, newlines, space and the printable characters but `&`, ftfy has nothing to repair (it removes control
# characters, rewrites terminal escapes, and otherwise only looks at what is not ASCII) and HTML nothing to unescape.
_PLAIN = re.compile(r"[\t\n\r -%'-~]*").fullmatch

# The same alternatives for lower-case ASCII. Their order matters only where two can begin alike: at ' and at <.
_CLIP_PLAIN = re.compile(
    r"[a-z]+|[0-9]|'(?:s|t|re|ve|m|ll|d)|<\|(?:startoftext|endoftext)\|>|[^\t\n\r a-z0-9]+"
).findall

# Spaces are listed because re's \s has four control characters more than regex's.
_GPT2_PLAIN = re.compile(
    r"'(?:s|t|re|ve|m|ll|d)| ?[a-z]+| ?[0-9]+| ?[^ \t-\ra-z0-9]+|[ \t-\r]+(?![^ \t-\r])|[ \t-\r]+"
).findall


def clip_words(text: str) -> list[str]:
    """Return the words of a caption as CLIP's tokenizer splits it: repaired, in lower case; every digit is a word."""
    if _PLAIN(text):
        return _CLIP_PLAIN(text.lower())
    return _clip_words_of_any(text)


def gpt2_words(text: str) -> list[str]:
    """Return the words of a caption as GLIDE's tokenizer splits it: in lower case; words keep their leading space."""
    if text.isascii():
        return _GPT2_PLAIN(text.lower())
    return _gpt2_words_of_any(text)


def _clip_words_of_any(text: str) -> list[str]:
    import html

    import ftfy
    import regex

    text = ftfy.fix_text(text)
    with contextlib.suppress(ValueError):  # a numeric reference of more digits than int() reads
        text = html.unescape(html.unescape(text))
    text = regex.sub(r"\s+", " ", text.strip()).strip().lower()
    return regex.findall(_CLIP, text, regex.IGNORECASE)


def _gpt2_words_of_any(text: str) -> list[str]:
    import regex

    text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")  # lone surrogates have no UTF-8
    return regex.findall(_GPT2, text.lower())
