"""Metric losses, one a file: pair losses are `keras.losses.Loss`, proxy losses are layers that own their proxies."""

from tf_detreg.losses.arc_face import ArcFace
from tf_detreg.losses.base import ProxyLoss
from tf_detreg.losses.cos_face import CosFace
from tf_detreg.losses.labels import check_labels
from tf_detreg.losses.normalized_softmax import NormalizedSoftmax
from tf_detreg.losses.pair_loss import PairLoss
from tf_detreg.losses.proxy_anchor import ProxyAnchor
from tf_detreg.losses.proxy_gml import ProxyGML
from tf_detreg.losses.proxy_nca import ProxyNCA
from tf_detreg.losses.proxy_nca_plus_plus import ProxyNCAPlusPlus
from tf_detreg.losses.soft_triple import SoftTriple
from tf_detreg.losses.sub_center_arc_face import SubCenterArcFace
from tf_detreg.losses.triplet_semi_hard import TripletSemiHard

__all__ = [
    "ArcFace",
    "CosFace",
    "NormalizedSoftmax",
    "PairLoss",
    "ProxyAnchor",
    "ProxyGML",
    "ProxyLoss",
    "ProxyNCA",
    "ProxyNCAPlusPlus",
    "SoftTriple",
    "SubCenterArcFace",
    "TripletSemiHard",
    "check_labels",
]
