import subprocess
import sys

import pytest

from dalle_cli.text import TextError, tokenizers
from dalle_cli.text.loading import from_state, load


def test_three_tokenizers_are_registered_under_the_kind_that_they_save():
    assert tokenizers.names() == ["clip", "dalle", "glide"]
    assert [tokenizers.get(name).kind for name in tokenizers.names()] == tokenizers.names()


@pytest.mark.parametrize(
    "state", [None, [], "clip", {}, {"type": "clip"}, {"merges": []}, {"type": "clip", "merges": [], "path": "x"}]
)
def test_what_is_no_state_is_refused(state):
    with pytest.raises(TextError, match="expected 'type' and 'merges'"):
        from_state(state)


@pytest.mark.parametrize("name", ["klip", 3, None, ["clip"]])
def test_unknown_types_are_refused(name):
    with pytest.raises(ValueError, match="no tokenizer"):
        from_state({"type": name, "merges": []})


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"{}", b'{"type": "x", "merges": []}', b"\xff\xfe", b"[" * 100_000, b"\x1f\x8b\x08cut"],
)
def test_malformed_files_are_one_line_errors_that_name_the_file(tmp_path, content):
    file = tmp_path / "tokenizer.json"
    file.write_bytes(content)
    with pytest.raises(TextError) as error:
        load(file)
    assert str(file) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(TextError, match=r"absent\.json: cannot read"):
        load(tmp_path / "absent.json")


def test_the_package_imports_nothing_heavy():
    code = (
        "import sys, dalle_cli.text; print(sorted({'torch', 'numpy', 'ftfy', 'regex'} & set(sys.modules))); "
        "from dalle_cli.text.loading import from_state; from_state({'type': 'clip', 'merges': []}).pack(['a cat'], 9); "
        "print(sorted({'torch', 'ftfy', 'regex'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split("\n")[:2] == ["[]", "[]"]
