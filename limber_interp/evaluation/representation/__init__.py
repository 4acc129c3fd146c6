"""What vectors of images know and how they lie, before a language model reads them: encodings or soft prompts."""

from limber_interp.evaluation.representation.features import Read as Read
from limber_interp.evaluation.representation.features import pool as pool
from limber_interp.evaluation.representation.geometry import Geometry as Geometry
from limber_interp.evaluation.representation.geometry import geometry as geometry
from limber_interp.evaluation.representation.probe import POOLING as POOLING
from limber_interp.evaluation.representation.probe import Probe as Probe
from limber_interp.evaluation.representation.probe import probe as probe
from limber_interp.evaluation.representation.similarity import cka as cka
from limber_interp.evaluation.representation.similarity import neighbour_overlap as neighbour_overlap
from limber_interp.evaluation.representation.similarity import similarity as similarity
from limber_interp.evaluation.representation.words import mean_by_word as mean_by_word
from limber_interp.evaluation.representation.words import token_embeddings as token_embeddings
