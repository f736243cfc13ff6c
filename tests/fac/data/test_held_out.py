"""fac.data.held_out: which texts are held out, and that they cannot be read from what says so."""

from fac.data.held_out import HeldOut, exact_digest


def test_a_text_is_known_whatever_its_case_and_spacing():
    held = HeldOut.of(["How do I bake  bread?", "ﬁre"])
    assert all(
        text in held for text in ("How do I bake bread?", "how do i bake bread?\n", "HOW DO I BAKE BREAD?", "fire")
    )
    assert not any(text in held for text in ("how do I bake bread", "", "How do I bake"))
    assert "" not in HeldOut()


def test_texts_that_are_known_by_an_exact_digest_are_known_letter_by_letter():
    held = HeldOut.of([], [exact_digest("What is love?")])
    assert "What is love?" in held
    assert "what is love?" not in held


def test_the_texts_cannot_be_read_from_it():
    assert "bread" not in repr(HeldOut.of(["how do I bake bread"]))
