"""Captioned images from disk, in the formats in which they come. Each is indexed, so that the order in which examples
are seen, their split over ranks and resumption are plain arithmetic on indices."""

from limber_interp.datasets.base import Dataset as Dataset
from limber_interp.datasets.base import Example as Example
from limber_interp.datasets.base import Rejected as Rejected
from limber_interp.datasets.base import Rejections as Rejections
from limber_interp.datasets.base import fingerprint as fingerprint
from limber_interp.datasets.folder import read_folder as read_folder
from limber_interp.datasets.opening import open_dataset as open_dataset
from limber_interp.datasets.questions import Question as Question
from limber_interp.datasets.questions import QuestionSet as QuestionSet
from limber_interp.datasets.questions import open_questions as open_questions
