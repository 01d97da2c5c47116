"""Hostile files are refused before anything of them is executed, and the error names what they asked for."""

import contextlib
import io
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest

from sdelab.interop.inert import UnsafePickle
from sdelab.interop.pickled import UnreadableCheckpoint
from sdelab.interop.torch_file import MAGIC, PROTOCOL, read_torch
from tests.interop.real_files import INTEROP


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments):
        self.reduction = (function, arguments)

    def __reduce__(self):
        return self.reduction


def named(module, name):
    """A function that pickles as the global of that name."""

    def function():
        raise AssertionError("executed")

    function.__module__, function.__qualname__, function.__name__ = module, name, name
    return function


def calling(module, name, *arguments, state=None, protocol=2):
    """A pickle that calls a global which need not exist here, and sets the state of what it returns."""
    opcodes = [b"\x80" + bytes([protocol]), f"c{module}\n{name}\n".encode(), b"("]
    opcodes += [pickle.dumps(argument, protocol)[2:-1] for argument in arguments] + [b"tR"]
    opcodes += [] if state is None else [pickle.dumps(state, protocol)[2:-1], b"b"]
    return b"".join(opcodes) + b"."


@pytest.fixture
def marker(tmp_path):
    """A file that hostile code would make."""
    yield tmp_path / "executed"
    assert not (tmp_path / "executed").exists()


def read(tmp_path, blob):
    (tmp_path / "file.pkl").write_bytes(blob)
    return read_torch(tmp_path / "file.pkl")


@pytest.mark.parametrize("protocol", range(6))
def test_a_call_of_the_system_is_refused_by_name(tmp_path, marker, protocol):
    blob = pickle.dumps({"model": Call(os.system, f"touch {marker}")}, protocol)
    with pytest.raises(
        UnsafePickle, match=r"file.pkl: the pickle asks for (posix|nt)\.system, which is neither an array"
    ):
        read(tmp_path, blob)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("builtins", "eval"),
        ("builtins", "getattr"),
        ("builtins", "__import__"),
        ("__builtin__", "exec"),
        ("functools", "partial"),
        ("operator", "attrgetter"),
        ("numpy", "load"),
        ("numpy.testing._private.utils", "runstring"),
        ("torch", "load"),
        ("torch.hub", "load"),
        ("torch.storage", "torch.load"),
        ("torch.serialization", "load"),
        ("torch._utils", "_rebuild_sparse_tensor"),
        ("collections", "OrderedDict.__init__"),
        ("collections", "defaultdict"),
        ("models.ncsnpp", "NCSNpp"),
        ("dnnlib.util", "EasyDict.update"),
        ("sdelab.interop.torch_file", "read_torch"),
    ],
)
def test_every_other_global_is_refused_by_name(tmp_path, marker, module, name):
    with pytest.raises(UnsafePickle, match=f"the pickle asks for {module}.{name}, "):
        read(tmp_path, calling(module, name, f"open({str(marker)!r}, 'w')"))


def test_a_module_of_torch_is_a_record_whatever_its_name(tmp_path):
    linear = read(tmp_path, calling("torch.nn.modules.linear", "Linear", state={"weight": 3, "forward": "x"}))
    assert (linear.class_name, linear.state) == ("Linear", {"weight": 3, "forward": "x"})
    assert not hasattr(linear, "forward")


REBUILD = named("torch._utils", "_rebuild_tensor_v2")


@pytest.mark.parametrize(
    ("blob", "message"),
    [
        # what a name stands for cannot be changed: not through its state, and not through the slots of it
        (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}X\x08\x00\x00\x00__code__K\x01sb.", "sets the state of Function"),
        (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\nN}X\x08\x00\x00\x00__call__K\x01s\x86b.", "sets the state of Func"),
        (b"\x80\x02ctorch\nFloatStorage\n}X\x05\x00\x00\x00dtypeK\x01sb.", "sets the state of ElementType"),
        (calling("torch.nn.modules.linear", "Linear", state=[1]), "sets the state of Linear to a list"),
        (calling("torch_utils.persistence", "_reconstruct_persistent_obj", {"type": "module"}), "something else than its"),
        (calling("torch_utils.persistence", "_reconstruct_persistent_obj", "import os"), "something else than its desc"),
        (calling("torch._utils", "_rebuild_tensor_v2", [1.0], 0, (1,), (1,), False, None), "else than a storage"),
        (calling("torch.storage", "_load_from_bytes", "text"), "reads a storage from str"),
        (calling("_codecs", "encode", "a", "rot13"), "encodes str as 'rot13'"),
        (calling("numpy", "dtype", "O", False, True), "an array of dtype 'O'; accepted: numbers"),
        (calling("numpy", "dtype", [("a", "f4")], False, True), "an array of dtype 'O'"),
        (calling("numpy", "dtype", "f4", state=(3, "<", None, ("a",), {"a": 1}, -1, -1, 0)), "accepted: numbers"),
        (calling("numpy.core.multiarray", "scalar", "f4", b"1234"), "numpy scalar of something else"),
        (b"\x80\x02X\x01\x00\x00\x00aQ.", "refers to 'a', outside of it"),
        (b"\x80\x02]r\xff\xff\xff\x7f.", "stores an object at 2147483647 after 2 operations"),
    ],
)  # fmt: skip
def test_tricks_with_what_is_accepted_are_refused(tmp_path, blob, message):
    with pytest.raises(UnsafePickle, match=message):
        read(tmp_path, blob)


