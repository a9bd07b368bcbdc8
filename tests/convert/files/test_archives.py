import io
import pickle
import random
import zipfile

import pytest
import torch
from torch import nn

from dalle_cli.convert.files import archives
from dalle_cli.convert.files.pickle_names import Name, Object, Slice, Storage
from dalle_cli.convert.layout import ConvertError

OLD = {"_use_new_zipfile_serialization": False}
DTYPES = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.uint16, torch.uint32, torch.uint64),
    *(torch.bool, torch.complex64, torch.complex128),
]


class Net(nn.Module):
    """What torch's modules are made of: parameters, buffers of both kinds, nothing, children, plain attributes."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ModuleList([nn.Linear(4, 2, bias=False)]))
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.register_buffer("persistent", torch.arange(3))
        self.register_buffer("passing", torch.arange(5), persistent=False)
        self.register_parameter("absent", None)
        self.none = None
        self.mask = torch.ones(7)  # an attribute, no weight
        self.device = torch.device("cpu")


class Scripted(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
        self.scale = nn.Parameter(torch.rand(()))
        self.register_buffer("resolution", torch.tensor(224))
        self.mask = torch.ones(4)
        self.sizes = [1, 2]

    def forward(self, x):
        return self.layers(x) * self.scale + self.mask * self.sizes[0]


def net() -> Net:
    torch.manual_seed(0)
    return Net()


def same(state: dict, expected: dict) -> bool:
    return state.keys() == expected.keys() and all(
        one.dtype == expected[key].dtype and one.shape == expected[key].shape and bits(one) == bits(expected[key])
        for key, one in state.items()
    )


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


@pytest.fixture
def save(tmp_path):
    def write(value, name="file.pt", **options):
        torch.save(value, tmp_path / name, **options)
        return tmp_path / name

    return write


@pytest.mark.parametrize("options", [{}, OLD], ids=["zip", "old"])
class TestTorchSave:
    def test_state_dict(self, save, options):
        assert same(archives.read(save(net().state_dict(), **options)), net().state_dict())

    @pytest.mark.parametrize("key", archives.WRAPPERS)
    def test_wrapped_state_dict_and_what_stands_beside_it(self, save, options, key):
        adam = torch.optim.Adam(net().parameters())
        sum(parameter.sum() for parameter in net().parameters() if parameter.is_floating_point()).backward()
        adam.step()
        others = {"epoch": 3, "optimizer": adam.state_dict(), "loss": torch.tensor(1.0), "names": {"a", "b"}}
        assert same(archives.read(save(others | {key: net().state_dict()}, **options)), net().state_dict())

    def test_whole_module(self, save, options):
        assert same(archives.read(save(net(), **options)), net().state_dict())
        assert same(archives.read(save({"model": net()}, **options)), net().state_dict())

    def test_every_type(self, save, options):
        torch.manual_seed(0)
        state = {str(dtype): (10 * torch.rand(3, 5)).to(dtype) for dtype in DTYPES}
        assert same(archives.read(save(state, **options)), state)

    def test_views_keep_their_strides_and_share_their_numbers(self, save, options):
        base = torch.arange(24.0)
        state = {"base": base, "view": base[4:16].view(3, 4).T, "empty": torch.empty(0, 3), "scalar": torch.tensor(7)}
        loaded = archives.read(save(state, **options))
        assert same(loaded, state)
        assert loaded["view"].stride() == (1, 4)
        loaded["base"][5] = -1.0
        assert loaded["view"][1, 0] == -1.0

    def test_tuple_is_numbered(self, save, options):
        state = archives.read(save((torch.ones(2), torch.zeros(3)), **options))
        assert same(state, {"0": torch.ones(2), "1": torch.zeros(3)})

    def test_parameters_with_attributes(self, save, options):
        parameter = nn.Parameter(torch.ones(2))
        parameter.shared = True
        assert same(archives.read(save({"weight": parameter}, **options)), {"weight": torch.ones(2)})

    @pytest.mark.parametrize("protocol", [2, 3, 4, 5])
    def test_every_protocol(self, save, options, protocol):
        assert same(archives.read(save(net(), pickle_protocol=protocol, **options)), net().state_dict())

    @pytest.mark.parametrize(
        ("value", "message"),
        [
            ({"epoch": 3}, r"holds a mapping \(epoch\) and no state dict"),
            (3, "holds a int and no state dict"),
            ({"a": torch.ones(1), "b": 3}, "with values that are no tensors: b"),
            ({"a": torch.ones(3).to_sparse()}, "asks for torch.serialization._get_layout"),
            (torch.Generator, "holds a Name"),
        ],
    )  # fmt: skip
    def test_values_without_weights_are_named(self, save, options, value, message):
        with pytest.raises(ConvertError, match=message) as caught:
            archives.read(save(value, **options))
        assert "\n" not in str(caught.value)

    def test_a_cut_file_is_refused_wherever_it_is_cut(self, save, tmp_path, options):
        data = save(net().state_dict(), **options).read_bytes()
        for end in range(0, len(data), max(1, len(data) // 40)):
            (tmp_path / "cut.pt").write_bytes(data[:end])
            with pytest.raises(ConvertError, match=r"cut\.pt: "):
                archives.read(tmp_path / "cut.pt")

    def test_peak_memory_stays_under_1_3_of_the_file(self, save, peak, options):
        state = {str(i): torch.zeros(1 << 20) for i in range(24)}  # 96 MiB
        file = save({"state_dict": state, "optimizer": {"a": torch.zeros(1 << 20)}}, **options)
        grown = peak(
            "import torch; from pathlib import Path; from dalle_cli.convert.files import archives",
            "state = archives.read(Path(sys.argv[1])); assert len(state) == 24",
            file,
        )
        assert 0.9 * file.stat().st_size < grown < 1.3 * file.stat().st_size


def test_torchscript_is_not_executed(tmp_path):
    module = Scripted()
    torch.jit.script(module).save(tmp_path / "script.pt")
    assert same(archives.read(tmp_path / "script.pt"), module.state_dict())
    torch.jit.trace(module.eval(), torch.zeros(2, 3)).save(tmp_path / "trace.pt")
    assert same(archives.read(tmp_path / "trace.pt"), module.state_dict())


def test_torchscript_without_declarations(tmp_path):
    torch.jit.script(Scripted()).save(tmp_path / "script.pt")
    rezip(tmp_path / "script.pt", tmp_path / "bare.pt", lambda name, data: None if "/code/" in name else data)
    assert archives.read(tmp_path / "bare.pt").keys() == Scripted().state_dict().keys() | {"mask"}


def rezip(source, out, change, compression=zipfile.ZIP_STORED):
    """Write an archive again, each part as `change` gives it; None leaves it out."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(out, "w", compression) as new:
        for name in old.namelist():
            data = change(name, old.read(name))
            if data is not None:
                new.writestr(name, data)


