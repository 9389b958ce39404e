"""A REF is a branch, a tag, a commit id or `latest`; what it is depends on what the remote advertises."""

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from packaging.version import Version

from tasks.errors import NetworkError, UsageError
from tasks.git import refs
from tasks.git.refs import Advertised, Target, resolve
from tasks.names import check_ref

settings.register_profile("busy machine", deadline=None)
settings.load_profile("busy machine")

TAGS = ("v0.1.6", "v0.2.0", "v0.2.0.post2", "v0.2.9rc2", "v0.4.0rc3", "v0.4.0", "v0.5.0rc2", "0.5.0rc2", "v0.6.7",
        "v0.6.7.post3", "v0.6.8rc1", "v0.6.10", "v0.6.17", "v0.6.18rc7", "nightly-v0.6.9-20260504", "aarch64",
        "gateway-v0.9")  # fmt: skip
MAIN, RELEASE = "a" * 40, "b" * 40
COMMITS = {tag: f"{number:040x}" for number, tag in enumerate(TAGS, 0x1234567 << 132)}
REMOTE = Advertised(
    heads={"main": MAIN, "release/1": RELEASE, "v0.2.0": RELEASE, "deadbeef": MAIN},
    tags=COMMITS | {"v0.6.17": "c" * 40, "latest": MAIN},
    peeled={"v0.6.17": "d" * 40},
)
PLACE = ("flashinfer", "https://user:secret@host.example/x.git")
VERSIONS = st.builds("{}.{}.{}{}".format, *[st.integers(0, 20)] * 3, st.sampled_from(["", ".post1", "rc1", "a3"]))
NOISE = st.sampled_from(["nightly-v0.6.9-20260504", "aarch64", "gateway-v9.9.9", "20260101", "v9.9.9+cu124"])
SOME_TAGS = st.lists(st.builds("{}{}".format, st.sampled_from(["v", "v", ""]), VERSIONS) | NOISE, max_size=12)


def refused(ref: str, remote: Advertised = REMOTE) -> str:
    with pytest.raises(UsageError) as error:
        resolve(ref, remote, *PLACE)
    assert "secret" not in str(error.value) and error.value.what.isprintable()
    return str(error.value)


def test_a_list_of_refs_is_read_with_annotated_tags_peeled() -> None:
    listed = (
        f"{MAIN}\tHEAD\n{MAIN}\trefs/heads/main\n{RELEASE}\trefs/pull/7/head\n"
        f"{'c' * 40}\trefs/tags/v1.0\n{'d' * 40}\trefs/tags/v1.0^{{}}\n{'e' * 64}\trefs/tags/big\n"
        f"{MAIN}\trefs/heads/odd\u2028my\x85name\n"
    )
    read = Advertised.parse(listed, "x")
    assert read.heads == {"main": MAIN, "odd\u2028my\x85name": MAIN}
    assert read.tags == {"v1.0": "c" * 40, "big": "e" * 64}
    assert (read.commit("v1.0"), read.commit("big")) == ("d" * 40, "e" * 64)
    assert Advertised.parse("", "x") == Advertised({}, {}, {})


@pytest.mark.parametrize("line", ["main", MAIN, f"{MAIN[1:]}\trefs/heads/x", f"{MAIN} refs/heads/x"])
def test_a_broken_list_of_refs_is_the_remotes_fault(line: str) -> None:
    with pytest.raises(NetworkError):
        Advertised.parse(f"{MAIN}\trefs/heads/main\n{line}\n", "x")


@pytest.mark.parametrize(
    ("ref", "target"),
    [
        ("main", Target("main", "branch", "main", MAIN, MAIN)),
        ("refs/heads/main", Target("refs/heads/main", "branch", "main", MAIN, MAIN)),
        ("v0.6.7", Target("v0.6.7", "tag", "v0.6.7", COMMITS["v0.6.7"], COMMITS["v0.6.7"])),
        ("v0.6.17", Target("v0.6.17", "tag", "v0.6.17", "d" * 40, "c" * 40)),
        ("latest", Target("latest", "tag", "v0.6.17", "d" * 40, "c" * 40)),
        ("refs/tags/latest", Target("refs/tags/latest", "tag", "latest", MAIN, MAIN)),
        ("v0.2.0", Target("v0.2.0", "branch", "v0.2.0", RELEASE, RELEASE)),  # both: the branch
        ("refs/tags/v0.2.0", Target("refs/tags/v0.2.0", "tag", "v0.2.0", COMMITS["v0.2.0"], COMMITS["v0.2.0"])),
        ("F" * 39 + "0", Target("F" * 39 + "0", "commit", "", "f" * 39 + "0", "f" * 39 + "0")),
        ("bbbbbbb", Target("bbbbbbb", "commit", "", RELEASE, RELEASE)),
    ],
)
def test_what_a_ref_is(ref: str, target: Target) -> None:
    assert resolve(ref, REMOTE, *PLACE) == target


