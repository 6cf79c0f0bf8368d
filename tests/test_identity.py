"""Whom a client certificate names: exact forms, and nothing near them. Through real TLS: tests/e2e/test_certificates.py."""

from __future__ import annotations

import re
import string
import time

import pytest
from hypothesis import example, given, strategies as st

from sidecar.errors import UnidentifiedCallerError
from sidecar.identity import DNS_NAME, Leaf, leaf, name_of
from tests.authority import Authority, dns, uri

CA = Authority()
NOW = 1_800_000_000.0


def named(*uris: str, dns_names: tuple[str, ...] = (), since: float = NOW - 1, until: float = NOW + 1) -> str:
    """The name, or the stage of the refusal."""
    found = Leaf(uris, dns_names, since, until, ca=False)
    try:
        return name_of(found, trust_domain="example.org", dns_names=("web.example.org", "jobs"), now=NOW)
    except UnidentifiedCallerError as error:
        return error.stage


def strict(text: str) -> bool:
    """SPIFFE-ID, section 2, character by character, with a path, in this trust domain."""
    scheme, _, rest = text.partition("://")
    domain, slash, path = rest.partition("/")
    segments = path.split("/")
    return (
        scheme == "spiffe"
        and domain == "example.org"
        and slash == "/"
        and len(text) <= 2048
        and len(segments) <= 32
        and all(0 < len(s) <= 255 and s not in (".", "..") for s in segments)
        and all(character in string.ascii_letters + string.digits + "._-" for s in segments for character in s)
    )


@given(st.text(max_size=60) | st.from_regex(r"spiffe://example\.org(/[A-Za-z0-9._\-%]{0,4}){0,4}", fullmatch=True))
@example("spiffe://example.org/web\n")
@example("spiffe://example.org/wéb")
@example("spiffe://example.org/web\x00")
@example("spiffe://example.org/" + "/".join(["a" * 255] * 8))
@example("spiffe://example.org/" + "/".join(["a"] * 33))
def test_a_spiffe_id_is_accepted_exactly_when_it_is_one_of_the_trust_domain(text: str) -> None:
    assert (named(text) == text) == strict(text)


@given(st.lists(st.text(max_size=20), min_size=2, max_size=4))
def test_several_uri_names_name_nobody_whatever_they_are(uris: list[str]) -> None:
    assert named("spiffe://example.org/web", *uris) == "caller.several_names"


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("web.example.org",), "dns:web.example.org"),
        (("other", "web.example.org", "web.example.org"), "dns:web.example.org"),
        (("web.example.org", "jobs"), "caller.several_names"),
        (("web.example.org.",), "caller.no_name"),
        (("WEB.example.org",), "caller.no_name"),
        (("*.example.org",), "caller.no_name"),
        (("web.example.org\x00.evil",), "caller.no_name"),
        ((), "caller.no_name"),
    ],
)
def test_a_dns_name_is_compared_as_text(names: tuple[str, ...], expected: str) -> None:
    assert named(dns_names=names) == expected


def test_a_certificate_counts_from_its_first_to_before_its_last_second() -> None:
    uris = ("spiffe://example.org/web",)
    assert named(*uris, since=NOW, until=NOW + 1) == uris[0]
    assert named(*uris, since=NOW + 0.1) == "caller.certificate_time"
    assert named(*uris, until=NOW) == "caller.certificate_time"


def test_without_a_trust_domain_no_spiffe_id_is_accepted() -> None:
    found = Leaf(("spiffe://example.org/web",), ("jobs",), NOW - 1, NOW + 1, ca=False)
    with pytest.raises(UnidentifiedCallerError):
        name_of(found, trust_domain="", dns_names=("jobs",), now=NOW)


def test_a_leaf_is_read_from_a_certificate() -> None:
    pair = CA.issue(uri("spiffe://example.org/web"), dns("web.example.org"), common_name="spiffe://example.org/root")
    found = leaf(pair.certificate)
    assert (found.uris, found.dns_names, found.ca) == (("spiffe://example.org/web",), ("web.example.org",), False)
    assert found.valid_from < time.time() < found.valid_until
    assert leaf(CA.certificate).ca
    assert leaf(CA.issue().certificate).uris == ()


@pytest.mark.parametrize("pem", [b"", b"x", CA.certificate[:100], CA.certificate[30:]])
def test_what_cannot_be_read_names_nobody(pem: bytes) -> None:
    with pytest.raises(UnidentifiedCallerError) as caught:
        leaf(pem)
    assert caught.value.stage == "caller.certificate"


@pytest.mark.parametrize(
    ("name", "good"),
    [("web", True), ("web.example.org", True), ("a-b.c", True), ("-a", False), ("a..b", False), ("a.", False), ("*.a", False), ("A", False), ("a" * 64, False)],
)  # fmt: skip
def test_dns_names_of_the_configuration_are_plain(name: str, good: bool) -> None:
    assert (re.fullmatch(DNS_NAME, name) is not None) == good