def extra(name, data=b"x"):
    def write(path):
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(name, data)

    return write


def patched(old, new):
    def write(path):
        data = path.read_bytes()
        assert old in data
        path.write_bytes(data.replace(old, new))

    return write


def again(change, **options):
    def write(path):
        source = path.with_suffix(".old")
        path.rename(source)
        rezip(source, path, change, **options)

    return write


def only(name):
    return lambda part, data: data if part.endswith(name) else None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (extra("/etc/cron.d/evil"), "points outside of it"),
        (extra("../evil"), "points outside of it"),
        (extra("file/..\\..\\evil"), "points outside of it"),
        (extra("C:/evil"), "points outside of it"),
        (extra("other/data.pkl"), "no data.pkl"),
        (again(only("version")), "no data.pkl"),
        (again(lambda name, data: data, compression=zipfile.ZIP_DEFLATED), "is compressed"),
        (again(lambda name, data: b"" if name.endswith("data/0") else data), "has 0 bytes, 400 are declared"),
        (again(lambda name, data: None if name.endswith("data/0") else data), "lacks its part data/0"),
        (again(lambda name, data: data + b"x" if name.endswith("data/0") else data), "has 401 bytes, 400 are declared"),
        (again(lambda name, data: b"big" if name.endswith("byteorder") else data), "big-endian"),
        (again(lambda name, data: b"cos\nsystem\n." if name.endswith("data.pkl") else data), "asks for os.system"),
        (patched(b"\x00\x00\x80\x3f" * 50, b"\x00\x00\x80\x3e" * 50), "damaged"),  # changed numbers: a wrong checksum
    ],
)  # fmt: skip
def test_inconsistent_archives_are_refused(save, change, message):
    path = save({"weight": torch.ones(100)})
    change(path)
    with pytest.raises(ConvertError, match=f"file.pt: .*{message}") as caught:
        archives.read(path)
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_duplicate_names_are_refused(save):
    path = save({"weight": torch.ones(100)})
    extra("file/data/0", bytes(400))(path)
    with pytest.raises(ConvertError, match="wrong sizes or duplicate names"):
        archives.read(path)


def test_zip_bombs_are_refused(save):
    path = save({"weight": torch.zeros(1 << 22)})  # 16 MiB of nothing
    again(lambda name, data: data, compression=zipfile.ZIP_DEFLATED)(path)
    assert path.stat().st_size < 1 << 16
    with pytest.raises(ConvertError, match="compressed"):
        archives.read(path)


