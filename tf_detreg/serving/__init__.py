"""A thin local server: TensorFlow Serving's predict API, REST and gRPC, and a page for searching with pictures.

Needs the extra `serve`; the parts are imported from their modules, so that `serve` can say what is missing.
"""

from tf_detreg.serving.server import host_names, serve

__all__ = ["host_names", "serve"]
