"""Weights of others: a pickle brings arrays and nothing else; names map one to one."""

from __future__ import annotations

import collections
import pickle
import struct
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import resnet18, resnet50

from tensormask_edu import cli, config
from tensormask_edu.base.errors import InputError
from tensormask_edu.detector.model import build_model
from tensormask_edu.weights.checkpoint import (
    build_from,
    load_checkpoint,
    load_official,
    load_torchvision,
    official_state,
)
from tensormask_edu.weights.pickled import read_pickled

NARROW = {f"{part}_channels": 8 for part in ("fpn", "class", "box", "mask")}
SMALL = replace(
    config.MODELS["tiny"], strides_px=(4, 8), tower_convs=1, tower_norm_groups=0, **NARROW
)
R50 = replace(config.MODELS["r50_fpn_1x"], **NARROW)
ARRAYS = {
    "float": np.arange(6, dtype=np.float32).reshape(2, 3),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "half": np.float16([0.5, -2]),
    "whole": np.int64([[1], [-5]]),
    "truth": np.array([True, False]),
    "empty": np.zeros((0, 4), np.float32),
    "one": np.array(3.5),
    "big endian": np.array([1, 258], ">i4"),
}


def written(path, value, protocol=2):
    path.write_bytes(value if isinstance(value, bytes) else pickle.dumps(value, protocol))
    return path


