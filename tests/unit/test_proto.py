"""The committed stubs are what proto/ says, and they import on every protobuf that we promise."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto, FileDescriptorSet
from grpc_tools import protoc  # type: ignore[import-untyped]

ROOT = Path(__file__).parents[2]
PROTO = ROOT / "proto"
STUBS = ROOT / "clients" / "python" / "trimtab" / "v1"
# Generated under the path of its package, so that nobody else's etcd stubs in the process can collide with it.
ETCD = "controlplane/store/etcd/rpc.proto"
NAMES = sorted(path.relative_to(PROTO).as_posix() for path in (PROTO / "trimtab" / "v1").glob("*.proto"))
IMPORTS = """
import warnings
warnings.simplefilter("error")
import google.protobuf
assert google.protobuf.__version__.startswith("{major}."), google.protobuf.__version__
from trimtab.v1 import admin_pb2, mesh_pb2, registry_pb2, types_pb2
from trimtab.v1 import admin_pb2_grpc, mesh_pb2_grpc, registry_pb2_grpc
delta = mesh_pb2.Delta(nonce=1, resources=[types_pb2.Resource(kind=types_pb2.KIND_ENDPOINTS, name="a/b")])
assert mesh_pb2.Delta.FromString(delta.SerializeToString()) == delta
print(google.protobuf.__version__)
"""


def compiled(directory: Path, mapping: str, names: list[str]) -> Iterator[FileDescriptorProto]:
    """What protoc makes of ``names``."""
    out = directory / "descriptors"
    include = Path(protoc.__file__).parent / "_proto"
    status = protoc.main(["protoc", f"-I{mapping}", f"-I{include}", f"--descriptor_set_out={out}", *names])
    assert status == 0, f"protoc refused {names}"
    yield from FileDescriptorSet.FromString(out.read_bytes()).file


@cache
def committed(module: str) -> FileDescriptorProto:
    loaded = importlib.import_module(module)
    return FileDescriptorProto.FromString(loaded.DESCRIPTOR.serialized_pb)


def test_there_are_contracts_and_each_has_its_stub() -> None:
    assert [f"trimtab/v1/{name}.proto" for name in ("admin", "mesh", "registry", "types")] == NAMES
    assert {path.stem.removesuffix("_pb2") for path in STUBS.glob("*_pb2.py")} == {Path(name).stem for name in NAMES}
    assert {path.stem.removesuffix("_pb2") for path in STUBS.glob("*_pb2.pyi")} == {Path(name).stem for name in NAMES}


def test_the_committed_stubs_are_what_the_contracts_say(tmp_path: Path) -> None:
    for file in compiled(tmp_path, str(PROTO), NAMES):
        module = file.name.removesuffix(".proto").replace("/", ".") + "_pb2"
        assert plain(committed(module)) == plain(file), f"{file.name} and its stub differ: run `make proto`"


def test_the_committed_etcd_stub_is_what_its_contract_says(tmp_path: Path) -> None:
    (file,) = compiled(tmp_path, f"{Path(ETCD).parent}={PROTO / 'etcd'}", [ETCD])
    assert plain(committed("controlplane.store.etcd.rpc_pb2")) == plain(file), "run `make proto`"


def plain(file: FileDescriptorProto) -> FileDescriptorProto:
    """Without what only newer compilers write down: names in JSON, which follow from the fields' names."""
    copy = FileDescriptorProto()
    copy.CopyFrom(file)
    for message in messages(copy.message_type):
        for field in message.field:
            field.ClearField("json_name")
    return copy


def messages(found: Iterable[DescriptorProto]) -> Iterator[DescriptorProto]:
    for message in found:
        yield message
        yield from messages(message.nested_type)


@pytest.mark.parametrize("name", [Path(name).stem for name in NAMES])
def test_every_method_has_its_path_in_the_stubs_of_its_service(name: str) -> None:
    package = committed(f"trimtab.v1.{name}_pb2")
    wanted = {
        f"/{package.package}.{service.name}/{method.name}" for service in package.service for method in service.method
    }
    stub = STUBS / f"{name}_pb2_grpc.py"
    found = set(re.findall(r"'(/[\w.]+/\w+)'", stub.read_text())) if stub.exists() else set()
    assert found == wanted, "run `make proto`"


@pytest.mark.parametrize("major", [5, 6, 7])
def test_the_stubs_import_on_every_protobuf_that_is_promised_without_a_warning(major: int) -> None:
    path = [str(STUBS.parents[1])]
    if major < 7:  # 7 is the environment's own
        older = Path(sys.prefix) / f"protobuf-{major}"
        assert older.is_dir(), (
            f"{older} is missing: `make test` installs protobuf {major} there, beside the environment"
        )
        path.insert(0, str(older))
    program = f"import sys; sys.path[:0] = {path!r}\n" + IMPORTS.format(major=major)
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith(f"{major}.")
    assert ran.stderr == ""
