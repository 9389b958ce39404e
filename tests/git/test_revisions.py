"""A REF is a branch, a tag, a commit id or `latest`; what it is depends on what the remote advertises."""

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from tasks.errors import NetworkError, UsageError
from tasks.git import revisions as refs
from tasks.git.revisions import Advertised, Target, resolve
from tasks.names import check_ref

settings.register_profile("busy machine", deadline=None)
settings.load_profile("busy machine")

TAGS = [
    *("v0.1.6", "v0.2.0", "v0.2.0.post2", "v0.2.9rc2", "v0.4.0rc3", "v0.4.0", "v0.5.0rc2", "0.5.0rc2", "v0.6.7"),
    *(
        "v0.6.7.post3",
        "v0.6.8rc1",
        "v0.6.10",
        "v0.6.17",
        "v0.6.18rc7",
        "nightly-v0.6.9-20260504",
        "aarch64",
        "gateway-v0.9",
    ),
]
MAIN, RELEASE = "a" * 40, "b" * 40
COMMITS = {tag: f"{number:040x}" for number, tag in enumerate(TAGS, 0x1234567 << 132)}
REMOTE = Advertised(
    heads={"main": MAIN, "release/1": RELEASE, "v0.2.0": RELEASE, "deadbeef": MAIN},
    tags=COMMITS | {"v0.6.17": "c" * 40, "latest": MAIN},
    peeled={"v0.6.17": "d" * 40},
)
PLACE = ("flashinfer", "https://user:secret@host.example/x.git")
VERSIONS = st.builds(
    "{}.{}.{}{}".format,
    *[st.integers(0, 20)] * 3,
    st.sampled_from(["", "", ".post1", ".post12", "rc1", "rc12", "a3", ".dev4"]),
)
NOISE = st.sampled_from(
    ["nightly-v0.6.9-20260504", "aarch64", "gateway-v9.9.9", "20260101", "v9", "v9.9.9+cu124", "test-release-026"]
)
SOME_TAGS = st.lists(st.builds("{}{}".format, st.sampled_from(["v", "v", ""]), VERSIONS) | NOISE, max_size=12)


def resolved(ref: str) -> Target:
    return resolve(ref, REMOTE, *PLACE)


def refused(ref: str) -> str:
    with pytest.raises(UsageError) as error:
        resolved(ref)
    assert "secret" not in str(error.value) and error.value.what.isprintable()
    return str(error.value)


def test_a_list_of_refs_is_read_with_annotated_tags_peeled() -> None:
    listed = (
        f"{MAIN}\tHEAD\n{MAIN}\trefs/heads/main\n{RELEASE}\trefs/pull/7/head\n"
        f"{'c' * 40}\trefs/tags/v1.0\n{'d' * 40}\trefs/tags/v1.0^{{}}\n{'e' * 64}\trefs/tags/big\n"
        f"{MAIN}\trefs/heads/odd\u2028name\n"
    )
    read = Advertised.parse(listed, "x")
    assert read.heads == {"main": MAIN, "odd\u2028name": MAIN}
    assert read.tags == {"v1.0": "c" * 40, "big": "e" * 64}
    assert (read.commit("v1.0"), read.commit("big")) == ("d" * 40, "e" * 64)
    assert Advertised.parse("", "x") == Advertised({}, {}, {})


@pytest.mark.parametrize(
    "line", ["main", f"{MAIN}", f"{MAIN[1:]}\trefs/heads/x", f"{'g' * 40}\trefs/heads/x", f"{MAIN} refs/heads/x"]
)
def test_a_broken_list_of_refs_is_the_remotes_fault(line: str) -> None:
    with pytest.raises(NetworkError):
        Advertised.parse(f"{MAIN}\trefs/heads/main\n{line}\n", "x")


@pytest.mark.parametrize(
    ("ref", "target"),
    [
        ("main", Target("main", "branch", "main", MAIN, MAIN)),
        ("release/1", Target("release/1", "branch", "release/1", RELEASE, RELEASE)),
        ("refs/heads/main", Target("refs/heads/main", "branch", "main", MAIN, MAIN)),
        ("v0.6.7", Target("v0.6.7", "tag", "v0.6.7", COMMITS["v0.6.7"], COMMITS["v0.6.7"])),
        ("v0.6.17", Target("v0.6.17", "tag", "v0.6.17", "d" * 40, "c" * 40)),
        ("latest", Target("latest", "tag", "v0.6.17", "d" * 40, "c" * 40)),
        ("refs/tags/latest", Target("refs/tags/latest", "tag", "latest", MAIN, MAIN)),
        ("aarch64", Target("aarch64", "tag", "aarch64", COMMITS["aarch64"], COMMITS["aarch64"])),
    ],
)
def test_branches_tags_and_the_word_latest(ref: str, target: Target) -> None:
    assert resolved(ref) == target


