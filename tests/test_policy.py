"""Policy: who may do what, default deny, limits, and rates; the reader of [policy] and the command that explains it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from sidecar.caller import SIDECAR, Caller, Plane
from sidecar.cli.main import main
from sidecar.config import ConfigError, load
from sidecar.errors import DeniedCallerError, OverloadedError
from sidecar.policy import CALLERS_KEPT, SERVED, Names, Policy, Rule, Verb, Wanted
from sidecar.rates import Bucket, Rate
from sidecar.rules import line_of
from tests.hand_clock import HandClock

WEB, OTHER, ADMIN = Caller("unix:web", Plane.APP), Caller("unix:other", Plane.APP), Caller("unix:admin", Plane.ADMIN)
SERVED_AT = {Plane.APP: "unix:/app.sock", Plane.ADMIN: "unix:/admin.sock"}
PROFILES = ("default", "second")


def policy(*rules: Rule, now: HandClock | None = None) -> Policy:
    clock = now or HandClock()
    return Policy(PROFILES, SERVED_AT, rules, now=clock.boot)


def issue(**limits: object) -> Rule:
    return Rule("policy.web.issue", "unix:web", Verb.ISSUE, frozenset({"default"}), **limits)  # type: ignore[arg-type]


def denied(decide: Policy, caller: Caller, verb: Verb, profile: str | None = "default") -> DeniedCallerError:
    with pytest.raises(DeniedCallerError) as caught:
        decide.check(caller, verb, profile)
    return caught.value


def test_without_rules_the_planes_decide() -> None:
    open_to_all = policy()
    for verb, planes in SERVED.items():
        for caller in (WEB, ADMIN):
            if caller.plane in planes:
                open_to_all.check(caller, verb, "default")
            else:
                assert SERVED_AT[planes[0]] in str(denied(open_to_all, caller, verb))


def test_with_a_rule_everything_else_is_denied() -> None:
    strict = policy(issue())
    strict.check(WEB, Verb.ISSUE, "default")
    denied(strict, WEB, Verb.VALIDATE)
    denied(strict, OTHER, Verb.ISSUE)
    denied(strict, ADMIN, Verb.ROTATE)
    denied(strict, ADMIN, Verb.GET_JWKS)


def test_no_rule_lets_a_verb_onto_the_wrong_plane() -> None:
    generous = policy(Rule("policy.web.rotate", "unix:web", Verb.ROTATE, frozenset(PROFILES)))
    assert "the admin plane" in str(denied(generous, WEB, Verb.ROTATE))


def test_the_schedule_needs_no_rule() -> None:
    strict = policy(issue())
    for verb in (Verb.ROTATE, Verb.DESTROY):
        strict.check(SIDECAR, verb, "default")
    denied(policy(), ADMIN, Verb.DESTROY)


def test_an_unknown_profile_and_a_forbidden_one_look_the_same() -> None:
    strict = policy(issue())
    unknown, forbidden = denied(strict, WEB, Verb.ISSUE, "unknown"), denied(strict, WEB, Verb.ISSUE, "second")
    assert (unknown.message, unknown.stage) == (forbidden.message, forbidden.stage)
    assert str(denied(policy(), WEB, Verb.ISSUE, "unknown")) == str(unknown)


def test_one_rule_must_allow_the_whole_of_a_request() -> None:
    orders = issue(audiences=Names.of(["orders"]), subjects=Names.of(["user-*"]))
    billing = issue(audiences=Names.of(["billing"]), subjects=Names.of(["bot"]))
    both = policy(orders, billing)
    both.check_grant(WEB, "default", Wanted(subject="user-1", audiences=["orders"]))
    both.check_grant(WEB, "default", Wanted(subject="bot", audiences=["billing"]))
    for wanted in (
        Wanted(subject="bot", audiences=["orders"]),
        Wanted(subject="user-1", audiences=["orders", "billing"]),
    ):
        with pytest.raises(DeniedCallerError):
            both.check_grant(WEB, "default", wanted)


@pytest.mark.parametrize(
    ("limits", "good", "bad", "words"),
    [
        (
            {"audiences": Names.of(["orders"])},
            Wanted(audiences=["orders"]),
            Wanted(audiences=["orders", "x"]),
            "audience 'x'",
        ),
        ({"scopes": Names.of(["read:*"])}, Wanted(scopes=["read:a"]), Wanted(scopes=["read"]), "scope 'read'"),
        ({"subjects": Names.of(["caller"])}, Wanted(subject="unix:web"), Wanted(subject="caller"), "subject 'caller'"),
        ({"client_ids": Names.of(["caller", "a"])}, Wanted(client_id="a"), Wanted(client_id="unix:app"), "client_id"),
        ({"max_ttl": 60}, Wanted(ttl=60), Wanted(ttl=61), "at most 60s"),
        ({"claims": frozenset({"role"})}, Wanted(claims={"role"}), Wanted(claims={"role", "admin"}), "claim 'admin'"),
        ({"scopes": Names.of([])}, Wanted(), Wanted(scopes=["a"]), "scope 'a'"),
    ],
)
def test_each_limit_holds_and_says_what_it_forbids(
    limits: dict[str, object], good: Wanted, bad: Wanted, words: str
) -> None:
    strict = policy(issue(**limits))
    strict.check_grant(WEB, "default", good)
    with pytest.raises(DeniedCallerError, match=words) as caught:
        strict.check_grant(WEB, "default", bad)
    assert caught.value.stage == f"policy.{next(iter(limits))}"


@given(st.lists(st.text("ab*", min_size=1, max_size=4), max_size=4), st.text("ab*", max_size=5))
def test_names_are_literal_or_a_prefix(texts: list[str], name: str) -> None:
    expected = any(name.startswith(t[:-1]) if t.endswith("*") else name == t for t in texts)
    assert Names.of(texts).allow(name, WEB) == expected


def test_a_listing_shows_the_allowed_profiles_alone() -> None:
    rule = Rule("policy.ops.list_keys", "unix:admin", Verb.LIST_KEYS, frozenset({"second"}))
    assert policy(rule).allowed(ADMIN, Verb.LIST_KEYS) == {"second"}
    assert policy().allowed(ADMIN, Verb.LIST_KEYS) == set(PROFILES)


# -- rates


def test_more_than_the_rate_waits_and_is_told_for_how_long() -> None:
    clock = HandClock()
    limited = policy(issue(rate=Rate(10, 1)), now=clock)
    limited.take(WEB, Verb.ISSUE, 10)
    with pytest.raises(OverloadedError) as caught:
        limited.take(WEB, Verb.ISSUE, 1)
    assert caught.value.retry_after == pytest.approx(0.1)
    clock.pass_time(0.11)
    limited.take(WEB, Verb.ISSUE, 1)
    limited.take(OTHER, Verb.ISSUE, 1_000)  # not its rate


def test_a_batch_over_the_rate_passes_when_nothing_was_used_and_is_paid_for_later() -> None:
    clock = HandClock()
    limited = policy(issue(rate=Rate(10, 1)), now=clock)
    limited.take(WEB, Verb.ISSUE, 100)
    with pytest.raises(OverloadedError) as caught:
        limited.take(WEB, Verb.ISSUE, 1)
    assert caught.value.retry_after == pytest.approx(9.1)


@given(
    st.integers(1, 50),
    st.lists(st.tuples(st.floats(0, 3), st.integers(1, 20)), min_size=1, max_size=60),
)
def test_over_any_time_no_more_passes_than_the_rate_allows(items: int, calls: list[tuple[float, int]]) -> None:
    bucket, now, passed = Bucket(Rate(items, 1), 0.0), 0.0, 0
    for pause, wanted in calls:
        now += pause
        if bucket.wait(min(wanted, items), now) == 0:
            bucket.take(min(wanted, items))
            passed += min(wanted, items)
        assert passed <= items + now * items + 1e-6


@given(st.integers(1, 100), st.integers(1, 100))
def test_after_the_time_that_was_told_it_passes(items: int, wanted: int) -> None:
    bucket = Bucket(Rate(items, 60), 0.0)
    bucket.take(items)
    wait = bucket.wait(wanted, 0.0)
    assert wait > 0
    assert bucket.wait(wanted, wait + 1e-6) == 0


def test_other_rules_do_not_refill_a_rate_that_stays() -> None:
    limited = policy(issue(rate=Rate(10, 60)))
    limited.take(WEB, Verb.ISSUE, 10)
    limited.replace([issue(rate=Rate(10, 60), max_ttl=5)])
    with pytest.raises(OverloadedError):
        limited.take(WEB, Verb.ISSUE, 1)
    limited.replace([issue(rate=Rate(20, 60))])
    limited.take(WEB, Verb.ISSUE, 1)


@pytest.mark.parametrize("text", ["10", "10/d", "0/s", "-1/s", "1.5/s", "10 /s", "10/s ", ""])
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="100/s"):
        Rate.parsed(text)


# -- the file

GOOD = """\
[listen]
app = ["unix:/run/ts/app/web.sock"]
admin = ["unix:/run/ts/admin/admin.sock"]

