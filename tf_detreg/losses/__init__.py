"""Metric losses, one a file: pair losses are `keras.losses.Loss`, proxy losses are layers that own their proxies."""

from tf_detreg.losses.arc_face import ArcFace
from tf_detreg.losses.base import ProxyLoss
from tf_detreg.losses.circle import Circle
from tf_detreg.losses.contrastive import Contrastive
from tf_detreg.losses.cos_face import CosFace
from tf_detreg.losses.cross_batch_memory import CrossBatchMemory
from tf_detreg.losses.fast_ap import FastAP
from tf_detreg.losses.generalized_lifted_structure import GeneralizedLiftedStructure
from tf_detreg.losses.labels import check_labels
from tf_detreg.losses.lifted_structure import LiftedStructure
from tf_detreg.losses.margin import Margin
from tf_detreg.losses.multi_similarity import MultiSimilarity
from tf_detreg.losses.n_pairs import NPairs
from tf_detreg.losses.n_pairs_multilabel import NPairsMultilabel
from tf_detreg.losses.normalized_softmax import NormalizedSoftmax
from tf_detreg.losses.nt_xent import NTXent
from tf_detreg.losses.pair_loss import PairLoss
from tf_detreg.losses.proxy_anchor import ProxyAnchor
from tf_detreg.losses.proxy_gml import ProxyGML
from tf_detreg.losses.proxy_nca import ProxyNCA
from tf_detreg.losses.proxy_nca_plus_plus import ProxyNCAPlusPlus
from tf_detreg.losses.soft_triple import SoftTriple
from tf_detreg.losses.sub_center_arc_face import SubCenterArcFace
from tf_detreg.losses.sup_con import SupCon
from tf_detreg.losses.triplet import Triplet
from tf_detreg.losses.triplet_batch_hard import TripletBatchHard
from tf_detreg.losses.triplet_semi_hard import TripletSemiHard

__all__ = [
    "ArcFace",
    "Circle",
    "Contrastive",
    "CosFace",
    "CrossBatchMemory",
    "FastAP",
    "GeneralizedLiftedStructure",
    "LiftedStructure",
    "Margin",
    "MultiSimilarity",
    "NPairs",
    "NPairsMultilabel",
    "NTXent",
    "NormalizedSoftmax",
    "PairLoss",
    "ProxyAnchor",
    "ProxyGML",
    "ProxyLoss",
    "ProxyNCA",
    "ProxyNCAPlusPlus",
    "SoftTriple",
    "SubCenterArcFace",
    "SupCon",
    "Triplet",
    "TripletBatchHard",
    "TripletSemiHard",
    "check_labels",
]
