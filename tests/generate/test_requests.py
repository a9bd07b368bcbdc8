import io
import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dalle_cli.generate import requests
from dalle_cli.generate.requests import (
    GenerationRequest,
    PlannedImage,
    PromptError,
    json_object,
    plan_images,
    read_requests,
)

# Text that a prompt may be: any Unicode but NUL; surrogates are no characters.
text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60)


def piped(content: str | bytes, **options) -> list[GenerationRequest]:
    data = content.encode() if isinstance(content, str) else content
    return read_requests(["-"], stdin=io.BytesIO(data), **options)


def test_order_of_words_file_and_standard_input(tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text("from a file\n")
    asked = read_requests(["a red apple", "-", "two cats"], file, stdin=io.BytesIO(b"piped\n"))
    assert [request.prompt for request in asked] == ["a red apple", "piped", "two cats", "from a file"]
    assert read_requests() == []


def test_standard_input_is_read_once():
    assert read_requests(file="-", stdin=io.BytesIO(b"a cat")) == [GenerationRequest("a cat")]
    with pytest.raises(PromptError, match="only once"):
        read_requests(["-"], "-", stdin=io.BytesIO(b"a cat"))


def test_lines_are_prompts_or_json():
    asked = piped(
        'a cat\r\n\n  \t\n  {"prompt": "a dog", "seed": 7, "mood": ["glad"]}\n{"prompt": ""}\nlast, no newline'
    )
    assert asked == [
        GenerationRequest("a cat"),
        GenerationRequest("a dog", 7, {"mood": ["glad"]}),
        GenerationRequest(""),
        GenerationRequest("last, no newline"),
    ]


def test_words_can_be_json():
    assert read_requests(['{"prompt": "a dog", "seed": 7}']) == [GenerationRequest("a dog", 7)]


def test_byte_order_marks_are_removed():
    assert piped(b'\xef\xbb\xbfa cat\n\xef\xbb\xbf{"prompt": "a dog"}\n') == [
        GenerationRequest("a cat"),
        GenerationRequest("a dog"),
    ]


def test_only_newlines_end_a_line():
    odd = "a cat\u2028and\x0ba\x85dog"
    assert piped(f"{odd}\n") == [GenerationRequest(odd)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "standard input is empty: expected one prompt or JSON object per line; did the command before it fail?"),
        (b"\n \n\t\n", "standard input is empty"),
        (b"a cat\nb\0d\n", "standard input, line 2: a NUL character; is it a text file?"),
        ("a cat\n".encode("utf-16"), "standard input, line 1: UTF-16; save it as UTF-8"),
        ("a cat".encode("utf-16-be"), "standard input, line 1: a NUL character"),
        (b"\n\ncaf\xe9\n", "standard input, line 3: not UTF-8 text; save it as UTF-8"),
        (b"\xed\xa0\x80\n", "line 1: not UTF-8"),
        (b"ok\n" + b"x" * 5_000_000, "line 2: longer than 262144 bytes"),
        (b"x" * 10_001, "line 1: a prompt of 10001 characters; shorten it to 10000"),
        (b'{"prompt": "a cat"\n', "line 1: not JSON: .* \\(column 19\\); write a prompt that starts with {"),
        (b"{a cat}", 'as {"prompt": ...}'),
        (b'{"prompt": "a cat"} trailing', "line 1: not JSON: Extra data"),
        (b'{"prompt": "\\ud83e"}', "line 1: text that is not Unicode"),
        (b'{"prompt": "x", "note": {"\\udd51": 1}}', "line 1: text that is not Unicode"),
        (b'{"prompt": "a\\u0000b"}', "line 1: a NUL character in its text"),
        (b'{"prompt": 5}', "line 1: 'prompt' must be text, not 5"),
        (b'{"prompt": ["a"]}', "'prompt' must be text"),
        (b'{"promt": "a cat"}', "line 1: no 'prompt' among its fields: 'promt'"),
        (b'{"prompt": null}', "no 'prompt'"),
        (b'{"prompt": "x", "seed": "x"}', "line 1: 'seed' must be an integer from 0 to 2\\*\\*64 - 1, not 'x'"),
        (b'{"prompt": "x", "seed": -1}', "'seed' must be"),
        (b'{"prompt": "x", "seed": 1.5}', "'seed' must be"),
        (b'{"prompt": "x", "seed": true}', "'seed' must be"),
        (b'{"prompt": "x", "seed": 18446744073709551616}', "'seed' must be"),
        (b'{"prompt": "x", "seed": ' + b"9" * 5000 + b"}", "too many digits"),
        (b'{"prompt": "x", "sample_index": 4294967296}', "'sample_index' must be"),
        (b'{"prompt": "x", "image": 3}', "'image' must be the path of a file, not 3"),
        (b'{"prompt": "x", "mask": " "}', "'mask' must be the path"),
        (b'{"prompt": "x", "score": NaN}', "not JSON: NaN"),
        (b'{"prompt": "x", "score": 1e999}', "a number too large"),
        (b'{"prompt": ' + b"[" * 100_000, "JSON nested too deeply"),
        (b'{"prompt": "x", "a": ' + b"[" * 50 + b"]" * 50 + b"}", "JSON nested too deeply"),
    ],
)
def test_bad_lines_name_their_source(content, message):
    with pytest.raises(PromptError, match=message) as error:
        piped(content)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 250