[profiles.default]
issuer = "i"
audiences = ["orders", "billing"]

[profiles.second]
issuer = "i"
audiences = ["orders"]

[policy.web]
caller = "unix:web"
issue = { profiles = ["default"], audiences = ["orders"], subjects = [
  "user-*"], max_ttl = "5m" }

[policy.web.validate]
# which
profiles = ["default"]

[policy.ops]
caller = "unix:admin"
rotate = { profiles = ["default", "second"] }
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(GOOD, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("key", "line"),
    [
        ("policy.web", 13),
        ("policy.web.caller", 14),
        ("policy.web.issue", 15),
        ("policy.web.issue.max_ttl", 15),
        ("policy.web.validate", 18),
        ("policy.web.validate.profiles", 20),
        ("policy.ops.rotate", 24),
        ("policy.nobody", None),
    ],
)
def test_the_line_of_a_key_is_found(key: str, line: int | None) -> None:
    assert line_of(GOOD, key) == line


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        ('caller = "unix:web"', "policy.x", "names no verb"),
        ('caller = "web"\nvalidate = { profiles = ["default"] }', "policy.x.caller", "a caller's name"),
        ('validate = { profiles = ["default"] }', "policy.x.caller", "is required"),
        ('caller = "unix:web"\nvalidate = { profiles = ["none"] }', "policy.x.validate.profiles", "not configured"),
        ('caller = "unix:web"\nvalidate = { profiles = [] }', "policy.x.validate.profiles", "at least one"),
        (
            'caller = "unix:web"\nvalidate = { audiences = ["a"], profiles = ["default"] }',
            "policy.x.validate.audiences",
            "unknown",
        ),
        ('caller = "unix:web"\nrotate = { profiles = ["default"] }', "policy.x.rotate", "admin plane alone"),
        ('caller = "unix:admin"\nissue = { profiles = ["default"] }', "policy.x.issue", "app plane alone"),
        ('caller = "unix:web"\ndestroy = { profiles = ["default"] }', "policy.x.destroy", "unknown"),
        ('caller = "unix:web"\nissue = { profiles = ["default"], rate = "9" }', "policy.x.issue.rate", "100/s"),
        (
            'caller = "unix:web"\nissue = { profiles = ["default"], claims = ["sub"] }',
            "policy.x.issue.claims",
            "registered",
        ),
        ('caller = "unix:web"\nissue = true', "policy.x.issue", "a table"),
    ],
)
def test_a_policy_that_is_no_good_is_refused_by_its_key(file: Path, text: str, key: str, words: str) -> None:
    file.write_text(f"{GOOD}\n[policy.x]\n{text}\n", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load(str(file), {})
    assert words in dict(caught.value.problems)[key]


def test_what_default_deny_leaves_out_is_said(file: Path) -> None:
    file.write_text(GOOD.replace("unix:admin", "unix:operator"), encoding="utf-8")
    notes = "\n".join(load(str(file), {}).notes)
    assert "no policy names unix:admin" in notes
    assert "no address of [listen] has the caller unix:operator" in notes


# -- can


@pytest.mark.parametrize(
    ("words", "code", "where"),
    [
        ("unix:web issue default", 0, ":15: policy.web.issue"),
        ("unix:web issue default --subject user-1 --audience orders --ttl 5m", 0, ":15: policy.web.issue"),
        ("unix:web issue default --subject bot", 1, ":15: policy.web.issue.subjects"),
        ("unix:web issue default --audience billing", 1, ":15: policy.web.issue.audiences"),
        ("unix:web issue default --ttl 301", 1, ":15: policy.web.issue.max_ttl"),
        ("unix:web issue second", 1, ":15: policy.web.issue.profiles"),
        ("unix:web issue none", 1, ":15: policy.web.issue.profiles"),
        ("unix:web validate default", 0, ":18: policy.web.validate"),
        ("unix:web get_jwks default", 1, ":13: policy.web"),
        ("unix:web rotate default", 1, "the built-in rules"),
        ("unix:else issue default", 1, ":13: policy"),
        ("unix:admin rotate second", 0, ":24: policy.ops.rotate"),
    ],
)
def test_can_says_yes_or_no_and_which_line_decided(
    file: Path, capsys: pytest.CaptureFixture[str], words: str, code: int, where: str
) -> None:
    assert main(["can", *words.split(), "--config", str(file)]) == code
    shown = capsys.readouterr().out
    assert shown.startswith("no: " if code else "yes: ")
    assert shown.rstrip().endswith(where)
    assert main(["can", *words.split(), "--config", str(file), "--json"]) == code
    assert json.loads(capsys.readouterr().out)["allowed"] is (code == 0)


def test_can_knows_the_built_in_rules(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(GOOD.partition("[policy.web]")[0], encoding="utf-8")
    assert main(["can", "unix:web", "issue", "second", "--config", str(file)]) == 0
    assert "no policy is configured" in capsys.readouterr().out


def test_can_knows_what_a_role_cannot_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "config.toml"
    file.write_text(
        '[profiles.default]\nissuer = "https://tokens.example.com"\naudiences = ["orders"]\n'
        f'[keys]\nstore = "file:{tmp_path}"\nrole = "validator"\nkek = {{ open = "file:{tmp_path}/open" }}\n'
    )
    assert main(["can", "unix:app", "issue", "default", "--config", str(file)]) == 1
    assert "validator" in capsys.readouterr().out
    assert main(["can", "unix:app", "validate", "default", "--config", str(file)]) == 0


# -- all below a name


def below(pattern: str = "spiffe://example.org/shop/*", **limits: object) -> Rule:
    return Rule("policy.shop.issue", pattern, Verb.ISSUE, frozenset({"default"}), **limits)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "fits"),
    [
        ("spiffe://example.org/shop/a", True),
        ("spiffe://example.org/shop/a/b", True),
        ("spiffe://example.org/shop", False),
        ("spiffe://example.org/shopping", False),
        ("spiffe://example.org/sho/p", False),
        ("spiffe://example.org.evil/shop/a", False),
        ("k8s:shop/a", False),
    ],
)
def test_a_pattern_is_about_all_below_and_nobody_else(name: str, fits: bool) -> None:
    found, caller = policy(below()), Caller(name, Plane.APP)
    if fits:
        found.check(caller, Verb.ISSUE, "default")
        assert found.decide(caller, Verb.ISSUE, "default").key == "policy.shop.issue"
    else:
        assert f"no policy lets {name} issue" in str(denied(found, caller, Verb.ISSUE))
        assert found.allowed(caller, Verb.ISSUE) == frozenset()
    denied(found, caller, Verb.VALIDATE)


