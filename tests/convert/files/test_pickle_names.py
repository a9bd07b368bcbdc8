import pytest

from dalle_cli.convert.files.pickle_names import (
    CALLS,
    Name,
    Object,
    Slice,
    Storage,
    call,
    mapping,
    name,
    storage,
    tensor,
)
from dalle_cli.convert.layout import ConvertError

FLOATS = Storage("0", "float32", 12)
BYTES = Storage("0", "uint8", 12)


def test_names_of_the_standard_library_are_refused():
    assert name("dall_e.encoder", "Encoder") == Name("dall_e.encoder.Encoder")
    for module, rest in (("os", "system"), ("nt", "system"), ("builtins", "getattr"), ("__builtin__", "eval")):
        with pytest.raises(ConvertError, match=rf"asks for {module}.{rest}, "):
            name(module, rest)


def test_names_are_printed_in_one_short_line():
    shown = str(Name("evil\n\x1b[31m" + "x" * 500))
    assert shown.isprintable()
    assert len(shown) == 80


def test_only_calls_of_weights_are_allowed():
    assert call(Name("collections.OrderedDict"), ()) == {}
    assert call(Name("torch.Size"), ((2, 3),)) == (2, 3)
    assert call(Name("builtins.set"), (["a", "b"],)) == {"a", "b"}
    assert isinstance(call(Name("torch.device"), ("cpu",)), Object)
    for one in ("torch.load", "torch.storage._load_from_bytes", "numpy.load", "dall_e.encoder.Encoder", "builtins.int"):
        with pytest.raises(ConvertError, match=f"asks for {one}"):
            call(Name(one), ())
    with pytest.raises(ConvertError, match="something that is not a function"):
        call("os.system", ("true",))


def test_called_functions_are_ours():
    assert all(callable(function) and not isinstance(function, Object | Name) for function in CALLS.values())


@pytest.mark.parametrize(
    ("base", "offset", "shape", "stride"),
    [
        (FLOATS, 0, (3, 4), (4, 1)),
        (FLOATS, 2, (2, 3), (1, 2)),
        (FLOATS, 11, (), ()),
        (FLOATS, 0, (0, 5), (5, 1)),
    ],
)
def test_views_inside_their_storage(base, offset, shape, stride):
    assert tensor(base, offset, shape, stride, False, {}) == Slice(base, "float32", offset, shape, stride)


@pytest.mark.parametrize(
    ("base", "offset", "shape", "stride"),
    [
        (FLOATS, 1, (3, 4), (4, 1)),  # one beyond the end
        (FLOATS, 0, (3, 4), (5, 1)),
        (FLOATS, 12, (), ()),
        (FLOATS, 0, (1 << 40,), (0,)),  # a number repeated: a bomb once it is copied
        (FLOATS, -1, (3,), (1,)),
        (FLOATS, 0, (3,), (-1,)),
        (FLOATS, 0, (3, 4), (1,)),
        (FLOATS, 0, [3, 4], (4, 1)),
        (FLOATS, 0, (3.0,), (1,)),
        (FLOATS, 0, (True,), (1,)),
        (FLOATS, 0, (1,) * 65, (1,) * 65),
        ("numbers", 0, (3,), (1,)),
    ],
)
def test_views_that_leave_their_storage_are_refused(base, offset, shape, stride):
    with pytest.raises(ConvertError):
        tensor(base, offset, shape, stride)


def test_views_of_another_dtype_are_bounded():
    assert tensor(BYTES, 0, (3,), (1,), False, {}, Name("torch.float32")).dtype == "float32"
    with pytest.raises(ConvertError, match="where 3 are stored"):
        tensor(BYTES, 0, (4,), (1,), False, {}, Name("torch.float32"))
    with pytest.raises(ConvertError, match="type qint8"):
        tensor(BYTES, 0, (4,), (1,), False, {}, Name("torch.qint8"))
    with pytest.raises(ConvertError, match="conjugate"):
        tensor(FLOATS, 0, (4,), (1,), False, {}, {"conj": True})


def test_persistent_ids():
    kind = Name("torch.HalfStorage")
    assert storage(("storage", kind, "7", "cuda:0", 5)) == Storage("7", "float16", 5)
    assert storage(("storage", kind, "7", "cpu", 5, None)) == Storage("7", "float16", 5)
    assert storage(("module", Name("a.B"), "b.py", "class B: ...")) == Name("a.B")
    assert storage(("module", Name("a.B"), None, None)) == Name("a.B")  # of a class without source
    for wrong in (
        ("storage", Name("torch.QInt8Storage"), "7", "cpu", 5),
        ("storage", Name("evil.HalfStorage"), "7", "cpu", 5),
        ("storage", kind, "7", "cpu", -5),
        ("storage", kind, "7" * 2000, "cpu", 5),
        ("storage", kind, "7", "cpu", 5, ("view", 0, 2)),
        ("storage", kind, 7, "cpu", 5),
        "storage",
    ):
        with pytest.raises(ConvertError):
            storage(wrong)


def test_long_and_nested_keys_are_refused():
    assert mapping([("a", 1), (Name("x.Y"), 2), (3, 4), (None, 5)]) == {"a": 1, Name("x.Y"): 2, 3: 4, None: 5}
    for key in ((1, 2), "x" * 2000, 1 << 70, [], Object(Name("a.B"))):
        with pytest.raises(ConvertError, match="as key"):
            mapping([(key, 1)])
