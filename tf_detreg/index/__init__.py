"""A gallery on disk that can be searched, filtered and changed."""

from tf_detreg.index.index import Index
from tf_detreg.index.sharding import Shards

__all__ = ["Index", "Shards"]