def test_a_name_that_is_both_is_the_branch_and_the_tag_has_its_full_name() -> None:
    assert (resolved("v0.2.0").kind, resolved("v0.2.0").commit) == ("branch", RELEASE)
    assert (resolved("refs/tags/v0.2.0").kind, resolved("refs/tags/v0.2.0").commit) == ("tag", COMMITS["v0.2.0"])


def test_a_full_commit_id_is_taken_as_it_is() -> None:
    unknown = "F" * 39 + "0"
    assert resolved(unknown) == Target(unknown, "commit", "", unknown.lower(), unknown.lower())
    assert "SHA-1" in refused("1" * 64)
    assert resolved("c" * 40).commit == "d" * 40, "the id of a tag object leads to its commit"


def test_a_short_commit_id_has_to_begin_one_advertised_id() -> None:
    assert resolved("bbbbbbb") == Target("bbbbbbb", "commit", "", RELEASE, RELEASE)
    assert resolved("ccccccc").commit == "d" * 40
    assert "more than one" in refused("1234567")
    assert "full commit id" in refused("9876543")
    assert resolved("deadbeef").kind == "branch"


@pytest.mark.parametrize(
    ("ref", "suggested"),
    [
        ("mian", ["main"]),
        ("latst", ["latest"]),
        ("V0.6.7", ["v0.6.7"]),
        ("0.6.7.post3", ["v0.6.7.post3"]),
        ("v0.6.7-post3", ["v0.6.7.post3"]),
        ("v0.6.19", ["v0.6.17", "v0.6.10"]),
        ("v0.6.9", ["v0.6.7.post3", "v0.6.7", "v0.6.10"]),
        ("v0.6.18rc9", ["v0.6.18rc7"]),
        ("nightly-v0.6.9-20260505", ["nightly-v0.6.9-20260504"]),
        ("refs/heads/mian", ["main"]),
        ("refs/tags/main", ["main"]),
    ],
)
def test_an_unknown_ref_names_the_nearest(ref: str, suggested: list[str]) -> None:
    names = re.findall(r"(?:there: |, )([^,\s]+?)(?=,|\.$|\.\n)", refused(ref))
    assert names[: len(suggested)] == suggested
    assert len(names) <= 3


def test_an_unknown_ref_names_repository_and_endpoint() -> None:
    message = refused("no-such-thing-anywhere")
    assert "flashinfer: https://***@host.example/x.git" in message


def test_the_word_matching_means_nothing_to_a_remote() -> None:
    assert "matching" in refused("matching")


def test_latest_needs_a_release() -> None:
    with pytest.raises(UsageError, match="no release tag"):
        resolve("latest", Advertised({"main": MAIN}, {"v1.0rc1": MAIN, "nightly": MAIN}, {}), *PLACE)


@pytest.mark.parametrize(
    "ref",
    [
        *(
            "",
            "-x",
            "--upload-pack=id",
            "refs/heads/--x",
            "refs/tags/-d",
            "refs/heads/",
            "refs/pull/1/head",
            "refs/remotes/o/x",
        ),
        *(
            "a..b",
            "a b",
            "a~1",
            "a^{}",
            "HEAD^",
            "main:other",
            "+main:x",
            "a?",
            "a*",
            "a[b",
            "a\\b",
            "@",
            "a@{1}",
            "a//b",
            "/a",
        ),
        *(
            "a/",
            "a.",
            ".a",
            "a/.b",
            "a.lock",
            "a.lock/b",
            "a\nb",
            "a\0b",
            "a\x7fb",
            "a\u202eb",
            "\udc80",
            "a" * 256,
            "ü" * 128,
        ),
        *("refs/heads/refs/heads/x", "a\u2028b"),
    ],
)
def test_what_cannot_be_a_ref_is_refused_before_any_question(ref: str) -> None:
    with pytest.raises(UsageError) as error:
        check_ref(ref)
    assert error.value.what.isprintable() and len(error.value.what) < 1500


@pytest.mark.parametrize(
    "ref", ["main", "feature/x-1", "v0.6.7.post3", "refs/heads/latest", "a" * 255, "größe", "x@y", "latest"]
)
def test_plain_names_can_be_refs(ref: str) -> None:
    assert check_ref(ref) == ref