def test_bad_words_are_refused():
    with pytest.raises(PromptError, match="command line: an empty prompt"):
        read_requests(["a cat", " "])
    with pytest.raises(PromptError, match="command line: text that is not Unicode"):
        read_requests(["caf\udce9"])  # how Python shows bytes on the command line that are not UTF-8


def test_endless_input_is_refused(monkeypatch):
    with open("/dev/zero", "rb") as zeros, pytest.raises(PromptError, match="line 1: longer than"):
        read_requests(["-"], stdin=zeros)
    monkeypatch.setattr(requests, "MAX_REQUESTS", 3)
    assert len(piped("y\n" * 3)) == 3
    with pytest.raises(PromptError, match="more than 3 requests"):
        piped("y\n" * 4)


def test_files_without_requests_are_refused(tmp_path):
    with pytest.raises(PromptError, match=r"nothing.txt: No such file or directory; give a text file"):
        read_requests(file=tmp_path / "nothing.txt")
    with pytest.raises(PromptError, match=f"{tmp_path}: Is a directory"):
        read_requests(file=tmp_path)
    (tmp_path / "empty.txt").touch()
    with pytest.raises(PromptError, match=r"empty.txt is empty: expected one prompt or JSON object per line$"):
        read_requests(file=tmp_path / "empty.txt")
    (tmp_path / "bad.txt").write_text('{"seed": 1}\n')
    with pytest.raises(PromptError, match=r"bad.txt, line 1: no 'prompt'"):
        read_requests(file=tmp_path / "bad.txt")


def test_bad_line_among_others_is_a_failed_request(tmp_path):
    (tmp_path / "bad.txt").write_text('a cat\n{"seed": 1}\n{"prompt": "a dog"}\n')
    cat, bad, dog = read_requests(file=tmp_path / "bad.txt")
    assert [(one.prompt, one.failed) for one in (cat, bad, dog)] == [("a cat", False), (None, True), ("a dog", False)]
    assert bad.line == {"error": f"{tmp_path}/bad.txt, line 2: no 'prompt' among its fields: 'seed'"}
    with pytest.raises(PromptError, match="no 'prompt'"):
        read_requests(["a cat", '{"seed": 1}'])


def test_too_many_images_are_refused():
    with pytest.raises(PromptError, match="2 prompts x 9999999999 images"):
        plan_images([GenerationRequest("a cat"), GenerationRequest("a dog")], 9_999_999_999)


def test_closed_standard_input(monkeypatch):
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(PromptError, match="standard input is closed"):
        read_requests(["-"])


@pytest.fixture
def here(tmp_path, monkeypatch):
    for name in ("a.png", "b.png", "new.png", "old.png"):
        (tmp_path / name).write_bytes(b"?")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_image_field_of_words_lines_and_results(here):
    lines = 'a.png\n{"image": "b.png", "prompt": "a hat"}\n{"path": "new.png", "image": "old.png", "score": 0.5}\n'
    asked = piped(lines, plain_field="image", file_fields=("image",))
    assert [request.fields["image"] for request in asked] == ["a.png", "b.png", "new.png"]
    assert asked[1].prompt == "a hat"
    assert asked[2].passthrough == {"image": "new.png"}  # neither the path nor the score is that of what will be drawn


def test_path_field_keeps_the_line(here):
    line = {"prompt": "a hat", "seed": 3, "index": 5, "path": "new.png", "image": "old.png", "mood": "glad"}
    first, second = piped(json.dumps(line) + '\n{"image": "a.png"}', plain_field="path", file_fields=("path",))
    assert first.line == line
    assert second.line == {"image": "a.png", "path": "a.png"}


def test_prompts_of_results_have_no_image(here):
    (request,) = piped('{"prompt": "a hat", "path": "gone.png"}')
    assert request.passthrough == {}


def test_wrong_paths_are_found_when_read(here):
    _, gone = piped("a.png\ngone.png\n", plain_field="image", file_fields=("image",))
    assert "line 2: no file 'gone.png' (relative to " in gone.fields["error"]
    with pytest.raises(PromptError, match=r"line 1: '.' is a folder; give an image"):
        piped(".", plain_field="image", file_fields=("image",))
    with pytest.raises(PromptError, match=r"command line: no file 'gone.png'"):
        read_requests(['{"prompt": "x", "image": "a.png", "mask": "gone.png"}'], file_fields=("image", "mask"))
    with pytest.raises(PromptError, match="no 'image' among its fields: 'prompt'"):
        piped('{"prompt": "a hat"}', plain_field="image", file_fields=("image",))
    with pytest.raises(PromptError, match="no 'path' among its fields: 'prompt'"):
        piped('{"prompt": "a hat"}', plain_field="path", file_fields=("path",))