def test_a_pattern_and_a_name_add_up() -> None:
    one = Rule("policy.a.validate", "spiffe://example.org/shop/a", Verb.VALIDATE, frozenset(PROFILES))
    found, caller = policy(below(), one), Caller("spiffe://example.org/shop/a", Plane.APP)
    found.check(caller, Verb.ISSUE, "default")
    found.check(caller, Verb.VALIDATE, "second")


def test_caller_among_names_is_each_one_s_own_below_a_pattern() -> None:
    found = policy(below(subjects=Names.of(["caller"])))
    for name in ("a", "b"):
        caller = Caller(f"spiffe://example.org/shop/{name}", Plane.APP)
        found.check_grant(caller, "default", Wanted(subject=caller.name))
        with pytest.raises(DeniedCallerError):
            found.check_grant(caller, "default", Wanted(subject="spiffe://example.org/shop/other"))


def test_rates_below_a_pattern_are_bounded_in_number_and_survive_a_reload() -> None:
    clock = HandClock()
    rules = (below(rate=Rate(1, 3600)), issue(rate=Rate(1, 3600)))
    found = policy(*rules, now=clock)
    first = Caller("spiffe://example.org/shop/0", Plane.APP)
    found.take(first, Verb.ISSUE, 1)
    found.take(WEB, Verb.ISSUE, 1)
    found.replace(rules)
    for caller in (first, WEB):
        with pytest.raises(OverloadedError):
            found.take(caller, Verb.ISSUE, 1)
    for number in range(1, CALLERS_KEPT + 10):
        found.take(Caller(f"spiffe://example.org/shop/{number}", Plane.APP), Verb.ISSUE, 1)
    assert len(found._table.callers) == CALLERS_KEPT + 1
    found.take(first, Verb.ISSUE, 1)  # so long ago that it is forgotten
    with pytest.raises(OverloadedError):
        found.take(WEB, Verb.ISSUE, 1)  # who is named never is


