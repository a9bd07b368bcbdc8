"""Harmless and malicious pickles; a malicious one leaves a file behind if anything of it is executed."""

import collections
import io
import pickle
import time
import tracemalloc

import pytest

from dalle_cli.convert.files import pickles
from dalle_cli.convert.files.pickle_names import Name, Object
from dalle_cli.convert.files.pickles import Machine
from dalle_cli.convert.layout import ConvertError


def run(data: bytes):
    return Machine().run(io.BytesIO(data))


def text(word: str) -> bytes:
    return b"X" + len(word).to_bytes(4, "little") + word.encode()


def asks(name: str, *arguments: object, by: bytes = b"R") -> bytes:
    """A pickle that calls a function by its name."""
    module, _, rest = name.rpartition(".")
    pickled = pickle.dumps(arguments, 2)[2:-1]
    return b"\x80\x02c" + f"{module}\n{rest}\n".encode() + pickled + by + b"."


@pytest.mark.parametrize("protocol", range(6))
def test_plain_containers(protocol):
    values = {
        "numbers": [0, 1, -1, 255, 1 << 16, 1 << 40, -(1 << 62), 0.5, -1e300],
        "words": ["", "ä", "a" * 300],
        "constants": (None, True, False),
        "nested": {"a": [{"b": ()}, (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)]},
        "ordered": collections.OrderedDict(x=1, y=2),
    }
    if protocol > 2:  # before, sets and bytes are calls
        values |= {"bytes": b"\x00\xff", "set": {1, 2}}
    assert run(pickle.dumps(values, protocol)) == values


def test_shared_values_stay_shared():
    one = [1]
    back = run(pickle.dumps({"a": one, "b": one}, 4))
    assert back["a"] is back["b"]


class Mine:
    def __init__(self):
        self.size = 3


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_instances_become_a_name_and_a_state(protocol):
    value = run(pickle.dumps(Mine(), protocol))
    assert isinstance(value, Object)
    assert value.name == Name(f"{Mine.__module__}.Mine")
    assert value.state == {"size": 3}


CALLED = {
    "os.system": ("touch hit",),
    "posix.system": ("touch hit",),
    "nt.system": ("touch hit",),
    "os.execv": ("/bin/touch", ["touch", "hit"]),
    "subprocess.Popen": (["touch", "hit"],),
    "subprocess.check_output": (["touch", "hit"],),
    "builtins.eval": ("open('hit', 'w')",),
    "builtins.exec": ("open('hit', 'w')",),
    "__builtin__.eval": ("open('hit', 'w')",),
    "builtins.open": ("hit", "w"),
    "builtins.getattr": ("", "join"),
    "builtins.__import__": ("antigravity",),
    "builtins.compile": ("1", "", "eval"),
    "builtins.bytearray": (1 << 50,),
    "importlib.import_module": ("antigravity",),
    "runpy.run_path": ("hit",),
    "pty.spawn": ("touch hit",),
    "code.interact": (),
    "webbrowser.open": ("file:hit",),
    "socket.create_connection": (("localhost", 1),),
    "urllib.request.urlopen": ("file:hit",),
    "shutil.rmtree": ("hit",),
    "ctypes.CDLL": ("libc.so.6",),
    "operator.attrgetter": ("system",),
    "functools.partial": (print,),
    "types.CodeType": (),
    "pickle.loads": (b".",),
    "marshal.loads": (b"0",),
    "copyreg._reconstructor": (),
    "torch.load": ("hit",),
    "torch.storage._load_from_bytes": (b"",),
    "torch.hub.load": ("evil/evil", "evil"),
    "torch.jit.load": ("hit",),
    "torch.utils.cpp_extension.load_inline": ("a", "b"),
    "torch._utils._rebuild_qtensor": (),
    "numpy.load": ("hit",),
    "pip.main": (["install", "evil"],),
    "dalle_cli.files.write_atomically": ("hit",),
    "__main__.evil": (),
}


@pytest.mark.parametrize("by", [b"R", b"\x81"], ids=["reduce", "newobj"])
@pytest.mark.parametrize("name", CALLED)
def test_calls_are_refused_by_name(tmp_path, monkeypatch, name, by):
    monkeypatch.chdir(tmp_path)
    arguments = () if print in CALLED[name] else CALLED[name]
    if by == b"\x81" and not arguments and name.partition(".")[0] in ("torch", "pip", "dalle_cli", "__main__"):
        return  # an instance of a library's class, without arguments: stays a name
    with pytest.raises(ConvertError, match=f"asks for {name}, .* nothing was executed") as caught:
        run(asks(name, *arguments, by=by))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "hit").exists()


class Chain:
    def __reduce__(self):
        return eval, ("__import__('os').system('touch hit')",)


class Getattr:
    def __reduce__(self):
        return getattr, (Chain(), "system")


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("bait", [Chain, Getattr])
def test_reduced_objects_are_not_executed(tmp_path, monkeypatch, bait, protocol):
    monkeypatch.chdir(tmp_path)
    data = pickle.dumps({"state_dict": {"weight": [bait()]}}, protocol)
    with pytest.raises(ConvertError, match=r"asks for (builtins|__builtin__).(eval|getattr)"):
        run(data)
    assert not (tmp_path / "hit").exists()
    if bait is Chain:
        pickle.loads(data)
        assert (tmp_path / "hit").exists()  # the bait is a real one


