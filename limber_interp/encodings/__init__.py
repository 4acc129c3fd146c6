"""Encodings of a data set: the frozen encoder's outputs, computed once, kept as shards, read by index."""

from limber_interp.encodings.reading import Encodings as Encodings
from limber_interp.encodings.reading import is_encodings as is_encodings
from limber_interp.encodings.reading import open_encodings as open_encodings
from limber_interp.encodings.writing import encode as encode
from limber_interp.encodings.writing import encode_once as encode_once
