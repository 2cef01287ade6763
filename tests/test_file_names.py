"""Names in any encoding, length or script can be printed and written."""

import os

import pytest

from gan_lightning.file_names import printable, target_names, writable

LATIN1 = os.fsdecode(b"caf\xe9.png")


def test_what_is_printed_is_one_line_of_text():
    assert printable("été/写真.png") == "été/写真.png"
    assert printable(LATIN1) == r"caf\xe9.png"
    assert printable("two\nlines\x07.png") == r"two\nlines\x07.png"


@pytest.mark.parametrize("name", ["plain name.x", "写" * 66, "é" * 100])
def test_a_name_that_fits_stays(name):
    assert writable(name, 200) == name


def test_a_long_name_is_cut_between_letters_and_stays_unique():
    first, second = ("写" * 80 + end for end in "ab")
    short = writable(first, 200)
    assert len(short.encode()) <= 200
    assert short.startswith("写" * 60)
    assert short == writable(first, 200) != writable(second, 200)


def test_what_no_encoding_holds_is_replaced():
    assert writable(LATIN1, 200) == "caf_.png"
    assert writable("two\nlines", 200) == "two_lines"


def test_names_that_differ_only_in_what_cannot_be_written_stay_apart():
    names = [os.fsdecode(name) for name in (b"caf\xe9.png", b"caf\xe8.png", b"caf_.png", b"tea.png")]
    targets = target_names(names)
    assert len({*targets.values()}) == len(names)
    assert targets["tea.png"] == "tea.png.png"
    assert all(target.isprintable() for target in targets.values())
    long = ["x" * 238 + f"{number}0123456789.png" for number in range(2)]
    assert len({*target_names(long).values()}) == 2
