"""Results as frozen records: numpy arrays and plain values, with a manifest of what produced them.

A record can be saved and loaded (`.npz` without pickles), printed as JSON, and drawn again without any model.
"""

from limber_interp.records.base import WRITER as WRITER
from limber_interp.records.base import Manifest as Manifest
from limber_interp.records.base import Record as Record
from limber_interp.records.base import check_folder as check_folder
from limber_interp.records.base import check_writable as check_writable
from limber_interp.records.base import installed_versions as installed_versions
from limber_interp.records.base import make_folder as make_folder
from limber_interp.records.base import move_into_place as move_into_place
from limber_interp.records.base import sync as sync
from limber_interp.records.base import write_atomically as write_atomically
from limber_interp.records.captions import Caption as Caption
from limber_interp.records.captions import Captions as Captions
from limber_interp.records.captions import CaptionSample as CaptionSample
from limber_interp.records.comparison import ComparedImage as ComparedImage
from limber_interp.records.comparison import ComparedQuestion as ComparedQuestion
from limber_interp.records.comparison import Comparison as Comparison
from limber_interp.records.comparison import Contrast as Contrast
from limber_interp.records.comparison import Entry as Entry
from limber_interp.records.comparison import Metric as Metric
from limber_interp.records.comparison import Score as Score
from limber_interp.records.comparison import Similarity as Similarity
from limber_interp.records.controls import Control as Control
from limber_interp.records.controls import Target as Target
from limber_interp.records.controls import least_p_told as least_p_told
from limber_interp.records.estimates import SHARE as SHARE
from limber_interp.records.estimates import Bounds as Bounds
from limber_interp.records.estimates import Difference as Difference
from limber_interp.records.estimates import Estimate as Estimate
from limber_interp.records.logit_lens import ImageLens as ImageLens
from limber_interp.records.logit_lens import LayerReading as LayerReading
from limber_interp.records.logit_lens import LensControl as LensControl
from limber_interp.records.logit_lens import LensTarget as LensTarget
from limber_interp.records.logit_lens import LogitLens as LogitLens
from limber_interp.records.nearest_tokens import ImageTokens as ImageTokens
from limber_interp.records.nearest_tokens import NearestTokens as NearestTokens
from limber_interp.records.questions import Answer as Answer
from limber_interp.records.training import TrainingPlan as TrainingPlan
from limber_interp.records.training import TrainingRun as TrainingRun