def test_ids_that_begin_none_or_several_advertised_ones_are_refused() -> None:
    assert "more than one" in refused("1234567")
    assert "full commit id" in refused("9876543")
    assert "SHA-1" in refused("1" * 64)
    for tag_object in ("c" * 40, "ccccccc"):
        assert resolve(tag_object, REMOTE, *PLACE).commit == "d" * 40


@pytest.mark.parametrize(
    ("ref", "suggested"),
    [
        ("mian", ["main"]),
        ("latst", ["latest"]),
        ("0.6.7.post3", ["v0.6.7.post3"]),
        ("v0.6.7-post3", ["v0.6.7.post3"]),
        ("v0.6.19", ["v0.6.17", "v0.6.10"]),
        ("v0.6.9", ["v0.6.10", "v0.6.7.post3", "v0.6.7"]),
        ("refs/tags/main", ["main"]),
    ],
)
def test_an_unknown_ref_names_the_nearest_repository_and_endpoint(ref: str, suggested: list[str]) -> None:
    message = refused(ref)
    assert "flashinfer: https://***@host.example/x.git" in message
    names = re.findall(r"(?<=[ ,:'])(?:v?\d[\w.]*|main|latest)(?=[,.'\s]|$)", message.split("\n")[-1] + " ")
    assert [name.rstrip(".") for name in names[: len(suggested)]] == suggested
    assert len(names) <= 3


def test_words_that_mean_nothing_to_a_remote() -> None:
    assert "matching" in refused("matching")
    assert "release tag" in refused("latest", Advertised({"main": MAIN}, {"v1.0rc1": MAIN, "nightly": MAIN}, {}))


@pytest.mark.parametrize(
    "ref",
    ["", "-x", "--upload-pack=id", "refs/heads/--x", "refs/tags/-d", "refs/heads/", "refs/pull/1/head", "a..b", "a b",
     "a~1", "a^{}", "main:other", "+main:x", "a?", "a*", "a[b", "a\\b", "@", "a@{1}", "a//b", "/a", "a/", "a.", "a/.b",
     "a.lock/b", "a\nb", "a\0b", "a\x7fb", "a\u202eb", "\udc80", "a" * 256, "refs/heads/refs/heads/x", "a\u2028b"],
)  # fmt: skip
def test_what_cannot_be_a_ref_is_refused_before_any_question(ref: str) -> None:
    with pytest.raises(UsageError) as error:
        check_ref(ref)
    assert error.value.what.isprintable() and len(error.value.what) < 1500


@given(st.text(max_size=30) | st.text("ab-./@{}~^:\\*[ ", max_size=10))
@example("refs/heads/x")
@example("größe")
def test_a_ref_that_is_let_through_is_no_option_no_pattern_and_one_line(ref: str) -> None:
    try:
        name = check_ref(ref).removeprefix("refs/heads/").removeprefix("refs/tags/")
    except UsageError:
        return
    assert ref.isprintable() and not ref.startswith("-") and not name.startswith(("-", "refs/"))
    assert not set(name) & set(" ~^:?*[\\") and ".." not in name


@given(st.text("abcdef0123456789v.rc-main/", min_size=1, max_size=12), SOME_TAGS, st.lists(st.text("main/ab-")))
def test_what_resolves_is_what_the_remote_advertised(ref: str, tags: list[str], heads: list[str]) -> None:
    remote = Advertised(dict.fromkeys(heads, MAIN), dict.fromkeys(tags, RELEASE), {})
    try:
        target = resolve(ref, remote, *PLACE)
    except UsageError:
        return
    assert target.commit in (MAIN, RELEASE)
    assert target.kind == "commit" or (target.name == ref and ref in {*heads, *tags})


@pytest.mark.parametrize(
    ("tag", "version"),
    [("v0.6.7.post3", "0.6.7.post3"), ("0.5.0rc2", "0.5.0rc2"), ("v1.0", "1.0"), ("v0.2.0+cu124", None),
     ("nightly-v0.6.9-20260504", None), ("aarch64", None), ("gateway-v0.1", None), ("20260101", None),
     ("v0.6.7-3-gabcdef0", None), ("v1." + "9" * 5000, None), ("", None)],
)  # fmt: skip
def test_which_tags_are_versions(tag: str, version: str | None) -> None:
    assert refs.release(tag) == (Version(version) if version else None)


@given(SOME_TAGS)
def test_latest_is_a_final_release_that_no_other_one_exceeds_whatever_the_order(tags: list[str]) -> None:
    finals = [version for tag in tags if (version := refs.release(tag)) and not version.is_prerelease]
    newest = refs.latest(tags)
    assert newest == refs.latest(sorted(tags, reverse=True))
    assert refs.highest(tags) == refs.highest(sorted(tags))
    assert (newest is None) == (not finals)
    if newest is not None:
        assert newest in tags and Version(newest) == max(finals)
        assert newest.startswith("v") or f"v{newest}" not in tags
    assert len(refs.nearest("v0.6.9", tags)) <= 3 and {*refs.nearest("v0.6.9", tags)} <= {*tags}
    assert refs.latest(TAGS) == "v0.6.17" and refs.highest(TAGS) == Version("0.6.18rc7")
