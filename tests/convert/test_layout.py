import pytest
import torch

from dalle_cli.convert.layout import ConvertError, Row, count_layers, export_tensors, import_tensors

TABLE = [
    Row(r"out\.weight", "head", lambda x: x.mT, lambda x: x.mT),
    Row(r"blocks\.(\d+)\.(.+)", r"layer\1.\2"),
    Row(r"(.+)", r"\1"),
]
OURS = {"out.weight": torch.empty(2, 3), "blocks.10.w": torch.empty(4), "out.bias": torch.empty(())}


def published():
    return {"head": torch.arange(6.0).view(3, 2), "layer10.w": torch.arange(4.0), "out.bias": torch.tensor(7.0)}


def test_first_matching_row_is_used():
    state = import_tensors(published(), TABLE, OURS)
    assert state.keys() == OURS.keys()
    assert torch.equal(state["out.weight"], published()["head"].T)
    assert torch.equal(state["blocks.10.w"], torch.arange(4.0))


def test_export_inverts_import():
    state = export_tensors(import_tensors(published(), TABLE, OURS), TABLE)
    assert state.keys() == published().keys()
    for key, tensor in published().items():
        assert torch.equal(state[key], tensor)


def test_one_key_from_several():
    table = [Row(r"qkv", ("q", "k", "v"), lambda *parts: torch.cat(parts), lambda joined: joined.chunk(3)), *TABLE]
    theirs = {name: torch.full((2, 4), float(i)) for i, name in enumerate("qkv")}
    ours = import_tensors(dict(theirs), table, {"qkv": torch.empty(6, 4)})
    assert ours["qkv"][:, 0].tolist() == [0, 0, 1, 1, 2, 2]
    back = export_tensors(ours, table)
    assert back.keys() == theirs.keys()
    assert all(torch.equal(back[key], tensor) for key, tensor in theirs.items())
    with pytest.raises(ConvertError, match=r"2 missing: k, v"):
        import_tensors({"q": theirs["q"]}, table, {"qkv": torch.empty(6, 4)})
    with pytest.raises(ConvertError, match=r"1 of another shape: q 2x4 instead of 6x4"):
        import_tensors(theirs | {"k": torch.zeros(3)}, table, {"qkv": torch.empty(6, 4)})


def test_dtypes_are_kept():
    state = {key: tensor.half() for key, tensor in published().items()} | {"count": torch.tensor(7)}
    state = import_tensors(state, TABLE, OURS | {"count": torch.tensor(0)})
    assert state["blocks.10.w"].dtype == torch.float16
    assert state["count"].dtype == torch.int64


def test_quantized_weights_are_refused():
    state = published() | {"layer10.w": torch.zeros(4, dtype=torch.int8)}
    with pytest.raises(ConvertError, match=r"1 of another dtype: layer10.w int8 instead of float32"):
        import_tensors(state, TABLE, OURS)


def test_all_faults_are_in_one_line():
    state = published() | {"head": torch.zeros(2, 2), "stray": torch.zeros(1)}
    del state["layer10.w"]
    with pytest.raises(ConvertError) as caught:
        import_tensors(state, TABLE, OURS)
    message = str(caught.value)
    assert "1 missing: layer10.w" in message
    assert "1 of another shape: head 2x2 instead of 2x3" in message
    assert "1 unknown: stray" in message
    assert "\n" not in message


def test_long_lists_of_faults_are_cut():
    state = published() | {f"stray{i}": torch.zeros(1) for i in range(8)}
    with pytest.raises(ConvertError, match=r"8 unknown: stray0, .*stray4 and 3 more"):
        import_tensors(state, TABLE, OURS)


def test_ignored_keys():
    with_extra = published() | {"resolution": torch.tensor(224)}
    assert import_tensors(with_extra, TABLE, OURS, ignored=["resolution", "absent"]).keys() == OURS.keys()


def test_keys_without_a_row_are_refused():
    with pytest.raises(ConvertError, match=r"cannot hold 'out.bias'"):
        export_tensors({"out.bias": torch.zeros(1)}, TABLE[:2])


def test_count_layers():
    state = {key: torch.zeros(1) for key in ("blocks.0.w", "blocks.0.b", "blocks.10.w", "other.blocks.3.w")}
    assert count_layers(state, r"blocks\.(\d+)\.") == 2
    assert count_layers(state, r"stages\.(\d+)\.") == 0
