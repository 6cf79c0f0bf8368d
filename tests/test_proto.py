"""The contract: linted, unbroken, compiled in five languages, and described by its README as it is served."""

from __future__ import annotations

import copy
import fnmatch
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import grpc
import pytest
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2
from tokensidecar.v1 import (
    admin_service_pb2,
    admin_service_pb2_grpc,
    errors_pb2,
    keys_pb2,
    token_service_pb2 as pb,
    token_service_pb2_grpc,
)

from tests.running import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from google.protobuf.message import Message

    from tests.running import RunningSidecar

PROTO = ROOT / "proto"
FILES = sorted(str(file.relative_to(PROTO)) for file in PROTO.glob("tokensidecar/v1/*.proto"))
MODULES = (admin_service_pb2, errors_pb2, keys_pb2, pb)
BUF = str(ROOT / ".venv/bin/buf")
PROTOC = (sys.executable, "-m", "grpc_tools.protoc")
PROTOBUF_JAVA, GRPC_JAVA = "4.35.1", "1.83.1"
LANGUAGE_OPTIONS = (
    *("csharp_namespace", "go_package", "java_multiple_files", "java_outer_classname", "java_package"),
    *("objc_class_prefix", "php_metadata_namespace", "php_namespace", "ruby_package", "swift_prefix"),
)


def run(*command: str | Path, cwd: Path = ROOT, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, command)), cwd=cwd, env=env, capture_output=True, text=True, timeout=280, check=False
    )


