"""`python -m tf_detreg.experiments`: the former name of `tf-detreg ablate|tune|report`."""

import warnings

from tf_detreg.cli import main

if __name__ == "__main__":
    warnings.warn(
        "`python -m tf_detreg.experiments` is `tf-detreg` now, with the same commands.",
        DeprecationWarning,
        stacklevel=1,
    )
    main()