def test_strangers_take_no_room() -> None:
    found = policy(below())
    for number in range(100):
        denied(found, Caller(f"spiffe://other.org/{number}", Plane.APP), Verb.ISSUE)
    assert found._table.callers == {}


def test_can_answers_for_certificates_and_service_accounts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "config.toml"
    file.write_text(
        """[listen]
app = [{ address = "127.0.0.1:1", tls = { certificate = "/c", key = "/k", client_ca = "/a", trust_domain = "example.org" } }]
[policy.shop]
caller = "spiffe://example.org/shop/*"
issue = { profiles = ["default"], subjects = ["caller"] }
[policy.jobs]
caller = "k8s:jobs/*"
validate = { profiles = ["default"] }
""",
        encoding="utf-8",
    )
    for words, code, said in (
        ("spiffe://example.org/shop/a issue default", 0, f"{file}:5: policy.shop.issue"),
        ("spiffe://example.org/shop/a issue default --subject spiffe://example.org/shop/a", 0, "yes"),
        ("spiffe://example.org/shop/a issue default --subject root", 1, "policy.shop.issue.subjects"),
        ("spiffe://example.org/shop/a validate default", 1, "no policy lets"),
        ("spiffe://example.org/shop/a rotate default", 1, "not served"),
        ("spiffe://example.org/web issue default", 1, "no policy lets"),
        ("k8s:jobs/nightly validate default", 0, f"{file}:8: policy.jobs.validate"),
    ):
        assert main(["can", *words.split(), "--config", str(file)]) == code
        assert said in capsys.readouterr().out
