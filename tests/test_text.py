from limber_interp.text import printable, visible


def test_printable():
    assert printable(" dog\n\x1b[31m\u202e é") == " dog\\n\\x1b[31m\\u202e é"


def test_visible():
    assert visible(" dog\t") == "␣dog\\t"
    assert visible("\u2028   ") == "\\u2028␣␣␣"