def test_a_numpy_array_of_objects_is_refused(tmp_path, marker):
    array = np.array([Call(os.system, f"touch {marker}")], dtype=object)
    with pytest.raises(UnsafePickle, match="an array of dtype 'O8'; accepted: numbers"):
        read(tmp_path, pickle.dumps(array))


@pytest.mark.parametrize(
    "blob",
    [
        b"\x80\x02ccollections\nOrderedDict\n}X\x05\x00\x00\x00itemsK\x01sb.",  # the state of a class
        b"\x80\x02ctorch.nn.modules.linear\nLinear\nN}X\x05\x00\x00\x00stateK\x01s\x86b.",
        b"\x80\x02]\x94a.",  # nothing to append
        b"\x80\x02(" * 3,
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f.",  # a frame beyond the file
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",  # bytes beyond the file
        b"(" * 100_000 + b"t" * 100_000 + b".",  # deeper than the stack
        calling("numpy.core.multiarray", "_reconstruct", 1, (0,), b"b", state=(1, (2,), "f4", False, b"1234")),
    ],
)
def test_broken_pickles_are_unreadable_and_do_no_harm(tmp_path, blob):
    with pytest.raises((UnreadableCheckpoint, UnsafePickle), match=r"file\.pkl"):
        read(tmp_path, blob)


def test_repeated_references_cost_what_is_there(tmp_path):
    nested = []
    for _ in range(200):
        nested = [nested, nested]  # 2**200 leaves, if each were copied
    tree = read(tmp_path, pickle.dumps(nested))
    assert tree[0] is tree[1]


@pytest.mark.parametrize("end", [b"Q.", b"0ctorch\ndevice\nh\x00\x85R."], ids=["persistent", "device"])
def test_what_would_fill_the_memory_as_text_is_not_written_out(tmp_path, end):
    """2**60 leaves, in a message or a name."""
    blob = b"\x80\x02K\x01q\x00" + b"h\x00\x86q\x00" * 60 + end
    with pytest.raises(UnsafePickle, match=r"refers to \(\(") if end == b"Q." else contextlib.nullcontext():
        read(tmp_path, blob)


def tensor_pickle(*, count=4, offset=0, size=(2, 2), stride=(2, 1), tag="storage", kind="FloatStorage"):
    """A pickle of one tensor over the storage "0", of protocol 2."""

    class Pickler(pickle._Pickler):
        def persistent_id(self, obj):
            return obj[1] if isinstance(obj, tuple) and obj and obj[0] == "persist" else None

        def save_global(self, obj, name=None):
            self.write(f"c{obj.__module__}\n{obj.__qualname__}\n".encode())

    file = io.BytesIO()
    storage = ("persist", (tag, named("torch", kind), "0", "cpu", count))
    Pickler.dispatch = {**pickle._Pickler.dispatch, type(REBUILD): Pickler.save_global}
    Pickler(file, 2).dump(Call(REBUILD, storage, offset, size, stride, False, None))
    return file.getvalue()


def archive(tmp_path, data, *, storage=bytes(16), compression=zipfile.ZIP_STORED, **entries):
    path = tmp_path / "file.pth"
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in {"data.pkl": data, "data/0": storage, **entries}.items():
            file.writestr(f"archive/{name}", content)
    return path


def test_the_archives_made_here_are_read(tmp_path):
    storage = np.arange(4, dtype=np.float32).tobytes()
    tensor = read_torch(archive(tmp_path, tensor_pickle(stride=(1, 2)), storage=storage))
    np.testing.assert_array_equal(tensor, np.float32([[0, 2], [1, 3]]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": (2, 3)}, "reaches element 4 of a storage of 4"),
        ({"offset": 1}, "reaches element 4 of a storage of 4"),
        ({"offset": -1}, "offset -1"),
        ({"stride": (2, -1)}, r"stride \(2, -1\)"),
        ({"stride": (2,)}, r"size \(2, 2\), stride \(2,\)"),
        ({"size": (2**62, 2**62), "stride": (1, 1)}, "of a storage of 4"),
        ({"size": (1.5, 2)}, "size"),
        ({"count": 5}, "a storage of 5 x float32 holds 16 bytes"),
        ({"kind": "DoubleStorage"}, "a storage of 4 x float64 holds 16 bytes"),
    ],
)
def test_a_tensor_lies_within_its_storage(tmp_path, change, message):
    with pytest.raises(UnreadableCheckpoint, match=message):
        read_torch(archive(tmp_path, tensor_pickle(**change)))


