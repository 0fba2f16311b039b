"""Metric losses, one a file: pair losses are `keras.losses.Loss`, proxy losses are layers that own their proxies."""

from tf_detreg.losses.base import ProxyLoss
from tf_detreg.losses.proxy_anchor import ProxyAnchor

__all__ = ["ProxyAnchor", "ProxyLoss"]