def test_failed_requests_are_passed_on(here):
    line = {"prompt": "a hat", "seed": 1, "index": 4, "image": "gone.png", "error": "broken"}
    for options in (
        {"plain_field": "image", "file_fields": ("image",)},
        {"plain_field": "path", "file_fields": ("path",)},
    ):
        (request,) = piped(json.dumps(line), **options)
        assert request.failed
        assert request.line == line
    assert not piped("a.png", plain_field="path", file_fields=("path",))[0].failed


def test_plan_numbers_the_samples_of_each_seed():
    cat, dog = GenerationRequest("a cat"), GenerationRequest("a dog", 7)
    items = plan_images([cat, dog], num_images=2, default_seed=5)
    assert items == [
        PlannedImage(0, 5, 0, cat),
        PlannedImage(1, 5, 1, cat),
        PlannedImage(2, 7, 0, dog),
        PlannedImage(3, 7, 1, dog),
    ]
    assert [(item.seed, item.sample_index) for item in plan_images([cat, dog], 2, seed=9, default_seed=5)] == [
        (9, 0), (9, 1), (9, 2), (9, 3)
    ]  # fmt: skip
    assert plan_images([], 3) == []


def test_noise_seed_depends_on_seed_and_sample_index_only():
    cat, dog = GenerationRequest("a cat"), GenerationRequest("a dog")
    assert PlannedImage(3, 7, 1, cat).noise_seed == PlannedImage(0, 7, 1, dog).noise_seed == 3825955368494240696
    noises = {
        PlannedImage(0, seed, draw, cat).noise_seed for seed in (0, 1, 10, 2**64 - 1) for draw in (0, 1, 10, 2**32)
    }
    assert len(noises) == 16
    assert all(0 <= noise < 2**63 for noise in noises)  # fits a signed integer, as tensors hold them


@given(st.lists(st.none() | st.integers(0, 2**64 - 1), max_size=6), st.integers(1, 4), st.integers(0, 2**64 - 1))
def test_result_lines_reproduce_their_images(seeds, count, default):
    items = plan_images([GenerationRequest("x", seed) for seed in seeds], count, default_seed=default)
    lines = [
        json.dumps({"prompt": "x", "seed": i.seed, "sample_index": i.sample_index, "index": i.index}) for i in items
    ]
    if lines:
        again = plan_images(piped("\n".join(reversed(lines))))
        assert [(i.seed, i.sample_index) for i in again] == [(i.seed, i.sample_index) for i in reversed(items)]


@given(text)
@settings(max_examples=300)
@example("{not a mapping}")
def test_any_prompt_survives_json(prompt):
    assert piped(json.dumps({"prompt": prompt})) == [GenerationRequest(prompt)]
    assert piped(json.dumps({"prompt": prompt}, ensure_ascii=False)) == [GenerationRequest(prompt)]


@given(text.filter(lambda s: s.strip() and not s.strip().startswith("{") and "\n" not in s))
@example("\ufeffa cat")
def test_any_line_of_text_is_a_prompt(prompt):
    got = piped(f"{prompt}\n")[0].prompt
    assert got == prompt.removeprefix("\ufeff").strip()


@given(st.binary(max_size=80) | st.binary(max_size=60).map(lambda tail: b'{"prompt": "' + tail))
@settings(max_examples=500)
def test_any_bytes_give_requests_or_one_line(data):
    try:
        outcome = [json.dumps(request.line, ensure_ascii=False, allow_nan=False) for request in piped(data)]
    except PromptError as error:
        outcome = [str(error)]
    assert outcome
    assert "\n" not in "".join(outcome).encode().decode()  # can be written again, one a line


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(
        text.filter(lambda key: key not in ("prompt", "seed", "draw", *requests.RESULT_FIELDS, "image", "mask")),
        json_values,
    )
)
def test_unknown_fields_pass_through(fields):
    (request,) = piped(json.dumps({**fields, "prompt": "x"}))
    assert request.passthrough == fields


@pytest.mark.parametrize("value", ["[]", '"x"', "3", "null"])
def test_only_objects_are_objects(value):
    with pytest.raises(PromptError, match="expected a JSON object"):
        json_object(value)


def test_image_can_replace_the_prompt(tmp_path):
    (tmp_path / "a.png").touch()
    line = json.dumps({"path": str(tmp_path / "a.png"), "prompt": None})
    (found,) = read_requests([line], file_fields=("image",))
    assert (found.prompt, found.fields["image"]) == (None, str(tmp_path / "a.png"))
    with pytest.raises(PromptError, match="no 'prompt' among its fields"):
        read_requests([line])
    with pytest.raises(PromptError, match="no 'prompt' among its fields"):
        read_requests(['{"mask": "x"}'], file_fields=("image",))
