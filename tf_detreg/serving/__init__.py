"""A thin local server: TensorFlow Serving's REST predict API and a page for searching with pictures.

Needs the extra `serve`; the parts are imported from their modules, so that `serve` can say what is missing.
"""

from tf_detreg.serving.server import serve

__all__ = ["serve"]
