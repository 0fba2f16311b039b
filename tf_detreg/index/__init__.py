"""A gallery on disk that can be searched, filtered and changed."""

from tf_detreg.index.index import Index

__all__ = ["Index"]