def test_torchscript_code_is_limited(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_CODE", 1 << 16)
    torch.jit.script(Scripted()).save(tmp_path / "script.pt")
    rezip(tmp_path / "script.pt", tmp_path / "big.pt", lambda name, data: data + bytes(1 << 16) * name.endswith(".py"))
    with pytest.raises(ConvertError, match="of TorchScript code"):
        archives.read(tmp_path / "big.pt")


@pytest.mark.parametrize(
    "data", [b"", b"text", b"\x00" * 600, b"PK\x03\x04", b"PK\x05\x06" + b"\x00" * 18, b"\x80\x02K\x01."]
)
def test_other_files_are_refused(tmp_path, data):
    (tmp_path / "x.pt").write_bytes(data)
    with pytest.raises(ConvertError, match=r"x\.pt: a (damaged|pickle)"):
        archives.read(tmp_path / "x.pt")
    with pytest.raises(ConvertError, match="cannot be read"):
        archives.read(tmp_path / "absent.pt")


class Bait:
    def __reduce__(self):
        return eval, ("open('hit', 'w')",)


@pytest.mark.parametrize("options", [{}, OLD], ids=["zip", "old"])
def test_calls_next_to_weights_are_not_executed(save, tmp_path, monkeypatch, options):
    monkeypatch.chdir(tmp_path)
    path = save({"state_dict": {"weight": torch.ones(2)}, "bait": Bait()}, **options)
    with pytest.raises(ConvertError, match=r"asks for (builtins|__builtin__).eval"):
        archives.read(path)
    assert not (tmp_path / "hit").exists()


def test_bare_pickles_of_tensors_are_refused(tmp_path):
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"weight": torch.ones(2)}))
    with pytest.raises(ConvertError, match=r"asks for torch.storage._load_from_bytes"):
        archives.read(tmp_path / "x.pkl")


def module(**state):
    return Object(Name("a.Net"), {"_parameters": {}, "_buffers": {}, "_modules": {}} | state)


def test_nesting_of_modules_is_limited():
    weight = Slice(Storage("0", "float32", 1), "float32", 0, (), ())
    endless = module(_parameters={"w": weight})
    endless.state["_modules"]["again"] = endless
    with pytest.raises(ConvertError, match="nested deeper than"):
        archives.state_dict(endless)
    doubled = module(_parameters={"w": weight})
    for _ in range(40):
        doubled = module(_modules={"a": doubled, "b": doubled})
    with pytest.raises(ConvertError, match="more than 100,000 modules"):
        archives.state_dict(doubled)


def test_damaged_modules_are_named():
    for damaged in (
        module(_parameters=3),
        module(_modules=None),
        Object(Name("a.Net"), {"x": 1}),
        Object(Name("a.Net")),
    ):
        with pytest.raises(ConvertError, match=r"holds a a.Net"):
            archives.state_dict(damaged)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", ["zip", "old", "module", "script", "pickle"])
def test_corrupted_bytes_are_refused_or_harmless(save, tmp_path, kind, seed):
    """A thousand files with bytes changed, cut out or doubled; of some archives only the pickle."""
    if kind == "script":
        torch.jit.script(Scripted()).save(tmp_path / "file.pt")
        path = tmp_path / "file.pt"
    else:
        path = save(net() if kind == "module" else net().state_dict(), **(OLD if kind == "old" else {}))
    data = path.read_bytes()
    chance = random.Random(seed)
    read = refused = 0
    for _ in range(1000):
        if kind in ("module", "script", "pickle"):
            changed = io.BytesIO()
            rezip(path, changed, lambda name, part: mutated(part, chance) if name.endswith("data.pkl") else part)
            (tmp_path / "changed.pt").write_bytes(changed.getvalue())
        else:
            (tmp_path / "changed.pt").write_bytes(mutated(data, chance))
        try:
            state = archives.read(tmp_path / "changed.pt")
        except ConvertError as error:
            refused += "\n" not in str(error)
        else:
            sum(tensor.float().sum() for tensor in state.values() if not tensor.is_complex())  # all is in its bounds
            read += all(isinstance(tensor, torch.Tensor) for tensor in state.values())
    assert read + refused == 1000
    assert refused > 300
    assert read > 0


def mutated(data: bytes, chance: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(len(out))
        match chance.randrange(4):
            case 0:
                out[place] = chance.randrange(256)
            case 1:
                out[place] ^= 1 << chance.randrange(8)
            case 2:
                del out[place : place + chance.randint(1, 8)]
            case _:
                out[place:place] = out[place : place + chance.randint(1, 64)]
    return bytes(out)