STRANGE = {
    "an instance in the old manner": (b"(S'touch hit'\nios\nsystem\n.", "INST"),
    "an object in the old manner": (b"(cos\nsystem\nS'touch hit'\no.", "os.system"),
    "the old manner of a library": (b"(cevil\nrun\nS'hit'\no.", "OBJ"),
    "keyword arguments": (b"\x80\x04cevil\nRun\n)}\x92.", "NEWOBJ_EX"),
    "an extension": (b"\x80\x02\x82\x01.", "EXT1"),
    "buffers from elsewhere": (b"\x80\x05\x97.", "NEXT_BUFFER"),
    "an id in text": (b"Phit\n.", "PERSID"),
    "a name from the stack": (b"\x80\x04" + text("os") + text("system") + b"\x93.", "os.system"),
    "a dotted name": (b"\x80\x04" + text("torch") + text("hub.load") + b"\x93)R.", "torch.hub.load"),
    "a state on a class": (b"\x80\x02ctorch.nn\nLinear\n}b.", "not an object"),
    "a call of what was made": (b"\x80\x02ca.b\nC\n)\x81)R.", "not a function"),
    "a call of text": (b"\x80\x02" + text("os.system") + b")R.", "not a function"),
    "a tensor out of its numbers": (
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((" + text("storage") + b"ctorch\nFloatStorage\n" + text("0")
        + text("cpu") + b"K\x04tQK\x00K\x05\x85K\x01\x85\x89}tR.",
        "where 4 are stored",
    ),
    "a nested key": (b"\x80\x02}K\x01\x85K\x01s.", "tuple as key"),
    "items for a number": (b"\x80\x02K\x01(K\x02e.", "not a list"),
}  # fmt: skip


@pytest.mark.parametrize("data", STRANGE)
def test_unneeded_opcodes_are_refused(tmp_path, monkeypatch, data):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConvertError, match=STRANGE[data][1]):
        run(STRANGE[data][0])
    assert not (tmp_path / "hit").exists()


@pytest.mark.parametrize(
    "data", [b"", b".", b"x", b"\x80\x02", b"\x80\x02K\x01", b"u.", b"(t", b"h\x07.", b"\x80\x02\x87."]
)
def test_other_data_is_refused(data):
    with pytest.raises(ConvertError, match="damaged pickle"):
        run(data)


LAUGHS = b"\x80\x02]q\x00(" + b"K\x01" * 1000 + b"e"  # a list of a thousand numbers, remembered
BOMBS = {
    "a length of 8 EiB": b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7f" + b"x",
    "a text of 4 GiB": b"\x80\x02X\xff\xff\xff\xffx",
    "a number of 2 GiB": b"\x80\x02\x8b\xff\xff\xff\x7fx",
    "a memory place of 4 billion": b"\x80\x02Nr\xff\xff\xff\xff0h\x01.",
    "copies of copies": LAUGHS + b"ctorch.jit._pickle\nbuild_intlist\nq\x01" + b"h\x01h\x00\x85R" * 20_000 + b".",
    "sets of sets": LAUGHS + b"cbuiltins\nset\nq\x01" + b"h\x01h\x00\x85R" * 20_000 + b".",
    "many small things": b"\x80\x02(" + b"}" * 100_100 + b"l.",
    "more than any file": b"\x80\x02" + (text("x" * 1_000_000) + b"0") * 17 + b"N.",
    "digits without end": b"I" + b"9" * 1_000_000 + b"\n.",
    "a long name": b"\x80\x04" + text("a" * 1_000_000) + text("b") + b"\x93.",
}  # fmt: skip


@pytest.mark.parametrize("bomb", BOMBS)
def test_bombs_are_refused_early(monkeypatch, bomb):
    monkeypatch.setattr(pickles, "MAX_STEPS", pickles.MAX_STEPS // 10)  # for a test of seconds
    data = io.BytesIO(BOMBS[bomb])
    tracemalloc.start()
    start = time.monotonic()
    try:
        with pytest.raises(ConvertError):
            Machine().run(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert time.monotonic() - start < 60
    assert peak < len(BOMBS[bomb]) + (20 << 20)


def test_wrong_frame_sizes_are_harmless():
    assert run(b"\x80\x04\x95" + b"\xff" * 7 + b"\x7fN.") is None


def test_repeated_references_cost_nothing():
    doubled = b"\x80\x02]q\x00" + b"".join(b"h%c\x85h%c\x86q%c" % (i, i, i + 1) for i in range(100)) + b"."
    value = run(doubled)
    assert isinstance(value, tuple)


def test_deep_nesting_is_harmless():
    assert isinstance(run(b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b"."), list)


def test_file_is_left_after_the_pickle():
    file = io.BytesIO(pickle.dumps([1], 2) + b"rest")
    assert Machine().run(file) == [1]
    assert file.read() == b"rest"
