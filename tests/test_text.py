from limber_interp.text import printable


def test_printable():
    assert printable(" dog\n\x1b[31m\u202e é") == " dog\\n\\x1b[31m\\u202e é"