def ok(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def contract(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled contract, a FileDescriptorSet: read with no includes but the ones that come with grpcio-tools."""
    file = tmp_path_factory.mktemp("contract") / "set"
    ok(run(*PROTOC, f"-I{PROTO}", f"--descriptor_set_out={file}", "--include_imports", "--include_source_info", *FILES))
    return file


def generate(contract: Path, *arguments: str | Path, protoc: tuple[str | Path, ...] = PROTOC) -> None:
    """Runs a protoc that knows the language, or a plugin for it."""
    ok(run(*protoc, f"--descriptor_set_in={contract}", *arguments, *FILES))


def grpc_plugin(path: str | Path | None) -> str:
    return f"--plugin=protoc-gen-grpc={path}"


# Lint and change


def test_lint_is_clean() -> None:
    assert ok(run(BUF, "lint", PROTO)) == ""


def test_lint_demands_a_comment_on_every_element(tmp_path: Path) -> None:
    copied = tmp_path / "proto"
    shutil.copytree(PROTO, copied)
    for name in FILES:
        lines = (copied / name).read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if not line.lstrip().startswith("//") or "buf:lint:ignore" in line]
        (copied / name).write_text("".join(kept), encoding="utf-8")
    done = run(BUF, "lint", "--error-format=json", copied)
    kinds = {"SERVICE", "RPC", "MESSAGE", "FIELD", "ONEOF", "ENUM", "ENUM_VALUE"}
    assert {json.loads(line)["type"] for line in done.stdout.splitlines()} == {f"COMMENT_{kind}" for kind in kinds}


@pytest.mark.parametrize("option", LANGUAGE_OPTIONS)
def test_every_file_sets_every_language_option(option: str) -> None:
    assert sorted(module.DESCRIPTOR.name for module in MODULES) == FILES
    options = [module.DESCRIPTOR.GetOptions() for module in MODULES]
    assert all(each.HasField(option) for each in options)
    values = {getattr(each, option) for each in options}
    assert len(values) == (len(FILES) if option == "java_outer_classname" else 1)


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        ("  string token_id = 2;\n", "", "FIELD_NO_DELETE"),
        ("  string token_id = 2;\n", "  string token_id = 12;\n", "FIELD_NO_DELETE"),
        ("  string token_id = 2;\n", "  bytes token_id = 2;\n", "FIELD_SAME_TYPE"),
        ("  rpc Issue(IssueRequest) returns (IssueResponse);\n", "", "RPC_NO_DELETE"),
    ],
)
def test_a_break_of_the_contract_is_noticed(tmp_path: Path, old: str, new: str, rule: str) -> None:
    copied = tmp_path / "proto"
    shutil.copytree(PROTO, copied)
    file = copied / "tokensidecar/v1/token_service.proto"
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new, 1), encoding="utf-8")
    done = run(BUF, "breaking", "--error-format=json", copied, "--against", PROTO)
    assert rule in {json.loads(line)["type"] for line in done.stdout.splitlines()}


@pytest.mark.needs("git")
def test_contract_is_unbroken_since_its_last_tag() -> None:
    tags = ok(run("git", "tag", "--list", "proto-v*", "--sort=v:refname")).split()
    against = f".git#tag={tags[-1]},subdir=proto" if tags else f"{PROTO}"  # before the first tag: with itself
    assert ok(run(BUF, "breaking", PROTO, "--against", against)) == ""


# Stubs


@pytest.mark.timeout(300)
@pytest.mark.needs(".uv/bin/uv")
def test_committed_python_stubs_are_what_the_contract_generates(tmp_path: Path) -> None:
    path = f"{ROOT / '.uv/bin'}{os.pathsep}{os.environ['PATH']}"
    ok(run(PROTO / "generate.sh", tmp_path, tmp_path, env={**os.environ, "PATH": path}))
    for package in ("v1", "fake", "fake/v1"):
        committed, written = ROOT / "clients/python/tokensidecar" / package, tmp_path / "tokensidecar" / package
        fresh = {file.name: file.read_bytes() for file in written.iterdir() if file.is_file()}
        assert fresh == {file.name: file.read_bytes() for file in committed.iterdir() if file.is_file()}
    for name in ("ext_authz_pb2.py", "ext_authz_pb2.pyi"):
        assert (tmp_path / "sidecar/envoy" / name).read_bytes() == (ROOT / "sidecar/envoy" / name).read_bytes()


def test_python_stubs_are_generated_and_import(contract: Path, tmp_path: Path) -> None:
    generate(contract, f"--python_out={tmp_path}", f"--pyi_out={tmp_path}", f"--grpc_python_out={tmp_path}")
    for package in ("tokensidecar", "tokensidecar/v1"):
        (tmp_path / package / "__init__.py").touch()
    code = "from tokensidecar.v1 import admin_service_pb2_grpc, token_service_pb2_grpc as stubs; print(stubs.__file__)"
    printed = ok(run(sys.executable, "-W", "error", "-c", code, env={**os.environ, "PYTHONPATH": str(tmp_path)}))
    assert printed.strip() == str(tmp_path / "tokensidecar/v1/token_service_pb2_grpc.py")


@pytest.mark.timeout(300)
@pytest.mark.needs("go", "protoc-gen-go", "protoc-gen-go-grpc")
def test_go_stubs_are_generated_and_compile(contract: Path, tmp_path: Path) -> None:
    module = "--go_opt=module=tokensidecar.dev/go", "--go-grpc_opt=module=tokensidecar.dev/go"
    generate(contract, f"--go_out={tmp_path}", f"--go-grpc_out={tmp_path}", *module)
    for name in ("go.mod", "go.sum"):
        shutil.copy(ROOT / "clients/go" / name, tmp_path)
    ok(run("go", "vet", "-mod=mod", "./...", cwd=tmp_path))
    assert len(list((tmp_path / "tokensidecarv1").glob("*.pb.go"))) == len(FILES) + 2


def maven(directory: Path) -> Path:
    """The folder with the jars, the generator and its plugin for Java, fetched by Maven."""
    system = "linux-x86_64" if platform.machine() == "x86_64" else "linux-aarch_64"
    program = f"<type>exe</type><classifier>{system}</classifier>"
    dependencies = "".join(
        f"<dependency><groupId>{group}</groupId><artifactId>{name}</artifactId><version>{version}</version>{more}"
        "</dependency>"
        for group, name, version, more in (
            ("com.google.protobuf", "protobuf-java", PROTOBUF_JAVA, ""),
            ("com.google.protobuf", "protoc", PROTOBUF_JAVA, program),
            ("io.grpc", "grpc-stub", GRPC_JAVA, ""),
            ("io.grpc", "grpc-protobuf", GRPC_JAVA, ""),
            ("io.grpc", "protoc-gen-grpc-java", GRPC_JAVA, program),
        )
    )
    (directory / "pom.xml").write_text(
        "<project><modelVersion>4.0.0</modelVersion><groupId>stubs</groupId><artifactId>stubs</artifactId>"
        f"<version>1</version><dependencies>{dependencies}</dependencies></project>",
        encoding="utf-8",
    )
    ok(run("mvn", "-q", "-B", "dependency:copy-dependencies", "-DoutputDirectory=fetched", cwd=directory))
    for exe in (directory / "fetched").glob("*.exe"):
        exe.chmod(0o755)
    return directory / "fetched"


@pytest.mark.timeout(300)
@pytest.mark.needs("mvn", "javac")
def test_java_stubs_are_generated_and_compile(contract: Path, tmp_path: Path) -> None:
    fetched = maven(tmp_path)
    (protoc,) = fetched.glob("protoc-4*.exe")
    (plugin,) = fetched.glob("protoc-gen-grpc-java-*.exe")
    source = tmp_path / "source"
    source.mkdir()
    generate(contract, f"--java_out={source}", grpc_plugin(plugin), f"--grpc_out={source}", protoc=(protoc,))
    files = sorted(source.rglob("*.java"))
    assert {"TokenServiceGrpc.java", "AdminServiceGrpc.java", "IssueRequest.java"} <= {file.name for file in files}
    assert {file.parent for file in files} == {source / "dev/tokensidecar/v1"}
    ok(run("javac", "-d", tmp_path / "classes", "-cp", f"{fetched}/*", *files))


@pytest.mark.timeout(300)
@pytest.mark.needs("g++", "protoc", "grpc_cpp_plugin", "/usr/include/grpcpp/grpcpp.h")
def test_cpp_stubs_are_generated_and_compile(contract: Path, tmp_path: Path) -> None:
    plugin = grpc_plugin(shutil.which("grpc_cpp_plugin"))
    generate(contract, f"--cpp_out={tmp_path}", plugin, f"--grpc_out={tmp_path}", protoc=("protoc",))
    files = sorted(tmp_path.rglob("*.cc"))
    assert len(files) == 2 * len(FILES)
    ok(run("g++", "-std=c++17", "-fsyntax-only", f"-I{tmp_path}", *files))


@pytest.mark.needs("ruby", "protoc", "grpc_ruby_plugin")
def test_ruby_stubs_are_generated_and_parse(contract: Path, tmp_path: Path) -> None:
    plugin = grpc_plugin(shutil.which("grpc_ruby_plugin"))
    generate(contract, f"--ruby_out={tmp_path}", plugin, f"--grpc_out={tmp_path}", protoc=("protoc",))
    files = {file.name: file for file in (tmp_path / "tokensidecar/v1").iterdir()}
    services = {"admin_service_services_pb.rb", "token_service_services_pb.rb"}
    assert files.keys() == {name.replace(".proto", "_pb.rb").split("/")[-1] for name in FILES} | services
    assert "module TokenSidecar\n  module V1\n" in files["token_service_services_pb.rb"].read_text(encoding="utf-8")
    for file in files.values():
        assert ok(run("ruby", "-wc", file)).strip() == "Syntax OK"


# The README's tables

README = (PROTO / "README.md").read_text(encoding="utf-8")
SERVICES = (
    pb.DESCRIPTOR.services_by_name["TokenService"],
    admin_service_pb2.DESCRIPTOR.services_by_name["AdminService"],
)


def rows(text: str) -> list[list[str]]:
    """The cells of a Markdown table's rows, without its head, back-quotes removed."""
    lines = [line.strip() for line in text.splitlines() if line.strip().startswith("|")]
    return [[cell.strip().replace("`", "") for cell in line.strip("|").split("|")] for line in lines[2:]]


def section(title: str) -> list[list[str]]:
    (text,) = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", README, re.MULTILINE | re.DOTALL)
    return rows(text)


RPCS = section("RPCs")
CONFIGURED_FIELDS = section("Fields that need configuration")


@pytest.fixture(scope="module")
def comments(contract: Path) -> dict[str, str]:
    """The comment on each value of ErrorReason, and on TokenService, by name; back-quotes removed."""
    found: dict[str, str] = {}
    for each in descriptor_pb2.FileDescriptorSet.FromString(contract.read_bytes()).file:
        locations = each.source_code_info.location
        texts = {tuple(location.path): location.leading_comments.replace("`", "") for location in locations}
        if each.name == "tokensidecar/v1/errors.proto":
            found |= {value.name: texts[5, 0, 2, index] for index, value in enumerate(each.enum_type[0].value)}
        if each.name == "tokensidecar/v1/token_service.proto":
            found["TokenService"] = texts[6, 0]
    return found


def test_readme_lists_every_rpc() -> None:
    assert [row[0] for row in RPCS] == [f"{each.name}.{method.name}" for each in SERVICES for method in each.methods]


def test_readme_lists_every_reason_as_the_contract_has_it(comments: dict[str, str]) -> None:
    listed = section("Reasons")
    assert [(row[0], row[1]) for row in listed] == [
        (str(value.number), value.name) for value in errors_pb2.ErrorReason.DESCRIPTOR.values
    ]
    for _, name, code, _, meaning in listed[1:]:
        assert f"{code}. {meaning}" == " ".join(comments[name].split())
    assert listed[0][4] == " ".join(comments["ERROR_REASON_UNSPECIFIED"].split())


def test_readme_says_of_each_reason_when_to_retry(comments: dict[str, str]) -> None:
    told = [(re.split(r", | or ", what), retry) for _, what, retry in rows(comments["TokenService"])]
    for _, name, code, retry, _ in section("Reasons")[1:]:
        fitting = [
            when
            for (told_code, *patterns), when in told
            if told_code == code and any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
        ]
        assert fitting == [retry], name


def trailer(error: grpc.RpcError, name: str) -> bytes:
    (value,) = (each.value for each in error.trailing_metadata() or () if each.key == name)
    return value if isinstance(value, bytes) else value.encode()


ISSUE = pb.IssueRequest(subject="user-1", audiences=["orders"])
VALIDATE = pb.ValidateRequest(token="a.b.c.d.e", audiences=["orders"])
# What shows where an RPC is served and changes nothing; of the others, the empty request does.
REQUESTS: dict[str, Message] = {
    "Issue": ISSUE,
    "Validate": VALIDATE,
    "BatchIssue": pb.BatchIssueRequest(requests=[ISSUE]),
    "BatchValidate": pb.BatchValidateRequest(requests=[VALIDATE]),
    "Rotate": pb.RotateRequest(expected_ring_revision=2**63),
}


def outcome(target: str, service: str, method: str) -> str:
    """Name of the code that a call ends with; of a batch, its item's."""
    (found,) = (each.methods_by_name[method] for each in SERVICES if each.name == service)
    stubs = admin_service_pb2_grpc if service == "AdminService" else token_service_pb2_grpc
    with grpc.insecure_channel(target) as channel:
        rpc = getattr(getattr(stubs, f"{service}Stub")(channel), method)
        try:
            answer = rpc(REQUESTS.get(method) or GetMessageClass(found.input_type)(), timeout=10)
        except grpc.RpcError as error:
            return str(error.code().name)
    if method.startswith("Batch"):
        (result,) = answer.results
        return next(code.name for code in grpc.StatusCode if code.value[0] == result.error.code)
    return "OK"


@pytest.mark.parametrize(("name", "planes", "since", "status"), RPCS, ids=[row[0] for row in RPCS])
def test_readme_says_where_an_rpc_is_served(
    sidecar: RunningSidecar, name: str, planes: str, since: str, status: str
) -> None:
    service, method = name.split(".")
    assert (since, status) == ("", "UNIMPLEMENTED") or (since != "" and status == "served")
    for plane, target in (("app", sidecar.app_socket), ("admin", sidecar.admin_socket)):
        code = outcome(target, service, method)
        if (service == "AdminService" and plane == "app") or (
            status == "UNIMPLEMENTED" and plane in planes.split(", ")
        ):
            assert code == "UNIMPLEMENTED", plane
        elif plane in planes.split(", "):
            assert code not in {"UNIMPLEMENTED", "PERMISSION_DENIED", "INTERNAL", "UNKNOWN"}, plane
        else:
            assert code == "PERMISSION_DENIED", plane


def fill(request: Message, field: str, value: str) -> None:
    """Sets the field, to the named value of its enumeration or to anything that is no default."""
    found = request.DESCRIPTOR.fields_by_name[field]
    if found.type == FieldDescriptor.TYPE_MESSAGE:
        getattr(request, field).SetInParent()
    elif found.enum_type is not None:
        setattr(request, field, found.enum_type.values_by_name[value].number)
    else:
        setattr(request, field, 1)


@pytest.mark.parametrize(("field", "value", "needs"), CONFIGURED_FIELDS, ids=[row[0] for row in CONFIGURED_FIELDS])
def test_field_that_the_profile_does_not_provide_for_is_refused_by_name(
    sidecar: RunningSidecar, field: str, value: str, needs: str
) -> None:
    assert "refresh_ttl" in needs
    message, name = field.split(".")
    method = message.removesuffix("Request")
    request = copy.deepcopy(REQUESTS[method])
    fill(request, name, value)
    with grpc.insecure_channel(sidecar.admin_socket if method == "Rotate" else sidecar.app_socket) as channel:
        rpc = getattr(token_service_pb2_grpc.TokenServiceStub(channel), method)
        with pytest.raises(grpc.RpcError) as raised:
            rpc(request, timeout=10)
    error = raised.value
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    status = status_pb2.Status.FromString(trailer(error, "grpc-status-details-bin"))
    details = {each.TypeName(): each.value for each in status.details}
    info = error_details_pb2.ErrorInfo.FromString(details["google.rpc.ErrorInfo"])
    bad = error_details_pb2.BadRequest.FromString(details["google.rpc.BadRequest"])
    assert info.reason == "REQUEST_INVALID"
    assert [violation.field for violation in bad.field_violations] == [name]