def by_python_2(arrays, module=b"numpy.core.multiarray"):
    """A pickle as Python 2 writes it with protocol 2: NumPy's bytes are its strings."""
    out = b"\x80\x02}(U\x05model}("
    for name, array in arrays.items():
        data, code = array.tobytes(), array.dtype.str[1:].encode()
        shape = b"(" + b"".join(b"\x8a\x08" + struct.pack("<q", n) for n in array.shape) + b"t"
        out += b"U" + bytes([len(name)]) + name.encode()
        out += b"c" + module + b"\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        out += b"(K\x01" + shape
        out += b"cnumpy\ndtype\nU" + bytes([len(code)]) + code + b"K\x00K\x01\x87R"
        out += b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        out += b"\x89T" + struct.pack("<i", len(data)) + data + b"tb"
    return out + b"uU\x0a__author__U\x02meu."


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_come_back_exactly_whatever_the_protocol(protocol, tmp_path):
    value = {
        "model": ARRAYS,
        "__author__": "me",
        "step": 3,
        "scale": np.float32(0.1),
        "list": [1, (2.5, None)],
    }
    read = read_pickled(written(tmp_path / "weights.pkl", value, protocol))
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(read["model"][name], array)
        assert read["model"][name].dtype == array.dtype.newbyteorder("=")
    assert (read["step"], read["scale"], read["list"]) == (3, np.float32(0.1), [1, (2.5, None)])


@pytest.mark.parametrize("module", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
def test_files_of_python_2_and_of_both_numpy_names_are_read(module, tmp_path):
    weight = np.random.default_rng(0).normal(size=(3, 2)).astype(np.float32)
    arrays = {"weight": weight, "bias": np.arange(3)}
    written(tmp_path / "weights.pkl", by_python_2(arrays, module))
    opened = pickle.loads(by_python_2(arrays), encoding="latin1")
    assert opened["__author__"] == "me"  # so it is such a file
    read = read_pickled(tmp_path / "weights.pkl")
    for name, array in arrays.items():
        np.testing.assert_array_equal(read["model"][name], array)


class Calls:
    """Pickles into a call of `function`."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


class Sub(np.ndarray):
    """An array with a `__setstate__` of its own, for all NumPy knows."""


class Mine:
    """A class of ours, which a reader could import."""


def array_state(dtype=b"U\x02f4", shape=b"K\x01\x85", data=b"U\x04abcd"):
    """One array, written by hand."""
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    kind = b"cnumpy\ndtype\n" + dtype + b"K\x00K\x01\x87R"
    return b"\x80\x02" + array + b"(K\x01" + shape + kind + b"\x89" + data + b"tb."


def laughs(levels=60):
    """A list of two lists of two lists ...: short in the file, endless when written out."""
    value = []
    for _ in range(levels):
        value = [value, value]
    return value


CALL_ENCODE, CALL_DICTIONARY = b"c_codecs\nencode\n", b"ccollections\nOrderedDict\n"


def many(function, text, times=50):
    """One argument, called with again and again: kilobytes in the file, megabytes if read."""
    if text is None:
        pairs = b"".join(b"]" + b"K" + bytes([n]) + b"aNa" + b"a" for n in range(200))
        argument = b"]" + pairs + b"\x85q\x01"
    else:
        argument = (
            b"X" + struct.pack("<i", len(text)) + text + b"X\x06\x00\x00\x00latin1\x86q\x01"
        )
    return b"\x80\x02" + argument + b"0]" + (function + b"h\x01Ra") * times + b"."


def attacks(trace):
    """Name -> (a pickle that would make the file `trace` or fill the memory, the error)."""
    touch = f"touch {trace}"
    code = f"open({str(trace)!r}, 'w').close()"
    import os
    import subprocess

    return {
        "os.system": (Calls(os.system, touch), "posix.system"),
        "subprocess": (Calls(subprocess.check_call, ["touch", str(trace)]), "check_call"),
        "eval": (Calls(eval, code), "eval"),
        "exec": (Calls(exec, code), "exec"),
        "open": (Calls(open, str(trace), "w"), "open"),
        "getattr": (Calls(getattr, "text", "upper"), "getattr"),
        "import": (b"\x80\x02c__builtin__\n__import__\nU\x02os\x85R.", "__import__"),
        "a class of ours": ({"model": Mine()}, "copyreg|NEWOBJ|Mine"),
        "a numpy function": (Calls(np.save, str(trace), ARRAYS["one"]), "numpy.*save"),
        "numpy loading a file": (Calls(np.load, str(trace)), "numpy.*load"),
        "a dotted name": (
            b"\x80\x04\x8c\x15numpy.core.multiarray\x8c\x18_reconstruct.__globals__\x93.",
            "_reconstruct.__globals__",
        ),
        "attributes of a function": (
            b"\x80\x02cnumpy\ndtype\nN}U\x0c__defaults__NssU\x00\x86b.".replace(
                b"ssU\x00\x86", b"s\x86"
            ),
            "state of a function",
        ),
        "objects": (
            np.array([Calls(os.system, touch)], dtype=object),
            "posix.system|dtype 'O8'",
        ),
        "plain objects": (np.array([None, 1], dtype=object), "dtype 'O8'"),
        "structures": (np.zeros(2, dtype=[("a", "f4")]), "dtype 'V4'"),
        "an array of a class": (np.ones(2).view(Sub), "test_weights.Sub"),
        "data that are a list": (array_state(data=b"]"), "made of a list"),
        "a dtype that is a list": (array_state(dtype=b"]"), "a list where a word belongs"),
        "more shape than data": (
            array_state(shape=b"J\x00\x00\x00\x7fJ\x00\x00\x00\x7f\x86"),
            "with 4 bytes",
        ),
        "negative extents": (
            array_state(shape=b"J\xff\xff\xff\xffJ\xff\xff\xff\xff\x86"),
            "impossible shape",
        ),
        "a shape of laughter": (
            array_state(shape=pickle.dumps(laughs(), 2)[2:-1]),
            "impossible shape",
        ),
        "one string as many arrays": (many(CALL_ENCODE, b"a" * 4096), "larger than it is"),
        "one list as many dictionaries": (many(CALL_DICTIONARY, None), "larger than it is"),
        "a huge memo": (b"\x80\x02Nr\xff\xff\xff\x7f.", "memo slot"),
        "a huge string": (b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b"a.", "whole pickle"),
        "a class by number": (b"\x80\x02\x82\x01.", "EXT1"),
        "an object from outside": (b"\x80\x02U\x01aQ.", "BINPERSID"),
        "a call of its own kind": (b"\x80\x02(i__main__\nMine\n.", "INST"),
        "a counter": (collections.Counter("abc"), "collections.Counter"),
        "a set": ({"model": {1}}, "builtin|__builtin__|set"),
        "itself": (b"\x80\x02]q\x00h\x00a.", "whole pickle"),
        "nothing": (b"", "whole pickle"),
        "half": (pickle.dumps(ARRAYS)[:-20], "whole pickle"),
        "a text": (b"import os; os.system('true')", "whole pickle"),
    }


@pytest.mark.parametrize("name", attacks("x"))
def test_a_pickle_that_wants_more_than_arrays_is_refused_and_nothing_runs(name, tmp_path):
    trace = tmp_path / "trace"
    value, message = attacks(trace)[name]
    path = written(tmp_path / "weights.pkl", value)
    with pytest.raises(InputError, match=message):
        read_pickled(path)
    assert not trace.exists()


def test_the_attacks_work_on_an_open_reader(tmp_path):
    trace = tmp_path / "trace"
    pickle.loads(pickle.dumps(attacks(trace)["exec"][0], 2))
    assert trace.exists()  # so the refusals above refuse something


def test_a_short_file_that_would_be_endless_written_out_is_read_as_it_is(tmp_path):
    read = read_pickled(written(tmp_path / "weights.pkl", laughs()))
    assert read[0] is read[1]


def test_weights_go_through_a_published_file_and_back_exactly(tmp_path):
    model, again = build_model(SMALL), build_model(SMALL)
    state = {name: tensor.numpy() for name, tensor in official_state(model).items()}
    state["anchor_generator.cell_anchors.0"] = np.zeros((2, 4), np.float32)
    load_official(again, written(tmp_path / "a.pkl", {"model": state, "__author__": "me"}))
    torch.save({"model": official_state(model)}, tmp_path / "a.pth")
    third = build_model(SMALL)
    load_official(third, tmp_path / "a.pth")
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
        assert torch.equal(third.state_dict()[name], tensor), name


def test_an_archive_that_holds_more_than_weights_is_refused(tmp_path):
    torch.save({"model": Mine()}, tmp_path / "a.pth")
    with pytest.raises(InputError, match="holds more than weights"):
        load_official(build_model(SMALL), tmp_path / "a.pth")


@pytest.mark.parametrize(
    "value, message", [([1], "dictionary of tensors"), ({1: 2}, "dictionary of tensors")]
)
def test_a_pickle_of_something_else_is_named(value, message, tmp_path):
    with pytest.raises(InputError, match=message):
        load_official(build_model(SMALL), written(tmp_path / "a.pkl", value))
    with pytest.raises(InputError, match="readable file"):
        load_official(build_model(SMALL), tmp_path / "none.pkl")


@pytest.mark.parametrize("kind", ["meta", "sparse", "whole", "nan"])
def test_tensors_that_hold_no_weights_are_refused(kind):
    state = official_state(build_model(SMALL))
    name = next(name for name in state if name.endswith("weight"))
    value = state[name].detach()
    kinds = {"meta": value.to("meta"), "sparse": value.to_sparse(), "whole": value.long()}
    state[name] = kinds.get(kind, value * float("nan"))
    with pytest.raises(InputError, match="state: expected (dense tensors|weights that are)"):
        load_official(build_model(SMALL), state)


def test_convert_makes_a_checkpoint_of_a_published_file(tmp_path, capsys, monkeypatch):
    names = config.MODELS["r50_fpn_6x"].class_names
    monkeypatch.setitem(config.MODELS, "r50_fpn_6x", replace(SMALL, class_names=names))
    model = build_model("r50_fpn_6x")
    state = {name: tensor.numpy() for name, tensor in official_state(model).items()}
    path = written(tmp_path / "model_final.pkl", {"model": state, "__author__": "me"})
    output = tmp_path / "r50"
    convert = ["convert", str(path), "--preset", "r50_fpn_6x", "--output"]
    assert cli.main([*convert, str(output)]) == 0
    loaded, input_config = load_checkpoint(output)
    names = loaded.config.class_names
    assert names[0] == "person" and names[79] == "toothbrush"
    assert len(set(names)) == 80
    assert (input_config.short_side_px, input_config.long_side_px) == (800, 1333)
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    written(path, Calls(eval, "1"))
    assert cli.main([*convert, str(tmp_path / "no")]) == 2
    assert "nothing of it was executed" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


@pytest.fixture(scope="module")
def resnet():
    """Torchvision's ResNet-50 with statistics that are not those of a fresh one."""
    torch.manual_seed(0)
    resnet = resnet50(num_classes=3).eval()
    for buffer in resnet.buffers():
        if buffer.is_floating_point():
            buffer.add_(0.1 * torch.rand_like(buffer))
    return resnet


def test_a_body_of_torchvision_computes_what_torchvision_computes(resnet, tmp_path):
    model = build_model(config.for_torchvision_body(R50)).eval()
    torch.save(resnet.state_dict(), tmp_path / "resnet50.pth")
    load_torchvision(model, tmp_path / "resnet50.pth")
    photo = torch.rand(3, 64, 96)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    normalised = (photo - mean[:, None, None]) / std[:, None, None]
    with torch.inference_mode():
        ours = model.network.backbone.body(model.batch([photo]))
        x = resnet.maxpool(resnet.relu(resnet.bn1(resnet.conv1(normalised[None]))))
        layers = (resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4)
        for layer, map_ in zip(layers, ours, strict=True):
            x = layer(x)
            torch.testing.assert_close(map_, x, rtol=1e-4, atol=1e-4)
        official = build_model(R50).eval().network.backbone.body
        official.load_state_dict(model.network.backbone.body.state_dict())
        elsewhere = official(model.batch([photo]))
    assert torch.equal(elsewhere[0], ours[0])  # res2 has no stride
    # the same names and shapes, other numbers
    assert (elsewhere[1] - ours[1]).abs().max() > 0.01


def test_torchvisions_weights_are_refused_where_they_would_compute_something_else(resnet):
    with pytest.raises(InputError, match="made for torchvision's weights, got r50_fpn_1x"):
        load_torchvision(build_model(R50), resnet.state_dict())
    model = build_model(config.for_torchvision_body(R50))
    with pytest.raises(InputError, match="tensors of torchvision are missing"):
        load_torchvision(model, {"fc.weight": torch.zeros(1)})


@pytest.mark.parametrize(
    "wrapped",
    [
        pytest.param(lambda state: {"epoch": 3, "state_dict": state}, id="a training loop"),
        pytest.param(lambda state: {"model": state}, id="detectron2"),
        pytest.param(lambda state: {f"module.{n}": x for n, x in state.items()}, id="parallel"),
        pytest.param(
            lambda state: {
                "state_dict": {f"net.model.{n}": x for n, x in state.items()},
                "hyper_parameters": {"lr": 0.1},
            },
            id="Lightning",
        ),
    ],
)
def test_what_stands_around_a_resnet_is_seen_through(wrapped, resnet, tmp_path):
    torch.save(wrapped(resnet.state_dict()), tmp_path / "resnet.pth")
    model = build_from(tmp_path / "resnet.pth", R50)
    body = model.network.backbone.body
    assert torch.equal(body.stem[0].weight, resnet.conv1.weight)


def test_weights_of_another_resnet_are_refused_by_their_file(tmp_path):
    torch.save(resnet18().state_dict(), tmp_path / "resnet18.pth")
    expected = (
        r"weights: .*resnet18.pth: state: \d+ tensors of torchvision are missing, .*another"
    )
    with pytest.raises(InputError, match=expected):
        build_from(tmp_path / "resnet18.pth", R50)
    torch.save(resnet18(), tmp_path / "whole.pth")
    with pytest.raises(InputError, match=r"weights: .*executed; torch.save\(model.state_dict"):
        build_from(tmp_path / "whole.pth", R50)
    save_file(resnet18().state_dict(), tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="weights: .*got .*; name the folder of a checkpoint"):
        build_from(tmp_path / "model.safetensors", R50)
