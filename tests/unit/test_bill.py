from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from workers.host.bill import Part, bill_of, debian_part


def test_a_debian_package_has_its_address_among_all_packages() -> None:
    part = debian_part("libstdc++6", "1:12.2.0-14+deb12u1", "amd64", "debian")

    assert part.component() == {
        "type": "library",
        "name": "libstdc++6",
        "version": "1:12.2.0-14+deb12u1",
        "bom-ref": "pkg:deb/debian/libstdc%2B%2B6@1%3A12.2.0-14%2Bdeb12u1?arch=amd64",
        "purl": "pkg:deb/debian/libstdc%2B%2B6@1%3A12.2.0-14%2Bdeb12u1?arch=amd64",
    }


def test_an_archive_has_its_hash() -> None:
    bill = bill_of("github-runner", [Part("application", "actions/runner", "2.336.0", sha256="ab" * 32)])

    assert (bill["bomFormat"], bill["specVersion"], bill["version"]) == ("CycloneDX", "1.5", 1)
    assert bill["components"] == [
        {
            "type": "application",
            "name": "actions/runner",
            "version": "2.336.0",
            "hashes": [{"alg": "SHA-256", "content": "ab" * 32}],
        }
    ]


PARTS = st.lists(
    st.builds(
        debian_part,
        st.from_regex(r"[a-z][a-z0-9+.-]{0,8}", fullmatch=True),
        st.just("1.0"),
        st.just("all"),
        st.just("debian"),
    ),
    unique=True,
)


@given(PARTS, st.randoms())
def test_the_order_in_which_parts_are_found_decides_nothing(parts: list[Part], random: object) -> None:
    shuffled = list(parts)
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis's own

    assert bill_of("x", parts) == bill_of("x", shuffled)
