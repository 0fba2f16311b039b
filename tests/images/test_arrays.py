"""Images that are in memory."""

import numpy as np
import pytest

from tf_detreg.images.arrays import three_channels


def test_images_in_memory_may_be_a_list_and_must_be_bytes():
    assert three_channels([np.zeros((4, 5), np.uint8)] * 2).shape == (2, 4, 5, 3)
    assert three_channels(np.zeros((2, 4, 5, 3), np.uint8)).shape == (2, 4, 5, 3)
    for wrong in ([[[1, 2], [3, 4]]], np.zeros((2, 4, 5, 3)), np.zeros((2, 4, 5, 4), np.uint8)):
        with pytest.raises(ValueError, match=r"`images` must be uint8 of shape"):
            three_channels(wrong)
