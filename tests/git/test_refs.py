"""A REF is a branch, a tag, a commit id or `latest`; what it is depends on what the remote advertises."""

import pytest

from tasks.errors import NetworkError, UsageError
from tasks.git import refs
from tasks.git.refs import Advertised
from tasks.names import check_ref

TAGS = ("v0.1.6", "v0.2.0", "v0.2.0.post2", "v0.2.9rc2", "v0.4.0rc3", "v0.5.0rc2", "0.5.0rc2", "v0.6.7", "v0.6.7.post3",
        "v0.6.10", "v0.6.17", "v0.6.18rc7", "nightly-v0.6.9-20260504", "aarch64", "gateway-v0.9", "20260101",
        "v9.9.9+cu124", "v1." + "9" * 5000)  # fmt: skip
MAIN, RELEASE = "a" * 40, "b" * 40
COMMITS = {tag: f"{number:040x}" for number, tag in enumerate(TAGS, 0x1234567 << 132)}
REMOTE = Advertised(
    heads={"main": MAIN, "release/1": RELEASE, "v0.2.0": RELEASE, "deadbeef": MAIN},
    tags=COMMITS | {"v0.6.17": "c" * 40, "latest": MAIN},
    peeled={"v0.6.17": "d" * 40},
)
PLACE = ("flashinfer", "https://user:secret@host.example/x.git")


def refused(ref: str, remote: Advertised = REMOTE) -> str:
    with pytest.raises(UsageError) as error:
        refs.resolve(ref, remote, *PLACE)
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
    assert refs.resolve("v1.0", read, *PLACE).commit == "d" * 40
    assert Advertised.parse("", "x") == Advertised({}, {}, {})


@pytest.mark.parametrize("line", ["main", MAIN, f"{MAIN[1:]}\trefs/heads/x", f"{MAIN} refs/heads/x"])
def test_a_broken_list_of_refs_is_the_remotes_fault(line: str) -> None:
    with pytest.raises(NetworkError):
        Advertised.parse(f"{MAIN}\trefs/heads/main\n{line}\n", "x")


@pytest.mark.parametrize(
    ("ref", "kind", "name", "commit"),
    [
        ("main", "branch", "main", MAIN),
        ("refs/heads/main", "branch", "main", MAIN),
        ("v0.6.7", "tag", "v0.6.7", COMMITS["v0.6.7"]),
        ("v0.6.17", "tag", "v0.6.17", "d" * 40),
        ("latest", "tag", "v0.6.17", "d" * 40),
        ("refs/tags/latest", "tag", "latest", MAIN),
        ("v0.2.0", "branch", "v0.2.0", RELEASE),  # both: the branch
        ("refs/tags/v0.2.0", "tag", "v0.2.0", COMMITS["v0.2.0"]),
        ("F" * 39 + "0", "commit", "", "f" * 39 + "0"),
        ("bbbbbbb", "commit", "", RELEASE),
        ("c" * 40, "commit", "", "d" * 40),  # a tag object
        ("ccccccc", "commit", "", "d" * 40),
    ],
)
def test_what_a_ref_is(ref: str, kind: str, name: str, commit: str) -> None:
    target = refs.resolve(ref, REMOTE, *PLACE)
    assert (target.ref, target.kind, target.name, target.commit) == (ref, kind, name, commit)


@pytest.mark.parametrize(
    ("ref", "said"),
    [
        ("1234567", "more than one"),
        ("9876543", "full commit id"),
        ("matching", "matching"),
        ("mian", "main"),
        ("latst", "latest"),
        ("0.6.7.post3", "v0.6.7.post3"),
        ("v0.6.19", "v0.6.17"),
        ("refs/tags/main", "main"),
    ],
)
def test_a_ref_that_means_nothing_there_is_refused_with_the_nearest_names(ref: str, said: str) -> None:
    message = refused(ref).replace(f"commit {ref}", "")
    assert said in message
    assert ref == "matching" or "flashinfer: https://***@host.example/x.git" in message


def test_latest_of_a_remote_without_a_release_is_refused() -> None:
    assert "release tag" in refused("latest", Advertised({"main": MAIN}, {"v1.0rc1": MAIN, "nightly": MAIN}, {}))


@pytest.mark.parametrize(
    "ref",
    ["", "-x", "--upload-pack=id", "refs/heads/--x", "refs/tags/-d", "refs/heads/", "refs/pull/1/head", "a..b", "a b",
     "a~1", "a^{}", "main:other", "+main:x", "a?", "a*", "a[b", "a\\b", "@", "a@{1}", "a//b", "/a", "a/", "a.", "a/.b",
     "a.lock/b", "a\nb", "a\0b", "a\x7fb", "a\u202eb", "\udc80", "refs/heads/refs/heads/x", "a\u2028b"],
)  # fmt: skip
def test_what_cannot_be_a_ref_is_refused_before_any_question(ref: str) -> None:
    with pytest.raises(UsageError) as error:
        check_ref(ref)
    assert error.value.what.isprintable() and len(error.value.what) < 1500


@pytest.mark.parametrize("tag", TAGS)
def test_latest_is_a_version_that_is_no_pre_release_no_build_and_no_date(tag: str) -> None:
    expected = tag in {"v0.1.6", "v0.2.0", "v0.2.0.post2", "v0.6.7", "v0.6.7.post3", "v0.6.10", "v0.6.17"}
    assert refs.latest([tag]) == (tag if expected else None)
