"""How each official class is computed here, one file a family of classes."""

from parity.families.captioning import Captions
from parity.families.cclm import CrossView
from parity.families.classification import Classifications, MvpEntailment
from parity.families.grounding import BoxGrounding
from parity.families.mvp import MvpPretraining
from parity.families.mvp_referring import MvpReferring
from parity.families.mvp_retrieval import MvpRetrieval
from parity.families.mvp_vqa import MvpAnswering
from parity.families.retrieval import RetrievalTuning
from parity.families.vqa import DecoderAnswering
from parity.families.xfm import XfmPretraining
from parity.families.xvlm import JointPretraining
from parity.family import Family

FAMILIES: tuple[Family, ...] = (
    JointPretraining(),
    CrossView(),
    XfmPretraining(),
    MvpPretraining(),
    RetrievalTuning(),
    MvpRetrieval(),
    Classifications(),
    MvpEntailment(),
    DecoderAnswering(),
    MvpAnswering(),
    BoxGrounding(),
    MvpReferring(),
    Captions(),
)
"""Every class that is covered; the first that covers a case computes it."""