def test_what_refers_to_no_storage_is_refused(tmp_path):
    with pytest.raises(UnsafePickle, match="refers to 'module', 4, which is no storage"):
        read_torch(archive(tmp_path, tensor_pickle(tag="module")))
    with pytest.raises(UnsafePickle, match="refers to 'storage', -4, which is no storage"):
        read_torch(archive(tmp_path, tensor_pickle(count=-4)))


def test_archives_that_grow_or_lie_are_refused(tmp_path):
    with pytest.raises(UnsafePickle, match=r"entry archive/data\.pkl is compressed"):
        read_torch(archive(tmp_path, tensor_pickle(), storage=bytes(10**7), compression=zipfile.ZIP_DEFLATED))
    path = archive(tmp_path, tensor_pickle(), twins=b"", twinz=b"")
    path.write_bytes(path.read_bytes().replace(b"twinz", b"twins"))
    with pytest.raises(UnsafePickle, match="entries overlap"):
        read_torch(path)
    with pytest.raises(UnreadableCheckpoint, match=r"holds 0 files data\.pkl; accepted: one"):
        read_torch(empty(tmp_path))
    with pytest.raises(UnreadableCheckpoint, match="big-endian; accepted: little-endian"):
        read_torch(archive(tmp_path, tensor_pickle(), byteorder=b"big"))
    path = archive(tmp_path, tensor_pickle(), storage=b"A" * 16)
    path.write_bytes(path.read_bytes().replace(b"A" * 16, b"A" * 15 + b"B"))
    with pytest.raises(UnreadableCheckpoint, match="CRC"):
        read_torch(path)


def empty(tmp_path):
    with zipfile.ZipFile(tmp_path / "empty.pth", "w") as file:
        file.writestr("archive/version", b"3")
    return tmp_path / "empty.pth"


def rows(*objects, storages=()):
    """The layout before torch 1.6."""
    system = {"protocol_version": PROTOCOL, "little_endian": True, "type_sizes": {}}
    head = b"".join(pickle.dumps(value, 2) for value in (MAGIC, PROTOCOL, system))
    return head + b"".join(objects) + b"".join(struct.pack("<q", count) + raw for count, raw in storages)


@pytest.mark.parametrize(
    ("blob", "message"),
    [
        (rows(tensor_pickle(), pickle.dumps(["0"]), storages=[(5, bytes(20))]), "has 5 elements, where 4 were declared"),
        (rows(tensor_pickle(), pickle.dumps(["0"]), storages=[(4, bytes(12))]), "4 x float32 holds 12 bytes"),
        (rows(tensor_pickle(), pickle.dumps([]), storages=[]), "file.pkl is torn"),
        (rows(tensor_pickle(), pickle.dumps(["1"]), storages=[(4, bytes(16))]), "file.pkl is torn"),
        (rows(tensor_pickle(size=(9,), stride=(1,)), pickle.dumps(["0"]), storages=[(4, bytes(16))]), "element 8 of a"),
        (pickle.dumps(MAGIC, 2) + pickle.dumps(7, 2) + pickle.dumps({}, 2), "version 7"),
    ],
)  # fmt: skip
def test_the_older_layout_is_checked_likewise(tmp_path, blob, message):
    with pytest.raises(UnreadableCheckpoint, match=message):
        read(tmp_path, blob)


def test_a_storage_embedded_in_an_embedded_storage_is_refused(tmp_path):
    inner = rows(calling("torch.storage", "_load_from_bytes", b""), pickle.dumps([]))
    with pytest.raises(UnsafePickle, match=r"asks for torch\.storage\._load_from_bytes"):
        read(tmp_path, calling("torch.storage", "_load_from_bytes", inner))
    text = rows(pickle.dumps({"a": 1}), pickle.dumps([]))
    with pytest.raises(UnsafePickle, match="reads dict in place of a storage"):
        read(tmp_path, calling("torch.storage", "_load_from_bytes", text))


def test_the_source_in_a_pickle_of_edm_stays_text(tmp_path, marker):
    meta = {
        "type": "class",
        "version": 6,
        "module_src": f"open({str(marker)!r}, 'w')",
        "class_name": "Net",
        "state": {},
    }
    network = read(tmp_path, calling("torch_utils.persistence", "_reconstruct_persistent_obj", meta))
    assert network.class_name == "Net"


def test_a_file_of_torch_reads_alike_with_torch(tmp_path):
    torch = pytest.importorskip("torch")
    for file in ("tensors.pth", "tensors_legacy.pth"):
        theirs, ours = torch.load(INTEROP / file, weights_only=False), read_torch(INTEROP / file)
        for name, tensor in theirs.items():
            if isinstance(tensor, torch.Tensor):
                np.testing.assert_array_equal(
                    tensor.detach().to(torch.complex128).numpy(), ours[name].astype(np.complex128)
                )
