"""Routes: paths in one reading, hosts, patterns, credentials; and how the file says them."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pytest
from hypothesis import given, strategies as st

from sidecar.config import Config, ConfigError, load
from sidecar.possession import forwarded, of_certificate
from sidecar.routes import (
    AmbiguousRequestError,
    Credential,
    Place,
    Request,
    Route,
    Upstream,
    credential,
    find,
    normal_host,
    normal_path,
)
from sidecar.upstream import Headers, text

SIGNED = '[profiles.inside]\nissuer = "i"\naudiences = ["orders"]\nformat = "signed"\npublished = true\n'
DEFAULT = '[profiles.default]\nissuer = "i"\naudiences = ["orders", "billing"]\n'
LISTEN = '[listen]\nenvoy = ["unix:/run/ts/envoy/envoy.sock"]\nforward_auth = ["127.0.0.1:8793"]\n'


def request(target: str = "/", method: str = "GET", host: str = "orders.example", **headers: str) -> Request:
    return Request(method, "https", host, target, headers)


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/", "/"),
        ("/a/b?c=../d", "/a/b"),
        ("/%61/%7Eb", "/a/~b"),
        ("/a%20b", "/a%20b"),
        ("/caf%c3%a9", "/caf%C3%A9"),
        ("/a..b/...", "/a..b/..."),
        ("/a/", "/a/"),
    ],
)
def test_a_path_has_one_normal_form(target: str, path: str) -> None:
    assert normal_path(target) == path
    assert normal_path(path) == path


@pytest.mark.parametrize(
    "target",
    [
        *("", "*", "a", "http://x/", "//a", "/a//b", "/.", "/..", "/a/../b", "/a/./b", "/%2e%2e/a", "/a/%2E", "/a%2fb", "/a%5Cb", "/a\\b"),
        *("/a;b", "/a%3Bb", "/a%00", "/a%1f", "/a%7f", "/a b", "/a#b", "/é", "/a%", "/a%g0", "/a%2", "/%252e", "/a\tb", '/"', "/%2525"),
        *("/a/%c0%ae%c0%ae/b", "/a%C0%AFb", "/a%e0%80%afb", "/%ff", "/a%25%41%31"),
    ],
)  # fmt: skip
def test_a_path_that_could_be_read_in_two_ways_is_refused(target: str) -> None:
    with pytest.raises(AmbiguousRequestError):
        normal_path(target)


@given(st.text(alphabet="/.%2eEfF5cCadmin;\\#?x", max_size=24))
def test_no_reader_finds_another_place_behind_a_normal_path(rest: str) -> None:
    try:
        path = normal_path("/public/" + rest)
    except AmbiguousRequestError:
        return
    for decoded in (path, unquote(path), unquote(unquote(path))):
        assert decoded.startswith("/public/")
        assert not {".", "..", ""} & set(decoded.removesuffix("/").split("/")[1:])
        assert not set(decoded) & {"\\", ";", "\0"}


@pytest.mark.parametrize("host", ["", "a b", "a/b", "a@b", "é", "[::1", "a:99999999", "-", "a,b", "\u212a.example"])
def test_what_is_no_host_is_refused(host: str) -> None:
    with pytest.raises(AmbiguousRequestError):
        normal_host(host)


def test_hosts_are_compared_without_case_port_and_final_dot() -> None:
    assert [normal_host(h) for h in ("A.Example:443", "a.example.", "[::1]:8080", "a")] == [
        "a.example", "a.example", "[::1]", "a"
    ]  # fmt: skip


def test_the_first_route_that_fits_decides() -> None:
    one, two = Route("one", paths=("/a/*",), methods=frozenset({"GET"})), Route("two", paths=("/*",))
    for target, method, expected in (
        ("/a", "GET", one),
        ("/a/", "GET", one),
        ("/a/b", "GET", one),
        ("/ab", "GET", two),
        ("/a/b", "get", two),
        ("/%61/b", "GET", one),
    ):
        assert find((one, two), request(target, method)) is expected
    assert find((one,), request("/ab")) is None


def test_an_exact_path_is_one_with_a_slash_at_its_end_too() -> None:
    route = Route("one", paths=("/a",))
    assert [bool(find((route,), request(target))) for target in ("/a", "/a/", "/a/b", "/A")] == [
        True,
        True,
        False,
        False,
    ]


def test_the_context_of_the_gateway_must_be_as_the_route_says() -> None:
    route = Route("one", extensions={"app": "orders"})
    asked = Request("GET", "https", "a", "/", {}, {"app": "orders", "more": "x"})
    assert find((route,), asked) is route
    assert find((route,), request()) is None


def test_a_credential_stands_where_the_route_says() -> None:
    bearer, dpop, cookie = Place("bearer"), Place("dpop"), Place("cookie", "s")
    route = Route("one", token=(bearer, dpop, cookie))
    for headers, expected in (
        ({"authorization": "Bearer a.b"}, Credential("a.b", bearer)),
        ({"authorization": "bearer a.b"}, Credential("a.b", bearer)),
        ({"authorization": "DPoP a.b"}, Credential("a.b", dpop)),
        ({"cookie": "x=1; s=a.b"}, Credential("a.b", cookie)),
        ({"cookie": 's="a.b"'}, Credential("a.b", cookie)),
        ({"authorization": "Basic a"}, None),
        ({"cookie": "S=a.b; ss=c"}, None),
        ({}, None),
    ):
        assert credential(route, headers) == expected


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer a,Bearer b"},
        {"authorization": "Bearer a b"},
        {"authorization": "Bearer "},
        {"authorization": "Bearer a", "cookie": "s=b"},
        {"cookie": "s=a; s=b"},
        {"cookie": "s=a b"},
    ],
)
def test_two_credentials_and_half_ones_are_refused(headers: dict[str, str]) -> None:
    with pytest.raises(AmbiguousRequestError):
        credential(Route("one", token=(Place("bearer"), Place("cookie", "s"))), headers)


@given(st.one_of(st.text(), st.integers(), st.booleans(), st.lists(st.text()), st.dictionaries(st.text(), st.text())))
def test_a_claim_as_a_header_is_visible_ascii_and_one_value_each(value: Any) -> None:
    made = text(value)
    assert made.isascii()
    assert made.isprintable()
    if isinstance(value, list):
        assert [unquote(one) for one in made.split(",")] == (value or [""])
    elif isinstance(value, str):
        assert unquote(made) == value
        assert not set(made) & set(', ;"\\')


def test_headers_that_routes_fill_are_taken_out_in_every_spelling() -> None:
    headers = Headers([Route("one", claims={"x-user-id": "sub"}), Route("two")])
    asked = Request("GET", "https", "a", "/", {"x_user-id": "1", "x_user_id": "2", "x-user": "3"})
    assert headers.changes(asked, {}).out == ("x-user-id", "x_user-id", "x_user_id")
    assert headers.changes(asked, {"x-user-id": "4"}).out == ("x_user-id", "x_user_id")


@pytest.mark.parametrize("kind", ["bearer", "dpop", "header", "cookie"])
def test_where_a_token_is_taken_out_so_is_every_other_credential_that_nobody_looked_at(kind: str) -> None:
    place = Place(kind, "x-token" if kind in ("header", "cookie") else "")
    asked = Request("GET", "https", "a", "/", {"authorization": "Bearer other", "dpop": "proof", "cookie": "x-token=t"})
    out = Headers([]).changes(asked, {}, [place]).out
    assert {"authorization", "dpop"} <= set(out)
    phantom = {"authorization": "Bearer phantom"}
    assert "authorization" not in Headers([]).changes(asked, phantom, [place]).out


# -- the file


def read(tmp_path: Path, routes: str) -> Config:
    file = tmp_path / "config.toml"
    file.write_text(LISTEN + DEFAULT + SIGNED + routes)
    return load(str(file), {})


def test_routes_are_read_in_order(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        '[[routes]]\nname = "a"\npaths = ["/a/*"]\nmethods = ["GET"]\naudiences = ["orders"]\ntoken = ["dpop", "cookie:s"]\n'
        'upstream = "phantom"\nphantom = "inside"\nextensions = { app = "x" }\n[[routes]]\nname = "b"\nopen = true\n',
    )
    one, two = found.routes
    assert (one.name, one.methods, one.token) == ("a", frozenset({"GET"}), (Place("dpop"), Place("cookie", "s")))
    assert (one.upstream, one.phantom, one.extensions) == (Upstream.PHANTOM, "inside", {"app": "x"})
    assert (two.name, two.open) == ("b", True)


@pytest.mark.parametrize(
    ("route", "key"),
    [
        ('open = true\naudiences = ["a"]', "routes[0].audiences"),
        ("", "routes[0].audiences"),
        ('audiences = ["orders"]\nprofiles = ["other"]', "routes[0].profiles"),
        ('audiences = ["orders"]\npaths = ["/a/../b"]', "routes[0].paths"),
        ('audiences = ["orders"]\npaths = ["/%61"]', "routes[0].paths"),
        ('audiences = ["orders"]\npaths = ["a"]', "routes[0].paths"),
        ('audiences = ["orders"]\nmethods = ["get"]', "routes[0].methods"),
        ('audiences = ["orders"]\nhosts = ["A.example"]', "routes[0].hosts"),
        ('audiences = ["orders"]\ntoken = ["basic"]', "routes[0].token"),
        ('audiences = ["orders"]\nupstream = "claims"', "routes[0].claims"),
        ('audiences = ["orders"]\nclaims = { x-user = "sub" }', "routes[0].claims"),
        ('audiences = ["orders"]\nupstream = "claims"\nclaims = { authorization = "sub" }', "routes[0].claims"),
        ('audiences = ["orders"]\nupstream = "claims"\nclaims = { x-forwarded-for = "sub" }', "routes[0].claims"),
        ('audiences = ["orders"]\nupstream = "claims"\nclaims = { X-User = "sub" }', "routes[0].claims"),
        ('audiences = ["orders"]\nupstream = "phantom"', "routes[0].phantom"),
        ('audiences = ["orders"]\nupstream = "phantom"\nphantom = "default"', "routes[0].phantom"),
        ('audiences = ["billing"]\nupstream = "phantom"\nphantom = "inside"', "routes[0].phantom"),
        ('audiences = ["orders"]\norigin = "https://a/b"', "routes[0].origin"),
    ],
)  # fmt: skip
def test_a_route_that_is_no_good_is_named(tmp_path: Path, route: str, key: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read(tmp_path, f'[[routes]]\nname = "a"\n{route}\n')
    assert [found for found, _ in refused.value.problems] == [key]


def test_routes_that_nobody_can_ask_about_are_noted(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('[[routes]]\nname = "a"\nopen = true\n')
    assert any(note.startswith("routes: no gateway") for note in load(str(file), {}).notes)
    file.write_text(LISTEN)
    assert any("every request that a gateway asks about is denied" in note for note in load(str(file), {}).notes)


# -- certificates


def test_a_certificates_thumbprint_is_that_of_its_der() -> None:
    der = bytes(range(200))
    pem = f"-----BEGIN CERTIFICATE-----\n{base64.encodebytes(der).decode()}-----END CERTIFICATE-----\n"
    expected = base64.urlsafe_b64encode(hashlib.sha256(der).digest()).decode().rstrip("=")
    assert of_certificate(pem) == of_certificate(quote(pem, safe="")) == expected
    for wrong in ("", "x", pem[5:], pem.replace("END", "DONE"), pem.replace("A", "*")):
        assert of_certificate(wrong) == ""


def test_of_forwarded_certificates_exactly_one_is_believed() -> None:
    digest = hashlib.sha256(b"x").hexdigest()
    expected = base64.urlsafe_b64encode(bytes.fromhex(digest)).decode().rstrip("=")
    for good in (f"Hash={digest}", f'By=spiffe://a;Hash={digest};Subject="CN=a,O=b"', f"hash={digest.upper()};URI=x"):
        assert forwarded(good) == expected
    for wrong in (
        "",
        "By=a",
        f"Hash={digest[:-1]}",
        f"Hash={digest},Hash={digest}",
        f"Hash={digest};Hash={digest}",
        f'Subject=";Hash={digest}',
        f"XHash={digest}",
        f'Subject=";Hash={digest};"',
    ):
        assert forwarded(wrong) == ""