@given(st.text(max_size=30) | st.text("ab-./@{}~^:\\*[ ", max_size=10))
@example("refs/heads/x")
def test_a_ref_that_is_let_through_is_no_option_no_pattern_and_one_line(ref: str) -> None:
    try:
        name = check_ref(ref).removeprefix("refs/heads/").removeprefix("refs/tags/")
    except UsageError:
        return
    assert ref.isprintable() and not ref.startswith("-") and not name.startswith(("-", "refs/"))
    assert not set(name) & set(" ~^:?*[\\") and ".." not in name


@given(
    st.text("abcdef0123456789v.rc-main/", min_size=1, max_size=12),
    SOME_TAGS,
    st.lists(st.text("main/ab-", min_size=1), max_size=4),
)
def test_what_resolves_is_what_the_remote_advertised(ref: str, tags: list[str], heads: list[str]) -> None:
    remote = Advertised(dict.fromkeys(heads, MAIN), dict.fromkeys(tags, RELEASE), {})
    try:
        target = resolve(ref, remote, *PLACE)
    except UsageError:
        assert not _allowed(ref) or ref not in {*heads, *tags}
    else:
        assert target.commit in (MAIN, RELEASE)
        assert target.kind == "commit" or target.name == ref


def _allowed(ref: str) -> bool:
    try:
        return bool(check_ref(ref))
    except UsageError:
        return False


@pytest.mark.parametrize(
    ("tag", "version"),
    [
        ("v0.6.7.post3", "0.6.7.post3"),
        ("0.5.0rc2", "0.5.0rc2"),
        ("v1.0", "1.0"),
        ("v0.2.0+cu124", None),
        ("nightly-v0.6.9-20260504", None),
        ("aarch64", None),
        ("gateway-v0.1", None),
        ("20260101", None),
        ("v0.6.7-3-gabcdef0", None),
        ("v1." + "9" * 5000, None),
        ("", None),
    ],
)
def test_which_tags_are_versions(tag: str, version: str | None) -> None:
    assert refs.release(tag) == (Version(version) if version else None)


def test_the_newest_of_a_real_list() -> None:
    assert refs.latest(TAGS) == "v0.6.17"
    assert refs.highest(TAGS) == Version("0.6.18rc7")
    assert refs.newest(TAGS, SpecifierSet(">=0.1.6")) == "v0.6.17"
    assert refs.newest(TAGS, SpecifierSet(">=0.2,<0.3")) == "v0.2.0.post2"
    assert refs.newest(TAGS, SpecifierSet("==0.4.0rc3")) == "v0.4.0rc3"
    assert refs.newest(TAGS, SpecifierSet("==0.5.0rc2")) == "v0.5.0rc2"
    assert refs.newest(TAGS, SpecifierSet(">=0.6.18rc1")) == "v0.6.18rc7"
    assert refs.newest(TAGS, SpecifierSet(">=1")) is None


@given(SOME_TAGS)
def test_latest_is_a_final_release_that_no_other_one_exceeds(tags: list[str]) -> None:
    finals = [version for tag in tags if (version := refs.release(tag)) and not version.is_prerelease]
    newest = refs.latest(tags)
    assert (newest is None) == (not finals)
    if newest is not None:
        assert newest in tags and Version(newest) == max(finals)
        assert newest.startswith("v") or f"v{newest}" not in tags


@given(SOME_TAGS, VERSIONS, st.sampled_from(["==", ">=", "~=", "!=", "<", ">"]))
def test_the_newest_that_satisfies_satisfies_and_is_final_where_one_is(
    tags: list[str], version: str, operator: str
) -> None:
    specifier = SpecifierSet(f"{operator}{version}")
    newest = refs.newest(tags, specifier)
    fitting = [v for tag in tags if (v := refs.release(tag)) and specifier.contains(v, prereleases=True)]
    assert (newest is None) == (not fitting)
    if newest is not None:
        best = max([v for v in fitting if not v.is_prerelease] or fitting)
        assert newest in tags and Version(newest) == best


@given(SOME_TAGS)
def test_the_order_of_the_list_does_not_matter(tags: list[str]) -> None:
    assert refs.latest(tags) == refs.latest(sorted(tags, reverse=True))
    assert refs.highest(tags) == refs.highest(sorted(tags))


@given(st.text(max_size=20), SOME_TAGS)
def test_suggestions_are_few_and_are_names_of_the_list(name: str, tags: list[str]) -> None:
    found = refs.nearest(name, tags)
    assert len(found) <= 3 and set(found) <= set(tags)
